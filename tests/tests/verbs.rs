//! Every verb in every state a container may be in: runc's exit statuses and words.

use std::cell::RefCell;
use std::collections::HashMap;

use anyhow::{Result, ensure};
use husk_tests::capture::End;
use husk_tests::image::Image;
use husk_tests::oci::{Bundle, Runtime, both};

/// Runs until a TERM comes, which it tells.
const WAITS: &str = "trap 'echo term; exit 5' TERM; echo up; while :; do sleep 0.05; done";

/// The message of a command that failed, in runc's words; husk's may say more.
fn complaint(runtime: &Runtime, text: &str) -> String {
    let line = text.lines().last().unwrap_or_default();
    if runtime.name == "husk" {
        return line.trim_start_matches("husk: ").to_owned();
    }
    let message = line.split_once(" msg=\"").map_or(line, |(_, rest)| rest);
    let message = message
        .strip_suffix('"')
        .unwrap_or(message)
        .replace("\\\"", "\"");
    let verbs = ["runc create failed: ", "runc run failed: "];
    verbs
        .iter()
        .fold(message, |text, verb| text.replace(verb, ""))
}

/// Every verb on a container that is missing, created, stopped or paused: runc's exit status, and what runc says. Not here: what
/// husk refuses before `start` (docs/lifecycle.md).
#[test]
fn verbs_in_every_state() -> Result<()> {
    let missing: &[&str] = &[
        "state ID",
        "start ID",
        "kill ID",
        "kill ID NOPE",
        "kill --all ID TERM",
        "ps ID",
        "ps --format json ID",
        "pause ID",
        "resume ID",
        "update ID",
        "update --resources /no/such/file ID",
        "events --stats ID",
        "exec ID true",
        "exec ID",
        "exec --process /no/such/file ID",
        "exec --detach ID true",
        "exec --tty ID true",
        "exec --user 1:x ID true",
        "delete ID",
        "delete --force ID",
    ];
    let created: &[&str] = &[
        "kill ID NOPE",
        "kill ID 0",
        "ps ID",
        "ps --format json ID",
        "pause ID",
        "state ID",
        "start ID",
        "delete ID",
        "pause ID",
        "resume ID",
        "resume ID",
        "update --cpu-share 512 ID",
        "events --stats ID",
        "create --bundle BUNDLE ID",
        "run --bundle BUNDLE ID",
        "delete ID",
        "state ID",
    ];
    let stopped: &[&str] = &[
        "state ID",
        "start ID",
        "kill ID",
        "kill ID NOPE",
        "kill ID 0",
        "kill --all ID KILL",
        "ps ID",
        "ps --format json ID",
        "pause ID",
        "resume ID",
        "update --memory 200000000 ID",
        "events --stats ID",
        "exec ID true",
        "exec ID",
        "exec --tty ID true",
        "create --bundle BUNDLE ID",
        "run --bundle BUNDLE ID",
        "delete ID",
        "delete ID",
    ];
    let paused: &[&str] = &[
        "start ID",
        "kill ID NOPE",
        "kill ID 0",
        "ps --format json ID",
        "pause ID",
        "exec ID true",
        "events --stats ID",
        "update --memory 200000000 ID",
        "create --bundle BUNDLE ID",
        "delete ID",
        "resume ID",
        "resume ID",
        "delete --force ID",
    ];
    let image = Image::busybox()?;
    let messages = RefCell::new(HashMap::new());
    both(|runtime| {
        let mut seen = String::new();
        for (state, verbs) in [
            ("missing", missing),
            ("created", created),
            ("stopped", stopped),
            ("paused", paused),
        ] {
            let bundle = Bundle::new(runtime, &image, WAITS)?;
            let id = match state {
                "missing" => "none".to_owned(),
                "created" => bundle.create()?,
                _ => bundle.started()?,
            };
            match state {
                "stopped" => {
                    runtime.must(&["kill", &id, "KILL"])?;
                    runtime.wait_for(&id, "stopped")?;
                }
                "paused" => drop(runtime.must(&["pause", &id])?),
                _ => {}
            }
            let path = bundle.path().display().to_string();
            for (index, verb) in verbs.iter().enumerate() {
                let line = verb.replace("ID", &id).replace("BUNDLE", &path);
                let words: Vec<&str> = line.split(' ').collect();
                let done = runtime.verb(&words)?;
                seen += &format!("{state} {index} {verb}: {:?}\n", done.end);
                if done.end == End::Status(0) {
                    continue;
                }
                let said = complaint(runtime, &done.stderr_text()).replace(&id, "ID");
                let key = format!("{state} {index} {verb}");
                if runtime.name == "runc" {
                    messages.borrow_mut().insert(key, said);
                } else if let Some(expected) = messages.borrow().get(&key) {
                    ensure!(
                        said.contains(expected),
                        "{key}: {said:?}, runc: {expected:?}"
                    );
                }
            }
        }
        Ok(seen)
    })?;
    Ok(())
}
