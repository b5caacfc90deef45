//! What containers of one image have in common on the host, and what each costs it.

use std::fs;
use std::io::{BufRead, BufReader};
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

    /// A number of `/proc/PID/smaps_rollup` in bytes, of husk and the processes it has started.
    fn memory(&self, name: &str) -> u64 {
        let mut all = vec![self.husk.id()];
        let mut next = 0;
        while let Some(pid) = all.get(next) {
            all.extend(children(*pid));
            next += 1;
        }
        all.iter().map(|pid| memory_of(*pid, name)).sum()
    }
}

/// What a process has of its mappings of less than `below` bytes, each shared page counted in part.
fn small_mappings(pid: u32, below: u64) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let (mut sum, mut is_small) = (0, false);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-') {
            let number = |text| u64::from_str_radix(text, 16).unwrap();
            is_small = number(end) - number(start) < below;
        } else if first == "Pss:" && is_small {
            let kib: u64 = words.next().unwrap().parse().unwrap();
            sum += kib << 10;
        }
    }
    sum
}

fn children(pid: u32) -> Vec<u32> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(
            text.split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
    }
    all
}

fn memory_of(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.map_or(0, |kib| kib.parse::<u64>().unwrap() << 10)
}

impl Drop for Holder {
    fn drop(&mut self) {
        // The end of its input ends the program.
        drop(self.husk.stdin.take());
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

/// What a container costs the host beside its guest's RAM and the files it sees: at most 12 MiB of its VMM.
#[test]
fn a_vmm_is_small() {
    // RAM and window are reserved in one piece each, far larger than anything else.
    const PIECES: u64 = 200 << 20;
    let holder = Holder::start("/home");
    let vmm = children(holder.husk.id());
    assert_eq!(vmm.len(), 1, "{vmm:?}");
    let bytes = small_mappings(vmm[0], PIECES);
    assert!(bytes <= 12 << 20, "{bytes} bytes");
}
