//! husk on hardware KVM: QEMU's emulation of AMD's virtualisation gives Debian's kernel a real kvm-amd.
//!
//! The machine boots from an initramfs with busybox, husk, one image and a list of cases. It runs each case and prints
//! what came of it on its second serial line, as base64 between markers. What must come of it was taken from runc on
//! the host.

mod cases;
mod gdb;
mod initramfs;
mod kernel;
mod machine;

use std::fs;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use husk_tests::cache::Scratch;
use husk_tests::differential::difference;
use husk_tests::{Husk, Runc, Runner};

use self::cases::Case;
use self::initramfs::Initramfs;

/// Runs the smoke suite.
pub fn smoke() -> Result<()> {
    println!("\n==> smoke suite on hardware KVM in QEMU");
    let husk = Husk::find()?;
    let (image, cases) = cases::all()?;
    let mut contents = Initramfs::new()?;
    contents.program("bin/husk", husk.binary())?;
    contents.file("image.tar", 0o644, &fs::read(image.docker_archive())?);
    for case in &cases {
        contents.file(&format!("cases/{}.in", case.id), 0o644, &case.job.stdin);
    }
    let commands: Vec<String> = cases.iter().map(Case::command).collect();
    contents.file("cases/all", 0o755, commands.join("").as_bytes());

    let scratch = Scratch::new("qemu")?;
    let start = Instant::now();
    let gdb = gdb::Gdb::start(&husk, &scratch)?;
    let results = machine::boot(&contents, &scratch)?;
    let debugged = gdb.finish(&scratch);
    let mut failed = 0;
    println!(
        "test qemu::gdb session ... {}",
        if debugged.is_ok() { "ok" } else { "FAILED" }
    );
    if let Err(error) = &debugged {
        failed += 1;
        println!("{error:#}");
    }
    for case in &cases {
        let expected = Runc.run(&case.job)?;
        let report = match results.cases.get(&case.id) {
            Some(actual) => difference(("runc", &expected), ("husk", actual)),
            None => Some("  did not run\n".to_owned()),
        };
        let verdict = if report.is_some() { "FAILED" } else { "ok" };
        println!("test qemu::{} ... {verdict}", case.name);
        if let Some(report) = report {
            failed += 1;
            println!("{report}");
        }
    }
    let passed = (cases.len() + 1).saturating_sub(failed);
    println!(
        "\ntest result: {}. {passed} passed; {failed} failed; 0 ignored; finished in {:.0} s ({})",
        if failed == 0 && results.finished {
            "ok"
        } else {
            "FAILED"
        },
        start.elapsed().as_secs_f64(),
        results.kvm,
    );
    if failed > 0 || !results.finished {
        println!("---- the machine's console\n{}", results.console);
        bail!("{failed} cases differ on hardware KVM");
    }
    Ok(())
}

/// Boots the machine with no case and looks at its KVM.
pub fn kvm_only() -> Result<()> {
    let mut contents = Initramfs::new()?;
    contents.file("cases/all", 0o755, b"");
    let scratch = Scratch::new("qemu")?;
    let start = Instant::now();
    let results = machine::boot(&contents, &scratch)?;
    println!(
        "{} after {:.1} s, boot and power-off included",
        results.kvm,
        start.elapsed().as_secs_f64()
    );
    ensure!(
        results.finished && results.kvm.contains("vm created"),
        "{}",
        results.console
    );
    Ok(())
}
