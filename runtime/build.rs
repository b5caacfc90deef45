//! Builds the libOS image and embeds it.
//!
//! The nested cargo has its own target directory, or it would wait for the outer one's lock for ever.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
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
