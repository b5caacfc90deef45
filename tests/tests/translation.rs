//! Of the calls that real work makes from a cold start, how many are translated.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use husk_tests::cache::{once, sha256, workspace};
use husk_tests::{End, Husk, Job, Runner, debian};

/// Copies `tests/translation` and makes its configure script.
fn workload() -> PathBuf {
    let source = workspace().join("tests/translation");
    let recipe = fs::read(source.join("configure.ac")).unwrap();
    let dir = once(&format!("configure-{}", &sha256(&recipe)[..16]), |dir| {
        fs::copy(source.join("configure.ac"), dir.join("configure.ac"))?;
        let made = Command::new("autoconf").current_dir(dir).status()?;
        anyhow::ensure!(made.success(), "autoconf: {made}");
        Ok(())
    })
    .unwrap();
    for entry in ["t", "result.in"] {
        let copied = Command::new("cp")
            .arg("-a")
            .arg(source.join(entry))
            .arg(&dir)
            .status();
        assert!(copied.unwrap().success());
    }
    dir
}

/// The number behind `label` in the statistics.
fn number(stats: &str, label: &str) -> u64 {
    let line = stats
        .lines()
        .find_map(|line| line.trim().strip_prefix(label))
        .unwrap_or_else(|| panic!("no {label:?} in:\n{stats}"));
    line.trim().parse().unwrap()
}

const SCRIPT: &str = "
set -e
dpkg -l | tail -n +6 | wc -l
cp -r /work /tmp/work
cd /tmp/work
test $(wc -l <configure) -gt 2000
./configure >log 2>&1 || { cat log; exit 1; }
cat result
prove t 2>&1 | grep -v ^Files
";

#[test]
fn ninety_nine_of_a_hundred_calls_are_translated() {
    let volume = format!("{}:/work:ro", workload().display());
    let husk = Husk::find()
        .unwrap()
        .options(["--stats", "--volume", &volume]);
    let job = Job::new(debian::image().unwrap(), ["bash", "-c", SCRIPT]);
    let run = husk.run(&job).unwrap();
    let output = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.end, End::Status(0), "{output}");
    assert!(output.ends_with("Result: PASS\n"), "{output}");
    assert!(output.contains("colour blue\n"), "{output}");

    let stats = String::from_utf8_lossy(&run.stderr);
    let calls = number(&stats, "calls");
    let translated = number(&stats, "calls translated");
    assert!(calls > 20_000, "{stats}");
    assert!(
        translated * 100 >= calls * 99,
        "{translated} of {calls} calls are translated:\n{stats}"
    );
}
