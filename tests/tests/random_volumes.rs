//! Random operations on a volume that three containers and the host change at the same time.
//!
//! The host runs the same programs, natively: what they print depends on their seeds alone, so every container must print
//! what its seed gives on the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use husk_tests::cache::{Scratch, workspace};
use husk_tests::capture::capture;
use husk_tests::{End, Husk, Job, Runner, programs};

const LIMIT: Duration = Duration::from_secs(240);
const CONTAINERS: u32 = 3;

/// The compiled program `name`, to be run on the host.
fn native(name: &str) -> PathBuf {
    let programs = programs::compile(&workspace().join("tests/programs")).unwrap();
    let found = programs.into_iter().find(|(known, _)| known == name);
    found.expect("it is compiled").1
}

/// Runs a program on the host; gives what it prints.
fn on_host(program: &Path, arguments: &[&str]) -> String {
    let done = capture(Command::new(program).args(arguments), b"", LIMIT).unwrap();
    assert_eq!(done.end, End::Status(0), "{}", done.stderr_text());
    done.stdout_text()
}

/// Runs a program of the image in a container with `volume` as `/v`; gives what it prints.
fn in_container(volume: &Path, argv: &[&str]) -> String {
    let shown = format!("{}:/v", volume.display());
    let husk = Husk::find().unwrap().options(["--volume", &shown]);
    let job = Job::new(programs::image(), argv.iter().copied()).limit(LIMIT);
    let done = husk.run(&job).unwrap();
    assert_eq!(done.end, End::Status(0), "{argv:?}: {}", done.stderr_text());
    done.stdout_text()
}

/// Runs `program NAME SEED COUNT` in three containers and, over and over, on the host, each with a name of its own in
/// one directory.
fn side_by_side(program: &str, count: &str) {
    let native = native(program);
    let scratch = Scratch::new("random-volume").unwrap();
    let (shared, apart) = (scratch.path().join("v"), scratch.path().join("apart"));
    fs::create_dir(&shared).unwrap();
    fs::create_dir(&apart).unwrap();
    let expected = |seed: &str| {
        let name = apart.join(format!("n{seed}"));
        on_host(&native, &[name.to_str().unwrap(), seed, count])
    };
    std::thread::scope(|scope| {
        let containers: Vec<_> = (1..=CONTAINERS)
            .map(|seed| {
                let shared = &shared;
                scope.spawn(move || {
                    let (name, seed) = (format!("/v/n{seed}"), seed.to_string());
                    let argv = [&format!("/t/{program}"), &name, &seed, count];
                    in_container(shared, &argv)
                })
            })
            .collect();
        let mut seed = 100;
        while !containers
            .iter()
            .all(std::thread::ScopedJoinHandle::is_finished)
        {
            let name = shared.join(format!("host{seed}"));
            on_host(&native, &[name.to_str().unwrap(), &seed.to_string(), count]);
            seed += 1;
        }
        for (seed, container) in (1..=CONTAINERS).zip(containers) {
            assert_eq!(
                container.join().unwrap(),
                expected(&seed.to_string()),
                "seed {seed}"
            );
        }
    });
    assert_eq!(
        fs::read_dir(&shared).unwrap().count(),
        0,
        "something is left behind"
    );
}

#[test]
fn files_beside_those_of_others() {
    side_by_side("fsx", "600");
}

#[test]
fn names_beside_those_of_others() {
    side_by_side("names", "1500");
}

#[test]
fn one_file_of_three_containers_and_the_host() {
    const BYTES: usize = 600_000;
    let native = native("stripes");
    let scratch = Scratch::new("random-volume").unwrap();
    let file = scratch.path().join("f");
    for seed in ["1", "2"] {
        fs::write(&file, vec![0; BYTES]).unwrap();
        let of = (CONTAINERS + 1).to_string();
        let printed: Vec<String> = std::thread::scope(|scope| {
            let containers: Vec<_> = (1..=CONTAINERS)
                .map(|me| {
                    let (volume, me, of) = (scratch.path(), me.to_string(), of.as_str());
                    let argv = [
                        "/t/stripes".to_owned(),
                        "/v/f".into(),
                        me,
                        of.into(),
                        seed.into(),
                        "8000".into(),
                    ];
                    scope.spawn(move || in_container(volume, &argv.each_ref().map(String::as_str)))
                })
                .collect();
            let path = file.to_str().unwrap();
            let mut rounds = 0;
            let mut host = String::new();
            while rounds == 0
                || !containers
                    .iter()
                    .all(std::thread::ScopedJoinHandle::is_finished)
            {
                let seed = format!("{seed}{rounds}");
                host = on_host(&native, &[path, "0", &of, &seed, "8000"]);
                rounds += 1;
            }
            let containers = containers
                .into_iter()
                .map(|container| container.join().unwrap());
            std::iter::once(host).chain(containers).collect()
        });
        for (me, printed) in printed.iter().enumerate() {
            let there = on_host(
                &native,
                &[file.to_str().unwrap(), &me.to_string(), &of, "0", "0"],
            );
            assert_eq!(&there, printed, "seed {seed}");
        }
    }
}
