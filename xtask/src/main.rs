//! Developer tasks, run as `cargo xtask VERB`.

mod bench;
mod demo;
mod install;
mod qemu;
mod sh;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask VERB
  demo              build husk and run a busybox image in a KVM guest
  test              everything: format, lints, build, unit, end-to-end and hardware-KVM tests
  e2e               the end-to-end tests alone
  qemu-smoke        the smoke suite on hardware KVM, in QEMU
  qemu-kvm          only boot that machine and create a VM in it
  install [--prefix DIR]
                    build husk and its shim and put them, the documentation and snippets for engines into DIR (/usr/local)
  deb [--check]     make a Debian package, or only look into one of the release build that is there
  bench NAME|all    runc and husk side by side; `cargo xtask bench` lists the names";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["demo"] => demo::run(),
        ["test"] => test::all(),
        ["e2e"] => test::end_to_end(),
        ["qemu-smoke"] => qemu::smoke(),
        ["qemu-kvm"] => qemu::kvm_only(),
        ["install", words @ ..] => install::install(words),
        ["deb"] => install::deb(),
        ["deb", "--check"] => install::check_deb(),
        ["bench"] => bench::list(),
        ["bench", names @ ..] => bench::run(names),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
