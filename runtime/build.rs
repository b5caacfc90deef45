//! Builds the libOS image and embeds it; links the command statically.
//!
//! The nested cargo has its own target directory, or it would wait for the outer one's lock for ever.
//!
//! husk executes itself inside the container's root, where no loader and no library can be found. Cargo knows
//! `crt-static` for whole targets only, which would move everybody's target directory and does not go with
//! procedural macros; so the linker gets a directory with the static twins of the libraries rustc names.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What rustc links by `-l`, and the static library that answers to it.
const STATIC_TWINS: [(&str, &str); 7] = [
    ("libc.a", "libc.a"),
    ("libm.a", "libm.a"),
    ("libutil.a", "libutil.a"),
    ("librt.a", "librt.a"),
    ("libpthread.a", "libpthread.a"),
    ("libdl.a", "libdl.a"),
    ("libgcc_s.a", "libgcc_eh.a"),
];

fn link_statically(out: &Path) {
    let dir = out.join("static");
    fs::create_dir_all(&dir).expect("make a directory in OUT_DIR");
    for (wanted, twin) in STATIC_TWINS {
        let answer = Command::new("cc")
            .arg(format!("-print-file-name={twin}"))
            .output()
            .expect("cc runs");
        let path = String::from_utf8(answer.stdout).expect("a path");
        let path = Path::new(path.trim());
        assert!(
            path.is_absolute(),
            "{twin} is missing: install libc6-dev and gcc"
        );
        let at = dir.join(wanted);
        let _ = fs::remove_file(&at);
        symlink(path, at).expect("write to OUT_DIR");
    }
    println!("cargo::rustc-link-arg-bins=-static-pie");
    println!("cargo::rustc-link-arg-bins=-L{}", dir.display());
}

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    link_statically(&out);
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = manifest
        .parent()
        .expect("runtime/ lies in the workspace")
        .to_path_buf();
    for dir in ["abi", "libos"] {
        println!("cargo:rerun-if-changed={}", root.join(dir).display());
    }
    println!(
        "cargo:rerun-if-changed={}",
        root.join("Cargo.toml").display()
    );

    println!("cargo:rerun-if-env-changed=CARGO_PROFILE_RELEASE_DEBUG");

    // Next to the outer build's, so that its incremental state is kept: OUT_DIR changes with every feature.
    let target_dir = out
        .ancestors()
        .nth(4)
        .expect("target/<profile>/build/<package>/out")
        .join("libos");
    let cargo = env::var_os("CARGO").expect("cargo sets it");
    let status = Command::new(cargo)
        .current_dir(root.join("libos/image"))
        .args([
            "build",
            "--release",
            "--target",
            "x86_64-unknown-none",
            "--target-dir",
        ])
        .arg(&target_dir)
        // Frame pointers for the panic backtrace; a fixed address, as the linker script says.
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            [
                "-Crelocation-model=static",
                "-Ccode-model=kernel",
                "-Cforce-frame-pointers=yes",
            ]
            .join("\u{1f}"),
        )
        // Functions by name and lines for backtraces and gdb; CARGO_PROFILE_RELEASE_DEBUG=full adds types and
        // variables, at twice the size.
        .env(
            "CARGO_PROFILE_RELEASE_DEBUG",
            env::var_os("CARGO_PROFILE_RELEASE_DEBUG").unwrap_or_else(|| "limited".into()),
        )
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the libOS image does not build");
    let image = target_dir.join("x86_64-unknown-none/release/husk-libos");
    std::fs::copy(&image, out.join("libos.elf")).expect("copy the image");
}
