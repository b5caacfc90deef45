//! What engines and their users wait for: `exec` in a container that runs, and `docker run`.

use anyhow::{Result, ensure};
use husk_tests::engines::Docker;
use husk_tests::oci::{Bundle, Runtime};
use husk_tests::{Captured, End, Image};

use super::ROUNDS;
use super::report::{self, Measured};

/// `RUNTIME exec ID true`.
const EXEC: &str = "exec";
/// `docker run --rm IMAGE true`.
const DOCKER_RUN: &str = "docker_run";
/// The benchmarks of this module.
pub const NAMES: [&str; 2] = [EXEC, DOCKER_RUN];

fn milliseconds(run: &Captured) -> Result<f64> {
    ensure!(
        run.end == End::Status(0),
        "{:?}: {}",
        run.end,
        run.stderr_text()
    );
    Ok(run.wall.as_secs_f64() * 1e3)
}

/// Measures one of them; `None` if `name` is none.
pub fn measure(name: &str) -> Result<Option<Measured>> {
    let mut measured = Measured {
        name: name.to_owned(),
        unit: "ms",
        counts: Vec::new(),
        runc: Vec::new(),
        husk: Vec::new(),
        previous: report::previous_ratio(name),
    };
    match name {
        EXEC => exec(&mut measured)?,
        DOCKER_RUN => docker_run(&mut measured)?,
        _ => return Ok(None),
    }
    // The first round fills caches.
    for values in [&mut measured.runc, &mut measured.husk] {
        values.remove(0);
    }
    Ok(Some(measured))
}

fn exec(measured: &mut Measured) -> Result<()> {
    let image = Image::busybox()?;
    let runtimes = [Runtime::runc()?, Runtime::husk()?];
    let bundle = |runtime| Bundle::new(runtime, &image, "while :; do sleep 1000; done");
    let bundles = [bundle(&runtimes[0])?, bundle(&runtimes[1])?];
    let ids = [bundles[0].started()?, bundles[1].started()?];
    let time =
        |which: usize| milliseconds(&runtimes[which].verb(&["exec", &ids[which], "true"])?);
    for _ in 0..=ROUNDS {
        measured.runc.push(time(0)?);
        measured.husk.push(time(1)?);
    }
    Ok(())
}

fn docker_run(measured: &mut Measured) -> Result<()> {
    let docker = Docker::start()?;
    let time = |runtime: &str| {
        let run = ["run", "--rm", "--network", "none", "--runtime", runtime];
        milliseconds(&docker.docker(&[&run[..], &["husk-test", "true"]].concat())?)
    };
    for _ in 0..=ROUNDS {
        measured.runc.push(time("runc")?);
        measured.husk.push(time("husk")?);
    }
    Ok(())
}
