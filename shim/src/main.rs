//! `containerd-shim-husk-v1`: containerd's shim for husk (`io.containerd.husk.v1`).
//!
//! It drives the husk command as the runc shim drives runc, and stands between containerd and the container's
//! processes: their streams, their ends, their events.
//!
//! | to find | look at |
//! | --- | --- |
//! | what containerd runs: `start`, `delete` | `bootstrap` |
//! | what containerd asks | `service`, a method a call |
//! | one container, and the order of its events | `container`, `process` |
//! | streams and terminals | `stdio`, `console` |
//! | the husk command, and its errors | `husk`, `options`, `error` |
//! | ends of processes | `reaper` |
//! | statistics, lack of memory | `metrics`, `cgroup`, `oom` |
//!
//! Locks: a container's processes before one process's state; the map of containers and the reaper's state are
//! taken alone or last.
#![forbid(unsafe_code)]

mod bootstrap;
mod cgroup;
mod console;
mod container;
mod error;
mod events;
mod husk;
mod info;
mod metrics;
mod oom;
mod options;
mod process;
mod reaper;
mod rootfs;
mod service;
mod stdio;

use std::process::ExitCode;

use bootstrap::HuskShim;
use containerd_shim::{Config, parse, run};

/// The runtime's name in containerd's configuration.
const RUNTIME: &str = "io.containerd.husk.v1";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match parse(&arguments) {
        Ok(flags) if flags.version => info::version(),
        Ok(flags) if flags.info => info::info(),
        // The library says what is wrong.
        _ => {
            let config = Config {
                // Its own reaper takes every child, the commands of this shim too.
                no_reaper: true,
                ..Config::default()
            };
            run::<HuskShim>(RUNTIME, Some(config));
            ExitCode::SUCCESS
        }
    }
}
