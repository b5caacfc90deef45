//! `husk update`.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use super::Error;
use super::args::{Cli, UpdateArgs};
use crate::oci::state::Directory;
use crate::oci::update::{self, BlockIo, Cpu, Memory, Pids, Resources};
use crate::oci::{self, spec};

/// Changes limits of a container.
pub fn run(cli: &Cli, args: &UpdateArgs) -> Result<ExitCode, Error> {
    let all = Directory::new(&cli.state());
    let container = all.open(&args.id).map_err(oci::Error::from)?;
    let new = match &args.resources {
        Some(file) => read(file)?,
        None => typed(args),
    };
    update::update(&container, &all.path(&args.id), &new)?;
    Ok(ExitCode::SUCCESS)
}

/// What the file says; - is standard input.
fn read(file: &Path) -> Result<Resources, Error> {
    let failed = || oci::Error::host(format!("read {}", file.display()));
    let text = if file == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().read_to_end(&mut text).map_err(failed())?;
        text
    } else {
        std::fs::read(file).map_err(failed())?
    };
    let parsed = serde_json::from_slice(&text).map_err(spec::Error::Json);
    Ok(parsed.map_err(oci::Error::from)?)
}

fn typed(args: &UpdateArgs) -> Resources {
    Resources {
        memory: Memory {
            limit: args.memory,
            reservation: args.memory_reservation,
            swap: args.memory_swap,
        },
        cpu: Cpu {
            shares: args.cpu_share,
            quota: args.cpu_quota,
            period: args.cpu_period,
            realtime_runtime: args.cpu_rt_runtime,
            realtime_period: args.cpu_rt_period,
            cpus: args.cpuset_cpus.clone(),
            mems: args.cpuset_mems.clone(),
        },
        block_io: BlockIo {
            weight: args.blkio_weight,
        },
        pids: Pids {
            limit: args.pids_limit,
        },
    }
}
