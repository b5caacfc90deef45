//! Builds the vDSO: one object file for the bare target, linked into a shared object of one segment.
//!
//! It cannot be a crate of the workspace: cargo links no shared objects for a target without an operating
//! system, and the image must be made whether the outer build is for the host (tests) or for the guest.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files the image is made of, from this directory.
const SOURCES: [&str; 6] = [
    "image/vdso.rs",
    "image/boundary.rs",
    "image/vdso.ld",
    "image/vdso.map",
    "../../abi/src/boundary/clock.rs",
    "../../abi/src/boundary/layout.rs",
];

fn main() {
    for source in SOURCES {
        println!("cargo:rerun-if-changed={source}");
    }
    let var = |name: &str| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let out = PathBuf::from(var("OUT_DIR"));
    let dir = PathBuf::from(var("CARGO_MANIFEST_DIR")).join("image");
    let rustc = PathBuf::from(var("RUSTC"));
    let host = var("HOST");

    let object = out.join("vdso.o");
    let mut compile = Command::new(&rustc);
    compile
        .args([
            "--edition=2024",
            "--crate-type=lib",
            "--crate-name=vdso",
            "--emit=obj",
        ])
        .args([
            "--target=x86_64-unknown-none",
            "-Copt-level=3",
            "-Cpanic=abort",
        ])
        // The target's own code model puts code into the top 2 GiB; this image goes anywhere.
        .args([
            "-Crelocation-model=pic",
            "-Ccode-model=small",
            "-Ccodegen-units=1",
        ])
        // Debuggers and profilers unwind through it.
        .arg("-Cforce-unwind-tables=yes")
        .arg("-o")
        .arg(&object)
        .arg(dir.join("vdso.rs"));
    run(compile);

    let mut link = Command::new(linker(&rustc, &host));
    link.args(["-flavor", "gnu", "-shared", "-soname", "linux-vdso.so.1"])
        .args([
            "--hash-style=both",
            "--build-id=none",
            "--eh-frame-hdr",
            "--strip-all",
        ])
        .args([
            "--no-undefined",
            "-Bsymbolic",
            "-z",
            "max-page-size=4096",
            "-z",
            "norelro",
        ])
        .args(["-z", "nognustack", "-z", "text"])
        .arg("-T")
        .arg(dir.join("vdso.ld"))
        .arg("--version-script")
        .arg(dir.join("vdso.map"))
        .arg("-o")
        .arg(out.join("vdso.so"))
        .arg(&object);
    run(link);
}

/// The linker that comes with the toolchain.
fn linker(rustc: &Path, host: &std::ffi::OsStr) -> PathBuf {
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .expect("rustc runs");
    let sysroot = String::from_utf8(output.stdout).expect("a path in UTF-8");
    Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(host)
        .join("bin/rust-lld")
}

fn run(mut command: Command) {
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
