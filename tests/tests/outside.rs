//! Programs in containers and on the host that meet through a volume: sockets, FIFOs, locks. What one half prints must be the
//! same wherever it and the other half run; on the host, with both, Linux says what that is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use husk_tests::cache::{Scratch, workspace};
use husk_tests::capture::capture;
use husk_tests::{End, Husk, Job, Runner, programs};

const LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Host,
    Container,
}

fn native() -> PathBuf {
    let programs = programs::compile(&workspace().join("tests/programs")).unwrap();
    let found = programs.into_iter().find(|(name, _)| name == "outside");
    found.expect("it is compiled").1
}

/// Runs one half; gives what it prints.
fn run(place: Place, directory: &Path, half: &str) -> String {
    let done = match place {
        Place::Host => capture(Command::new(native()).arg(directory).arg(half), b"", LIMIT),
        Place::Container => {
            let shown = format!("{}:/v", directory.display());
            let husk = Husk::find().unwrap().options(["--volume", &shown]);
            husk.run(&Job::new(programs::image(), ["/t/outside", "/v", half]).limit(LIMIT))
        }
    }
    .unwrap();
    assert_eq!(
        done.end,
        End::Status(0),
        "{half}: {}{}",
        done.stdout_text(),
        done.stderr_text()
    );
    done.stdout_text()
}

/// Runs both halves at the same time.
fn meet(one: (Place, &str), other: (Place, &str)) -> (String, String) {
    let scratch = Scratch::new("outside").unwrap();
    let directory = scratch.path();
    std::thread::scope(|scope| {
        let first = scope.spawn(move || run(one.0, directory, one.1));
        let second = run(other.0, directory, other.1);
        (first.join().unwrap(), second)
    })
}

/// Both halves in all the `places` against both on the host.
fn same(one: &str, other: &str, places: &[(Place, Place)]) {
    let expected = meet((Place::Host, one), (Place::Host, other));
    for (first, second) in places {
        let actual = meet((*first, one), (*second, other));
        assert_eq!(actual.0, expected.0, "{one}");
        assert_eq!(actual.1, expected.1, "{other}");
    }
}

#[test]
fn a_server_on_the_host() {
    same("server", "client", &[(Place::Host, Place::Container)]);
}

#[test]
fn both_ends_of_a_fifo() {
    use Place::{Container, Host};
    same(
        "writer",
        "reader",
        &[(Host, Container), (Container, Host), (Container, Container)],
    );
}

#[test]
fn locks_exclude_others() {
    use Place::{Container, Host};
    same(
        "holder",
        "contender",
        &[(Host, Container), (Container, Host), (Container, Container)],
    );
}

#[test]
fn locked_updates_are_not_lost() {
    for kind in ["records", "whole"] {
        let scratch = Scratch::new("outside").unwrap();
        std::thread::scope(|scope| {
            for place in [Place::Container, Place::Container, Place::Host] {
                let directory = scratch.path();
                scope.spawn(move || run(place, directory, kind));
            }
        });
        let number = fs::read_to_string(scratch.path().join("number")).unwrap();
        assert_eq!(number, "3000\n", "{kind}");
    }
}
