//! A libOS that does not come up: one clear line, status 70, nothing hangs.

use std::fs;
use std::process::Command;
use std::time::Duration;

use husk_abi::boundary::version::BOUNDARY_VERSION;
use husk_tests::cache::Scratch;
use husk_tests::capture::capture;
use husk_tests::{Captured, End, Husk, Image, Job};

const LIMIT: Duration = Duration::from_secs(90);

const LINKER_SCRIPT: &str = "
PHDRS { text PT_LOAD FLAGS(5); note PT_NOTE FLAGS(4); }
SECTIONS {
    . = 0xffffffff80200000;
    .text : AT(ADDR(.text) - 0xffffffff80000000) { *(.text) } :text
    .note.husk : AT(ADDR(.note.husk) - 0xffffffff80000000) { *(.note.husk) } :text :note
    /DISCARD/ : { *(*) }
}";

/// Runs husk with a libOS image that is nothing but `instruction` at its entry.
fn boot(instruction: &str, version: u32) -> Captured {
    let scratch = Scratch::new("libos").unwrap();
    let at = |name: &str| scratch.path().join(name);
    let source = format!(
        ".section .note.husk, \"a\", @note\n.balign 4\n.long 5, 24, 0x6b737568\n\
         .byte 104, 117, 115, 107, 0, 0, 0, 0\n.long {version}, 0\n.quad 0, 0\n\
         .text\n.globl _start\n_start: {instruction}\n"
    );
    fs::write(at("image.s"), source).unwrap();
    fs::write(at("image.ld"), LINKER_SCRIPT).unwrap();
    for argv in [
        &["as", "-o", "image.o", "image.s"][..],
        &["ld", "-T", "image.ld", "-o", "image", "image.o"],
    ] {
        let status = Command::new(argv[0])
            .args(&argv[1..])
            .current_dir(scratch.path())
            .status()
            .unwrap();
        assert!(status.success(), "{argv:?}");
    }
    let job = Job::shell(&Image::busybox().unwrap(), "true");
    let image = at("image").display().to_string();
    let husk = Husk::find().unwrap().options(["--libos".to_owned(), image]);
    capture(&husk.command_for(&job), b"", LIMIT).unwrap()
}

fn ends(run: &Captured, status: i32, line: &str) {
    assert_eq!(run.end, End::Status(status), "{run:?}");
    let stderr = run.stderr_text();
    let (first, rest) = stderr.split_once('\n').unwrap();
    assert_eq!(first, line);
    // And where it was, if it ran.
    let ran = rest.starts_with("husk: libOS: vCPU 0: no thread, rip 0x");
    assert_eq!(ran, status == 70, "{stderr}");
}

#[test]
fn one_that_faults_at_once() {
    for instruction in ["ud2", "hlt", "movb $0, 0"] {
        ends(
            &boot(instruction, BOUNDARY_VERSION),
            70,
            "husk: the container's libOS crashed: triple fault; it logged nothing",
        );
    }
}

#[test]
fn one_that_spins() {
    ends(
        &boot("jmp .", BOUNDARY_VERSION),
        70,
        "husk: the container's libOS crashed: it did not start the first process in time; it logged nothing",
    );
}

#[test]
fn one_of_another_version() {
    let other = BOUNDARY_VERSION + 1;
    ends(
        &boot("ud2", other),
        125,
        &format!(
            "husk: the embedded libOS image is not usable: it speaks boundary version {other}, this husk \
             {BOUNDARY_VERSION}; rebuild husk"
        ),
    );
}
