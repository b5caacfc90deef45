//! What runs on hardware KVM.

use std::time::Duration;

use anyhow::Result;
use husk_tests::cache::workspace;
use husk_tests::{Image, Job, programs, scripts};

/// C programs with arguments that make them light: the machine is emulated.
const PROGRAMS: &[&[&str]] = &[
    &["mem"],
    &["mm_file"],
    &["mm_aslr"],
    // QEMU's emulation kills a plain Linux process with SIGKILL for the first two, and raises #GP where a CPU raises
    // #SS for the third.
    &[
        "privileged",
        "except",
        "iretq_garbage",
        "far_return_garbage",
        "stack_non_canonical",
    ],
    &["signals", "2000"],
    &["one_site", "50"],
    &["forkmix", "10"],
    &["preempt"],
    &["fpu", "30"],
    &["procs"],
];

/// One job on both sides.
pub struct Case {
    /// Its number, as it is called in the machine.
    pub id: String,
    /// Its name in reports.
    pub name: String,
    /// What is run.
    pub job: Job,
    /// Under gdb.
    pub is_debugged: bool,
}

impl Case {
    /// The line of the machine's script that runs it.
    pub fn command(&self) -> String {
        let words: Vec<String> = self.job.argv.iter().map(|word| quoted(word)).collect();
        let how = if self.is_debugged {
            "debugged_case_of"
        } else {
            "case_of"
        };
        format!("{how} {} {}\n", self.id, words.join(" "))
    }
}

/// The image and the cases in it.
pub fn all() -> Result<(Image, Vec<Case>)> {
    let mut compiled = programs::compile(&workspace().join("tests/programs"))?;
    // Only what is needed: the machine has to hash and unpack it, slowly.
    compiled.retain(|(name, _)| PROGRAMS.iter().any(|argv| argv[0] == name));
    let image = Image::with_programs(&compiled)?;
    let scripts = scripts::smoke().map(|script| (script.name.to_owned(), script.job(&image)));
    let programs = PROGRAMS.iter().map(|argv| {
        let words = argv.iter().enumerate().map(|(at, word)| {
            if at == 0 {
                format!("/t/{word}")
            } else {
                (*word).into()
            }
        });
        (argv.join(" "), Job::new(&image, words))
    });
    let debugged = (
        "gdb".to_owned(),
        Job::shell(&image, "/bin/echo found me; exit 3"),
    );
    let cases = scripts
        .chain(programs)
        .map(|(name, job)| (name, job, false))
        .chain([(debugged.0, debugged.1, true)])
        .enumerate()
        .map(|(number, (name, job, is_debugged))| Case {
            is_debugged,
            id: format!("{number:02}"),
            name,
            job: job.limit(Duration::from_secs(60)),
        })
        .collect();
    Ok((image, cases))
}

/// The word in single quotes for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn quotes_survive() {
        assert_eq!(quoted("it's $x"), r"'it'\''s $x'");
    }
}
