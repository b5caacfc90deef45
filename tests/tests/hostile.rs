//! Programs that attack the library OS end at most their own container.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use husk_tests::{End, Husk, Image, Job, Runner, programs};

const LIMIT: Duration = Duration::from_secs(120);
/// An attack that takes longer hangs.
const ATTACK_LIMIT: Duration = Duration::from_secs(60);

/// Another container, running before, during and after the attack, that answers line by line.
struct Bystander {
    child: Child,
    stdin: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Bystander {
    fn start(husk: &Husk) -> Self {
        let image = Image::busybox().unwrap();
        let script = "while read -r word; do echo \"$word $(echo $word | md5sum | cut -c1-8)\"; done; exit 9";
        let mut command = husk.command_for(&Job::shell(&image, script));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            stdin,
            answers,
        }
    }

    fn answers(&mut self, word: &str, digest: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{word}").unwrap();
        let answer = self
            .answers
            .recv_timeout(LIMIT)
            .expect("the bystander does not answer");
        assert_eq!(answer, format!("{word} {digest}"));
    }

    fn ends_well(mut self) {
        drop(self.stdin.take());
        assert_eq!(self.child.wait().unwrap().code(), Some(9));
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        // Only in a failed test is it still there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn attack(mode: &str) {
    let husk = Husk::find().unwrap();
    let mut bystander = Bystander::start(&husk);
    bystander.answers("before", "ab8d71b3");

    let limited = husk.clone().options(["--memory", "256M"]);
    let run = limited
        .run(&Job::new(programs::image(), ["/t/hostile", mode]).limit(ATTACK_LIMIT))
        .unwrap();
    let status = match run.end {
        End::Status(status @ 1..=255) => status,
        // A wild jump may leave a library OS that spins, and so may a write into one of its locks; then the host ends it, as
        // any machine.
        End::TimedOut(_) if matches!(mode, "jumps" | "random_writes") => 0,
        _ => panic!("{mode} ends by {:?}: {}", run.end, run.stderr_text()),
    };
    if status == 70 {
        let clear = run
            .stderr_text()
            .lines()
            .filter(|line| line.starts_with("husk: ") && !line.starts_with("husk: libOS: "))
            .count();
        assert_eq!(
            clear,
            1,
            "one clear line about a dead libOS:\n{}",
            run.stderr_text()
        );
    }

    bystander.answers("after", "99fd6b62");
    bystander.ends_well();
    let next = husk
        .run(&Job::shell(&Image::busybox().unwrap(), "echo next; exit 5"))
        .unwrap();
    assert_eq!(
        (next.stdout_text().as_str(), next.end),
        ("next\n", End::Status(5)),
        "{}",
        next.stderr_text()
    );
}

macro_rules! attacks {
    ($($mode:ident),* $(,)?) => {$(
        #[test]
        fn $mode() {
            attack(stringify!($mode));
        }
    )*};
}

attacks!(
    random_writes,
    overwrite,
    read_everything,
    jumps,
    doorbells,
    doorbell_storm,
    doorbells_of_threads,
    fork_bomb,
    eat_memory,
);
