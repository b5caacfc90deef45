//! One boot of the emulated machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use husk_tests::cache::Scratch;
use husk_tests::capture::capture;
use husk_tests::{Captured, End};

use super::initramfs::Initramfs;

/// For the whole machine: boot, every case, power-off.
const LIMIT: Duration = Duration::from_secs(600);

/// What the machine reported.
#[derive(Default)]
pub struct Results {
    /// What became of `/dev/kvm`.
    pub kvm: String,
    /// Each case's run, by id.
    pub cases: BTreeMap<String, Captured>,
    /// Whether it came to the end of its list.
    pub finished: bool,
    /// The kernel's and the cases' messages.
    pub console: String,
}

/// Boots it and waits for its end.
pub fn boot(contents: &Initramfs, scratch: &Scratch) -> Result<Results> {
    let initrd = scratch.path().join("initrd");
    let report = report(scratch);
    fs::write(&initrd, contents.bytes())?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-accel",
        "tcg",
        "-cpu",
        "max,+svm,+npt",
        "-m",
        "2G",
        "-nographic",
        "-no-reboot",
        "-nodefaults",
    ])
    .args(["-serial", "stdio", "-serial"])
    .arg(format!("file:{}", report.display()))
    .arg("-serial")
    .arg(format!(
        "unix:{},server=on,wait=off",
        gdb_socket(scratch).display()
    ))
    .arg("-kernel")
    .arg(&contents.kernel.vmlinuz)
    .arg("-initrd")
    .arg(&initrd)
    .args([
        "-append",
        "console=ttyS0 loglevel=5 panic=-1 random.trust_cpu=on",
    ]);
    let run = capture(&qemu, &[], LIMIT).context("no QEMU: run xtask/setup")?;
    let text = fs::read_to_string(&report).unwrap_or_default();
    let mut results =
        parse(&text).with_context(|| format!("the machine's report is garbled:\n{text}"))?;
    results.console = format!("{}{}", run.stdout_text(), run.stderr_text());
    if let End::TimedOut(limit) = run.end {
        results.console += &format!(
            "\nthe machine did not power off within {} s\n",
            limit.as_secs()
        );
        results.finished = false;
    }
    Ok(results)
}

/// Where the second serial line, the report's, comes out.
pub fn report(scratch: &Scratch) -> PathBuf {
    scratch.path().join("report")
}

/// Where the third serial line, a debugger's, comes out.
pub fn gdb_socket(scratch: &Scratch) -> PathBuf {
    scratch.path().join("gdb")
}

fn parse(text: &str) -> Result<Results> {
    let mut results = Results::default();
    let mut case: Option<(String, i32)> = None;
    let mut streams = [String::new(), String::new()];
    let mut stream = 0;
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["@@kvm", words @ ..] => results.kvm = words.join(" "),
            ["@@case", id, status] => {
                case = Some(((*id).to_owned(), status.parse()?));
                streams = Default::default();
            }
            ["@@debugging"] => {}
            ["@@stdout"] => stream = 0,
            ["@@stderr"] => stream = 1,
            ["@@end"] => {
                let (id, status) = case.take().context("an end without a case")?;
                let stdout = STANDARD.decode(&streams[0])?;
                let stderr = STANDARD.decode(&streams[1])?;
                results.cases.insert(
                    id,
                    Captured {
                        stdout,
                        stderr,
                        end: End::Status(status),
                        wall: Duration::ZERO,
                    },
                );
            }
            ["@@finished"] => results.finished = true,
            [data] => streams[stream].push_str(data),
            _ => ensure!(false, "unexpected line {line:?}"),
        }
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_back() {
        let text = "@@kvm api 12\r\n@@case 03 7\n@@stdout\naGkK\n@@stderr\n@@end\n@@finished\n";
        let results = parse(text).unwrap();
        assert_eq!(results.kvm, "api 12");
        assert!(results.finished);
        let run = &results.cases["03"];
        assert_eq!(
            (run.stdout.as_slice(), run.stderr.len(), run.end),
            (&b"hi\n"[..], 0, End::Status(7))
        );
    }

    #[test]
    fn a_cut_report_is_not_finished() {
        let results = parse("@@kvm x\n@@case 01 0\n@@stdout\naG").unwrap();
        assert!(!results.finished && results.cases.is_empty());
    }
}
