//! runc and husk side by side, in one run, in turns.

mod counts;
mod engines;
mod network;
mod recording;
mod report;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use husk_tests::cache::workspace;
use husk_tests::{Captured, End, Husk, Image, Job, Runc, Runner, programs};

use self::report::Measured;

/// Odd, so that the median, which the result file has too, is one of the values.
const ROUNDS: usize = 7;

/// The benchmarks that are no programs: the wall time of `run ... true`, of an image under husk, and of a bundle.
const STARTUP: [&str; 2] = ["startup", "startup_bundle"];

/// Prints the names.
pub fn list() -> Result<()> {
    for name in names()? {
        println!("{name}");
    }
    Ok(())
}

/// Runs the named benchmarks, or all.
pub fn run(wanted: &[&str]) -> Result<()> {
    let known = names()?;
    let chosen: Vec<String> = match wanted {
        ["all"] => known,
        _ => {
            for name in wanted {
                ensure!(
                    known.iter().any(|known| known == name),
                    "no benchmark {name}; there are: {}",
                    known.join(" ")
                );
            }
            wanted.iter().map(|name| (*name).to_owned()).collect()
        }
    };
    let husk = Husk::find()?;
    let image = Image::with_programs(&programs::compile(&workspace().join("benches/programs"))?)?;
    let mut all = Vec::new();
    let mut broken = Vec::new();
    for name in chosen {
        if name == recording::NAME {
            broken.extend(recording::run(&husk, &image)?);
            continue;
        }
        let measured = match (engines::measure(&name)?, network::measure(&name)?) {
            (Some(measured), _) | (None, Some(measured)) => measured,
            (None, None) => measure(&name, &image, &husk)?,
        };
        println!("{}", measured.line());
        measured.store(&husk)?;
        all.push(measured);
    }
    if !all.is_empty() {
        println!("\n{}", report::table(&all));
    }
    broken.extend(all.iter().filter_map(Measured::broken_promise));
    ensure!(broken.is_empty(), "promises broken: {}", broken.join("; "));
    Ok(())
}

fn names() -> Result<Vec<String>> {
    let mut names: Vec<String> = std::fs::read_dir(workspace().join("benches/programs"))?
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_suffix(".c")
                .map(str::to_owned)
        })
        .collect();
    names.sort();
    names.extend(STARTUP.map(str::to_owned));
    names.push(recording::NAME.to_owned());
    names.extend(engines::NAMES.map(str::to_owned));
    names.extend(network::NAMES.map(str::to_owned));
    Ok(names)
}

fn measure(name: &str, image: &Image, husk: &Husk) -> Result<Measured> {
    let job = match name {
        name if STARTUP.contains(&name) => Job::new(&Image::busybox()?, ["true"]),
        program => Job::new(image, [format!("/t/{program}")]),
    }
    .limit(Duration::from_secs(120));
    let is_startup = STARTUP.contains(&name);
    let unit = if is_startup { "ms" } else { "ns" };
    let mut measured = Measured {
        name: name.to_owned(),
        unit,
        counts: Vec::new(),
        runc: Vec::new(),
        husk: Vec::new(),
        previous: report::previous_ratio(name),
    };
    // The first round fills caches and, under husk, unpacks the image; it does not count.
    for round in 0..=ROUNDS {
        let ours = if name == STARTUP[1] {
            value(name, &Bundled(husk.clone()), &job)?
        } else {
            value(name, husk, &job)?
        };
        let values = (value(name, &Runc, &job)?, ours);
        if round > 0 {
            measured.runc.push(values.0);
            measured.husk.push(values.1);
        }
    }
    if !is_startup {
        measured.counts = counts::per_operation(husk, &job)?;
    }
    Ok(measured)
}

fn value(name: &str, runner: &dyn Runner, job: &Job) -> Result<f64> {
    let run = runner.run(job)?;
    if run.end != End::Status(0) {
        bail!(
            "{name} under {}: {:?}\n{}",
            runner.name(),
            run.end,
            run.stderr_text()
        );
    }
    if STARTUP.contains(&name) {
        return Ok(run.wall.as_secs_f64() * 1e3);
    }
    let printed = run.stdout_text();
    printed
        .split_whitespace()
        .next()
        .and_then(|value| value.parse().ok())
        .with_context(|| format!("{name} under {} printed {printed:?}", runner.name()))
}

/// husk with the bundle that runc gets.
struct Bundled(Husk);

impl Runner for Bundled {
    fn name(&self) -> &'static str {
        "husk"
    }

    fn run(&self, job: &Job) -> Result<Captured> {
        Runc.bundle_under(self.0.binary(), job)
    }
}
