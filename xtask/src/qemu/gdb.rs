//! gdb outside the machine, debugging a libOS on hardware KVM inside it.

use std::fs;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use husk_tests::Husk;
use husk_tests::cache::Scratch;

use super::machine::{gdb_socket, report};

/// Stops in a system call, looks around, steps, and lets go.
const COMMANDS: &str = "\
set pagination off
set remotetimeout 60
break husk_kernel::process::exec::execveat
continue
backtrace
monitor threads
stepi
stepi
next
delete
continue
";

/// What gdb must print.
const EXPECTED: [&str; 4] = [
    "hit Breakpoint 1, husk_kernel::process::exec::execveat",
    "husk_kernel::syscall::dispatch",
    "in execve(",
    "exited with code 03",
];

/// A gdb that waits for the machine.
pub struct Gdb(Child);

impl Gdb {
    /// Starts it; it connects when the machine comes to the case.
    pub fn start(husk: &Husk, scratch: &Scratch) -> Result<Self> {
        let elf = scratch.path().join("libos.elf");
        let image = husk.command().args(["debug", "elf"]).output()?;
        fs::write(&elf, image.stdout)?;
        let socket = gdb_socket(scratch);
        let script = scratch.path().join("gdb-commands");
        let connect = format!("target remote {}\n", socket.display());
        fs::write(
            &script,
            COMMANDS.replacen("break", &format!("{connect}break"), 1),
        )?;
        // Not before the guest waits for it: what gdb says earlier is lost.
        let wait = format!(
            "until grep -qsE '@@(debugging|finished)' {}; do sleep 1; done; exec gdb -nx -batch -x {} {}",
            report(scratch).display(),
            script.display(),
            elf.display()
        );
        Command::new("sh")
            .args(["-c", &wait])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map(Self)
            .context("cannot start gdb")
    }

    /// Waits for its end, now that the machine is over, and looks at what it printed.
    pub fn finish(self, scratch: &Scratch) -> Result<()> {
        // Should the machine never have come to the case.
        fs::write(report(scratch), "@@finished")?;
        let output = self.0.wait_with_output()?;
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        for part in EXPECTED {
            ensure!(text.contains(part), "gdb did not print {part:?}:\n{text}");
        }
        Ok(())
    }
}
