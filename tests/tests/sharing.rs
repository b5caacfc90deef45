//! What containers of one image have in common on the host: one copy of the image's files.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use husk_tests::{Husk, Job, programs};

const CONTAINERS: u64 = 20;

/// A container that holds all files of a directory of its image mapped until it is dropped.
struct Holder {
    husk: Child,
    bytes: u64,
}

impl Holder {
    fn start(directory: &str) -> Self {
        let husk = Husk::find().unwrap();
        let job = Job::new(programs::image(), ["/t/hold", directory]);
        let mut command = husk
            .options(["--memory", "256m", "--timeout", "200"])
            .command_for(&job);
        let mut husk = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = husk.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let bytes = line
            .strip_prefix("held ")
            .and_then(|rest| rest.split(' ').next());
        let bytes = bytes.unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
        Self { husk, bytes }
    }

    /// A number of `/proc/PID/smaps_rollup` in bytes.
    fn memory(&self, name: &str) -> u64 {
        let own = Path::new("/proc").join(self.husk.id().to_string());
        let text = fs::read_to_string(own.join("smaps_rollup")).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib << 10
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.husk.kill();
        let _ = self.husk.wait();
    }
}

/// Twenty containers that have all of the image's programs mapped: the host's page cache holds them once, and no guest
/// has a copy of its own.
#[test]
fn twenty_containers_have_one_copy_of_their_image() {
    let alone = Holder::start("/t");
    let of_one = alone.memory("Pss_File:");
    assert!(
        of_one > alone.bytes,
        "the window shows what is mapped: {of_one} of {}",
        alone.bytes
    );
    let others: Vec<Holder> = (1..CONTAINERS).map(|_| Holder::start("/t")).collect();
    let all = || others.iter().chain([&alone]);
    let of_all: u64 = all().map(|holder| holder.memory("Pss_File:")).sum();
    assert!(
        of_all * 10 < of_one * 13,
        "{CONTAINERS} containers: {of_all} bytes of files, one: {of_one}"
    );
    let idle = Holder::start("/home").memory("Pss_Anon:");
    for holder in all() {
        let own = holder.memory("Pss_Anon:");
        assert!(
            own < idle + holder.bytes / 10,
            "{own} bytes of memory of its own; one that holds nothing has {idle}"
        );
    }
}
