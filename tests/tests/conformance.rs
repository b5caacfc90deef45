//! One test for each MUST of the runtime-spec's runtime.md and config.md that is about the life cycle; docs/conformance.md
//! is the table. Each runs under runc too, and both must behave alike.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use husk_tests::image::Image;
use husk_tests::oci::{Bundle, Runtime, both};
use serde_json::{Value, json};

fn image() -> Result<Image> {
    Image::busybox()
}

/// Runs until a TERM comes, which it tells.
const WAITS: &str = "trap 'echo term; exit 5' TERM; echo up; while :; do sleep 0.05; done";

fn json_of(runtime: &Runtime, id: &str) -> Result<Value> {
    Ok(serde_json::from_str(&runtime.must(&["state", id])?)?)
}

#[test]
fn state_has_its_fields() -> Result<()> {
    let image = image()?;
    let seen = both(|runtime| {
        let mut bundle = Bundle::new(runtime, &image, WAITS)?;
        bundle.edit(|spec| spec["annotations"] = json!({"com.example.key": "value", "b": ""}))?;
        let id = bundle.create()?;
        let state = json_of(runtime, &id)?;
        ensure!(
            state["id"] == json!(id) && state["bundle"] == json!(fs::canonicalize(bundle.path())?)
        );
        let pid = state["pid"].as_i64().unwrap_or(0);
        ensure!(
            Path::new(&format!("/proc/{pid}")).exists(),
            "no process {pid}"
        );
        let mut names: Vec<&String> = state
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
            .collect();
        names.sort();
        Ok(format!(
            "{names:?} {} {} {}",
            state["ociVersion"], state["status"], state["annotations"]
        ))
    })?;
    assert!(seen.contains("\"created\""), "{seen}");
    Ok(())
}

#[test]
fn state_of_nothing_is_an_error() -> Result<()> {
    for runtime in [Runtime::runc()?, Runtime::husk()?] {
        let text = runtime.must_fail(&["state", "no-such-container"])?;
        ensure!(text.contains("does not exist"), "{}: {text}", runtime.name);
    }
    Ok(())
}

#[test]
fn create_needs_a_new_id() -> Result<()> {
    let image = image()?;
    both(|runtime| {
        let bundle = Bundle::new(runtime, &image, WAITS)?;
        let id = bundle.create()?;
        let again = bundle.try_create(&id, &[])?;
        // The first is not touched.
        Ok(format!("{again:?} {}", runtime.status(&id)?))
    })?;
    Ok(())
}

#[test]
fn create_needs_a_bundle() -> Result<()> {
    both(|runtime| {
        let missing = runtime.must_fail(&["create", "--bundle", "/no/such/bundle", "c"])?;
        ensure!(missing.to_lowercase().contains("no such file"), "{missing}");
        ensure!(runtime.must(&["list", "-q"])?.is_empty());
        Ok(String::new())
    })?;
    Ok(())
}

/// Verbs on what is not there: the same exit status, and husk's one line has the words that engines look for.
#[test]
fn verbs_need_a_container() -> Result<()> {
    both(|runtime| {
        let mut seen = String::new();
        for verb in [
            &["start", "none"] as &[&str],
            &["state", "none"],
            &["kill", "none"],
            &["kill", "--all", "none", "KILL"],
            &["ps", "none"],
            &["ps", "--format", "json", "none"],
            &["pause", "none"],
            &["resume", "none"],
            &["update", "--memory", "100000000", "none"],
            &["events", "--stats", "none"],
            &["delete", "none"],
        ] {
            let text = runtime.must_fail(verb)?;
            ensure!(text.contains("does not exist"), "{verb:?}: {text}");
            seen += &format!("{verb:?} {:?}\n", runtime.verb(verb)?.end);
        }
        Ok(seen)
    })?;
    Ok(())
}

/// Wrong command lines end as runc's do.
#[test]
fn wrong_command_lines() -> Result<()> {
    let cases: [&[&str]; 19] = [
        &["frobnicate"],
        &["--frob", "list"],
        &["list", "--frob"],
        &["list", "extra"],
        &["list", "--format", "xml"],
        &["create"],
        &["create", "a", "b"],
        &["create", "--bundle"],
        &["start"],
        &["state"],
        &["state", "a", "b"],
        &["kill"],
        &["delete"],
        &["ps"],
        &["events", "--interval", "soon", "x"],
        &["checkpoint", "--leave-running", "none"],
        &["restore", "none"],
        &["--log-format", "xml", "list"],
        &["--log", "/no/such/directory/log", "list"],
    ];
    let seen = both(|runtime| {
        let mut seen = String::new();
        for words in cases {
            let done = runtime.verb(words)?;
            if runtime.name == "husk" {
                let text = done.stderr_text();
                ensure!(
                    text.lines().count() == 1 && text.starts_with("husk: "),
                    "{words:?}: {text}"
                );
                ensure!(done.stdout.is_empty(), "{words:?}");
            }
            seen += &format!("{words:?} {:?}\n", done.end);
        }
        Ok(seen)
    })?;
    ensure!(seen.contains("[\"frobnicate\"] Status(3)"), "{seen}");
    Ok(())
}

/// The terminal of a container in the background needs somebody to take it, and only that.
#[test]
fn terminals_and_console_sockets_go_together() -> Result<()> {
    let image = image()?;
    both(|runtime| {
        let mut seen = String::new();
        for (terminal, flags) in [
            (true, &[] as &[&str]),
            (true, &["--console-socket", "/no/such/socket"]),
            (false, &["--console-socket", "/no/such/socket"]),
        ] {
            let mut bundle = Bundle::new(runtime, &image, "true")?;
            bundle.edit(|v| v["process"]["terminal"] = json!(terminal))?;
            let (id, path) = (bundle.id(), bundle.path().display().to_string());
            let text =
                runtime.must_fail(&[&["create", "--bundle", &path], flags, &[&id]].concat())?;
            ensure!(
                text.contains("console socket")
                    || text.contains("console-socket")
                    || text.contains("no such file")
                    || text.contains("No such file"),
                "{text}"
            );
            ensure!(runtime.must(&["list", "-q"])?.is_empty(), "half-made");
            seen += &format!("{terminal} {flags:?}\n");
        }
        Ok(seen)
    })?;
    Ok(())
}

/// What a killed or broken command left is told of, and `delete --force` removes it.
#[test]
fn damaged_state_can_be_removed() -> Result<()> {
    let image = image()?;
    let runtime = Runtime::husk()?;
    let bundle = Bundle::new(&runtime, &image, WAITS)?;
    let id = bundle.started()?;
    bundle.wait_for_text(&id, "up")?;
    fs::write(
        runtime.state().join("containers").join(&id).join("record"),
        "{",
    )?;
    let text = runtime.must_fail(&["state", &id])?;
    ensure!(text.contains("delete --force"), "{text}");
    runtime.must_fail(&["delete", &id])?;
    runtime.must(&["delete", "--force", &id])?;
    runtime.must_fail(&["state", &id])?;
    ensure!(cgroups(&id)?.is_empty());
    Ok(())
}

#[test]
fn create_does_not_run_the_program() -> Result<()> {
    let image = image()?;
    let seen = both(|runtime| {
        let bundle = Bundle::new(runtime, &image, "echo ran")?;
        let id = bundle.create()?;
        let before = bundle.text(&id);
        runtime.must(&["start", &id])?;
        runtime.wait_for(&id, "stopped")?;
        Ok(format!("{before:?} {:?}", bundle.text(&id)))
    })?;
    assert_eq!(seen, r#""" "ran\n""#);
    Ok(())
}

#[test]
fn changes_after_create_have_no_effect() -> Result<()> {
    let image = image()?;
    let seen = both(|runtime| {
        let mut bundle = Bundle::new(runtime, &image, "echo before")?;
        let id = bundle.create()?;
        bundle.edit(|spec| spec["process"]["args"] = json!(["sh", "-c", "echo after"]))?;
        runtime.must(&["start", &id])?;
        runtime.wait_for(&id, "stopped")?;
        Ok(bundle.text(&id))
    })?;
    assert_eq!(seen, "before\n");
    Ok(())
}

#[test]
fn start_needs_a_created_container() -> Result<()> {
    let image = image()?;
    both(|runtime| {
        runtime.must_fail(&["start", "no-such-container"])?;
        let bundle = Bundle::new(runtime, &image, WAITS)?;
        let id = bundle.started()?;
        bundle.wait_for_text(&id, "up")?;
        let running = runtime.must_fail(&["start", &id])?;
        ensure!(
            running.contains("cannot start an already running container"),
            "{running}"
        );
        runtime.must(&["kill", &id, "KILL"])?;
        runtime.wait_for(&id, "stopped")?;
        let stopped = runtime.must_fail(&["start", &id])?;
        ensure!(
            stopped.contains("cannot start a container that has stopped"),
            "{stopped}"
        );
        Ok(bundle.text(&id))
    })?;
    Ok(())
}

#[test]
fn kill_sends_the_signal() -> Result<()> {
    let image = image()?;
    let seen = both(|runtime| {
        let mut seen = String::new();
        for signal in ["TERM", "SIGTERM", "15"] {
            let bundle = Bundle::new(runtime, &image, WAITS)?;
            let id = bundle.started()?;
            bundle.wait_for_text(&id, "up")?;
            runtime.must(&["kill", &id, signal])?;
            runtime.wait_for(&id, "stopped")?;
            seen += &bundle.text(&id);
        }
        Ok(seen)
    })?;
    assert_eq!(seen, "up\nterm\n".repeat(3));
    Ok(())
}

#[test]
fn kill_sends_any_signal() -> Result<()> {
    let image = image()?;
    let script =
        "trap 'echo urg' URG; trap 'echo real; exit 7' 37; echo up; while :; do sleep 0.05; done";
    let seen = both(|runtime| {
        let bundle = Bundle::new(runtime, &image, script)?;
        let id = bundle.started()?;
        bundle.wait_for_text(&id, "up")?;
        runtime.must(&["kill", &id, "URG"])?;
        bundle.wait_for_text(&id, "urg")?;
        runtime.must(&["kill", &id, "37"])?;
        runtime.wait_for(&id, "stopped")?;
        Ok(bundle.text(&id))
    })?;
    assert_eq!(seen, "up\nurg\nreal\n");
    Ok(())
}

#[test]
fn kill_all_reaches_every_process() -> Result<()> {
    let image = image()?;
    let script = "trap 'echo parent' USR1; \
        sh -c 'trap \"echo child; exit\" USR1; echo up; while :; do :; done' & wait; wait; echo end";
    both(|runtime| {
        let bundle = Bundle::new(runtime, &image, script)?;
        let id = bundle.started()?;
        bundle.wait_for_text(&id, "up")?;
        runtime.must(&["kill", "--all", &id, "USR1"])?;
        bundle.wait_for_text(&id, "end")?;
        let text = bundle.text(&id);
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        ensure!(lines == ["child", "end", "parent", "up"], "{text}");
        Ok(String::new())
    })?;
    Ok(())
}

#[test]
fn kill_reaches_a_created_container() -> Result<()> {
    let image = image()?;
    both(|runtime| {
        let bundle = Bundle::new(runtime, &image, "echo ran")?;
        let id = bundle.create()?;
        runtime.must(&["kill", &id, "KILL"])?;
        runtime.wait_for(&id, "stopped")?;
        Ok(bundle.text(&id))
    })?;
    Ok(())
}

#[test]
fn kill_needs_a_living_container() -> Result<()> {
    let image = image()?;
    both(|runtime| {
        runtime.must_fail(&["kill", "no-such-container", "TERM"])?;
        let bundle = Bundle::new(runtime, &image, "true")?;
        let id = bundle.started()?;
        runtime.wait_for(&id, "stopped")?;
        let text = runtime.must_fail(&["kill", &id, "TERM"])?;
        ensure!(text.contains("container not running"), "{text}");
        runtime.must_fail(&["kill", &id, "NOPE"])?;
        Ok(String::new())
    })?;
    Ok(())
}

#[test]
fn delete_needs_a_stopped_container() -> Result<()> {
    let image = image()?;
    both(|runtime| {
        runtime.must_fail(&["delete", "no-such-container"])?;
        let bundle = Bundle::new(runtime, &image, WAITS)?;
        let id = bundle.started()?;
        bundle.wait_for_text(&id, "up")?;
        let text = runtime.must_fail(&["delete", &id])?;
        ensure!(text.contains("that is not stopped"), "{text}");
        ensure!(runtime.status(&id)? == "running");
        Ok(bundle.text(&id))
    })?;
    Ok(())
}

#[test]
fn delete_removes_what_create_made() -> Result<()> {
    let image = image()?;
    both(|runtime| {
        let bundle = Bundle::new(runtime, &image, "echo kept > /tmp/file")?;
        let id = bundle.started()?;
        runtime.wait_for(&id, "stopped")?;
        runtime.must(&["delete", &id])?;
        runtime.must_fail(&["state", &id])?;
        ensure!(runtime.must(&["list", "-q"])?.is_empty());
        ensure!(
            cgroups(&id)?.is_empty(),
            "cgroups stay: {:?}",
            cgroups(&id)?
        );
        // What it did not make stays.
        ensure!(
            bundle.path().join("config.json").exists() && bundle.path().join("rootfs/bin").exists()
        );
        Ok(String::new())
    })?;
    Ok(())
}

#[test]
fn an_id_can_be_used_again() -> Result<()> {
    let image = image()?;
    both(|runtime| {
        let bundle = Bundle::new(runtime, &image, "echo again")?;
        let id = bundle.id();
        for _ in 0..3 {
            bundle.try_create(&id, &[])?;
            runtime.must(&["start", &id])?;
            runtime.wait_for(&id, "stopped")?;
            runtime.must(&["delete", &id])?;
        }
        Ok(bundle.text(&id))
    })?;
    Ok(())
}

#[test]
fn delete_by_force_takes_everything_and_nothing() -> Result<()> {
    let image = image()?;
    both(|runtime| {
        runtime.must(&["delete", "--force", "no-such-container"])?;
        let bundle = Bundle::new(runtime, &image, WAITS)?;
        for id in [bundle.create()?, bundle.started()?] {
            runtime.must(&["delete", "--force", &id])?;
            runtime.must_fail(&["state", &id])?;
            ensure!(cgroups(&id)?.is_empty());
        }
        Ok(String::new())
    })?;
    Ok(())
}

/// Directories of cgroups with `id` in their name.
fn cgroups(id: &str) -> Result<Vec<String>> {
    let found = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-name"])
        .arg(format!("*{id}*"))
        .output()?;
    Ok(String::from_utf8_lossy(&found.stdout)
        .lines()
        .map(str::to_owned)
        .collect())
}

#[test]
fn the_pid_file_names_the_process() -> Result<()> {
    let image = image()?;
    both(|runtime| {
        let bundle = Bundle::new(runtime, &image, WAITS)?;
        let (id, file) = (bundle.id(), bundle.path().join("pid"));
        let flag = file.display().to_string();
        bundle.try_create(&id, &["--pid-file", &flag])?;
        let pid: i64 = fs::read_to_string(&file)?.trim().parse()?;
        ensure!(json_of(runtime, &id)?["pid"] == json!(pid));
        Ok(String::new())
    })?;
    Ok(())
}

#[test]
fn exit_statuses() -> Result<()> {
    let image = image()?;
    let seen = both(|runtime| {
        let mut seen = String::new();
        for script in [
            "exit 0",
            "exit 7",
            "exit 255",
            "kill -9 $$; exit 3",
            "sh -c 'kill -9 $$'; exit $?",
        ] {
            let done = Bundle::new(runtime, &image, script)?.run()?;
            seen += &format!("{script}: {:?}\n", done.end);
        }
        Ok(seen)
    })?;
    assert!(seen.contains("exit 7: Status(7)"), "{seen}");
    Ok(())
}

#[test]
fn hooks_run_in_their_order_with_the_state() -> Result<()> {
    let image = image()?;
    let seen = both(|runtime| {
        let mut bundle = Bundle::new(runtime, &image, "true")?;
        let log = bundle.path().join("log");
        let bundle_path = fs::canonicalize(bundle.path())?.display().to_string();
        let hook = |name: &str| {
            let script = format!(
                "state=$(cat); echo \"$0 {name} $V \" $(echo \"$state\" | grep -c '\"bundle\": *\"{bundle_path}\"') >> {}",
                log.display()
            );
            json!([{"path": "/bin/sh", "args": ["arg0", "-c", script, name], "env": ["V=value", "PATH=/bin:/usr/bin"]}])
        };
        bundle.edit(|spec| {
            spec["hooks"] = json!({});
            for name in [
                "prestart",
                "createRuntime",
                "createContainer",
                "poststart",
                "poststop",
            ] {
                spec["hooks"][name] = hook(name);
            }
        })?;
        let id = bundle.create()?;
        let after = |log: &Path| {
            fs::read_to_string(log)
                .unwrap_or_default()
                .replace('\n', ";")
        };
        let created = after(&log);
        runtime.must(&["start", &id])?;
        runtime.wait_for(&id, "stopped")?;
        let started = after(&log);
        runtime.must(&["delete", &id])?;
        // runc 1.1 runs poststart in create already; the specification has it after start.
        ensure!(
            runtime.name == "runc" || !created.contains("poststart"),
            "{created}"
        );
        let before_start = created
            .split("poststart poststart")
            .next()
            .unwrap_or_default()
            .to_owned();
        Ok(format!("{before_start}\n{started}\n{}", after(&log)))
    })?;
    assert!(seen.contains("createContainer value  1"), "{seen}");
    Ok(())
}

#[test]
fn start_container_hooks_run_before_the_program_in_its_root() -> Result<()> {
    let image = image()?;
    let seen = both(|runtime| {
        let mut bundle = Bundle::new(runtime, &image, "cat /log; echo program")?;
        let bundle_path = fs::canonicalize(bundle.path())?.display().to_string();
        let script = format!(
            "state=$(cat); for word in '\"status\": *\"created\"' '\"bundle\": *\"{bundle_path}\"'; do \
             echo \"$0 $V $(echo \"$state\" | grep -c \"$word\") $(hostname)\" >> /log; done"
        );
        bundle.edit(|spec| {
            spec["root"]["readonly"] = json!(false);
            spec["hooks"] = json!({"startContainer": [
                {"path": "/bin/sh", "args": ["sh", "-c", script, "hook"], "env": ["V=value", "PATH=/bin"]}
            ]});
        })?;
        let id = bundle.create()?;
        ensure!(
            !bundle.path().join("rootfs/log").exists(),
            "it ran in create"
        );
        runtime.must(&["start", &id])?;
        runtime.wait_for(&id, "stopped")?;
        Ok(bundle.text(&id))
    })?;
    assert_eq!(seen.lines().count(), 3, "{seen}");
    assert!(seen.starts_with("hook value 1 "), "{seen}");
    Ok(())
}

#[test]
fn a_failing_hook_fails_its_verb() -> Result<()> {
    let image = image()?;
    both(|runtime| {
        let mut seen = String::new();
        for kind in ["prestart", "createRuntime", "createContainer", "poststop"] {
            let mut bundle = Bundle::new(runtime, &image, "true")?;
            bundle.edit(|spec| {
                spec["hooks"] =
                    json!({kind: [{"path": "/bin/sh", "args": ["sh", "-c", "exit 1"]}]});
            })?;
            let id = bundle.id();
            let created = bundle.try_create(&id, &[])?;
            let started = runtime.verb(&["start", &id])?.end;
            let deleted = runtime.verb(&["delete", "--force", &id])?.end;
            seen += &format!("{kind} {created:?} {started:?} {deleted:?}\n");
        }
        // runc 1.1 runs poststart in create already, so there it is create that fails.
        if runtime.name != "runc" {
            let mut bundle = Bundle::new(runtime, &image, "true")?;
            bundle.edit(|spec| {
                spec["hooks"] =
                    json!({"poststart": [{"path": "/bin/sh", "args": ["sh", "-c", "exit 1"]}]});
            })?;
            let id = bundle.id();
            let created = bundle.try_create(&id, &[])?;
            let started = runtime.verb(&["start", &id])?.end;
            runtime.verb(&["delete", "--force", &id])?;
            ensure!(
                format!("{created:?} {started:?}") == "Status(0) Status(1)",
                "{created:?} {started:?}"
            );
        }
        Ok(seen)
    })?;
    Ok(())
}

/// Labels are refused where the host has no module for them, by `create` and by `exec`.
#[test]
fn labels_without_their_modules() -> Result<()> {
    let has_module = |path: &str| Path::new(path).exists();
    if has_module("/sys/module/apparmor") || has_module("/sys/fs/selinux/enforce") {
        return Ok(());
    }
    let image = image()?;
    let seen = both(|runtime| {
        let mut seen = String::new();
        for (part, field) in [
            ("process", "apparmorProfile"),
            ("process", "selinuxLabel"),
            ("linux", "mountLabel"),
        ] {
            let mut bundle = Bundle::new(runtime, &image, "true")?;
            bundle.edit(|v| v[part][field] = json!("a-label"))?;
            let (id, path) = (bundle.id(), bundle.path().display().to_string());
            let text = runtime.must_fail(&["create", "--bundle", &path, &id])?;
            ensure!(
                runtime.name == "runc" || text.contains(&format!("{part}.{field}")),
                "{text}"
            );
            runtime.must_fail(&["state", &id])?;
        }
        let bundle = Bundle::new(runtime, &image, WAITS)?;
        let id = bundle.started()?;
        for flag in ["--apparmor", "--process-label"] {
            for label in ["a-label", ""] {
                let done = runtime.verb(&["exec", flag, label, &id, "true"])?;
                seen += &format!("{flag} {label:?} {:?}\n", done.end);
            }
        }
        Ok(seen)
    })?;
    ensure!(seen.contains("\"a-label\" Status(255)"), "{seen}");
    Ok(())
}

#[test]
fn unknown_properties_are_ignored() -> Result<()> {
    let image = image()?;
    both(|runtime| {
        let mut bundle = Bundle::new(runtime, &image, "echo fine")?;
        bundle.edit(|spec| {
            spec["noSuchProperty"] = json!({"a": [1]});
            spec["process"]["noSuchProperty"] = json!(1);
            spec["linux"]["noSuchProperty"] = json!("x");
        })?;
        Ok(bundle.run()?.stdout_text())
    })?;
    Ok(())
}

#[test]
fn invalid_values_are_errors() -> Result<()> {
    let image = image()?;
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 12] = [
        ("ociVersion", |v| v["ociVersion"] = json!("9.0.0")),
        ("process.args", |v| v["process"]["args"] = json!([])),
        ("process.cwd", |v| v["process"]["cwd"] = json!("relative")),
        ("process.user.uid", |v| {
            v["process"]["user"]["uid"] = json!("root")
        }),
        ("process.rlimits[0].type", |v| {
            v["process"]["rlimits"][0]["type"] = json!("RLIMIT_NOPE")
        }),
        ("root.path", |v| {
            v["root"]["path"] = json!("no-such-directory")
        }),
        ("mounts[", |v| {
            let bind = json!({"destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["bind"]});
            v["mounts"]
                .as_array_mut()
                .into_iter()
                .for_each(|mounts| mounts.push(bind.clone()));
        }),
        ("linux.namespaces[0].type", |v| {
            v["linux"]["namespaces"][0]["type"] = json!("nope")
        }),
        ("linux.namespaces", |v| {
            let doubled = v["linux"]["namespaces"][0].clone();
            v["linux"]["namespaces"]
                .as_array_mut()
                .into_iter()
                .for_each(|list| list.push(doubled.clone()));
        }),
        ("linux.seccomp", |v| {
            v["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_NOPE"})
        }),
        ("linux.sysctl", |v| {
            v["linux"]["sysctl"] = json!({"kernel.panic": "1"})
        }),
        ("hostname", |v| {
            v["linux"]["namespaces"]
                .as_array_mut()
                .into_iter()
                .for_each(|list| list.retain(|ns| ns["type"] != "uts"));
        }),
    ];
    for runtime in [Runtime::runc()?, Runtime::husk()?] {
        for (field, change) in &changes {
            // runc 1.1 takes any version.
            if runtime.name == "runc" && *field == "ociVersion" {
                continue;
            }
            let mut bundle = Bundle::new(&runtime, &image, "true")?;
            bundle.edit(change)?;
            let id = bundle.id();
            let path = bundle.path().display().to_string();
            let text = runtime.must_fail(&["create", "--bundle", &path, &id])?;
            if runtime.name == "husk" {
                ensure!(text.contains(field), "{field}: {text}");
            }
            ensure!(
                runtime.must(&["list", "-q"])?.is_empty(),
                "{field}: half-made"
            );
            ensure!(cgroups(&id)?.is_empty(), "{field}: a cgroup stays");
        }
    }
    Ok(())
}

/// Hooks that set networks up find the loopback as they leave it.
#[test]
fn the_loopback_is_up_before_hooks_run() -> Result<()> {
    let image = image()?;
    for hook in ["prestart", "createRuntime", "createContainer"] {
        let seen = both(|runtime| {
            let mut bundle = Bundle::new(runtime, &image, "true")?;
            let out = bundle.path().join("seen");
            let text = format!(
                "exec >{}; pid=$(sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p'); grep -c 127.0.0.1 /proc/${{pid:-self}}/net/fib_trie",
                out.display()
            );
            bundle.edit(|spec| {
                spec["hooks"] = json!({hook: [{"path": "/bin/sh", "args": ["sh", "-c", text]}]});
            })?;
            bundle.run()?;
            Ok(fs::read_to_string(out)?)
        })?;
        assert_ne!(seen, "0\n", "{hook}");
    }
    Ok(())
}

/// What is changed before the start holds from the start on.
#[test]
fn limits_change_before_the_start() -> Result<()> {
    const SCRIPT: &str =
        "i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); done; echo all started";
    let image = image()?;
    let seen = both(|runtime| {
        let mut bundle = Bundle::new(runtime, &image, SCRIPT)?;
        bundle.edit(|spec| spec["linux"]["resources"] = json!({"pids": {"limit": 100}}))?;
        let id = bundle.create()?;
        runtime.must(&["update", "--pids-limit", "20", "--memory", "100000000", &id])?;
        runtime.must(&["start", &id])?;
        runtime.wait_for(&id, "stopped")?;
        Ok(format!("{}", bundle.text(&id).contains("all started")))
    })?;
    assert_eq!(seen, "false");
    Ok(())
}
