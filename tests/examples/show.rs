//! Shows what scripts print: `cargo run -p husk-tests --example show -- runc|husk PART-OF-A-NAME`, Debian's ones too.

use std::time::Instant;

use husk_tests::scripts::{FIRST_LIGHT, TOPICS};
use husk_tests::{Husk, Image, Job, Runc, Runner, debian};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let runner: Box<dyn Runner> = match arguments.next().as_deref() {
        Some("husk") => Box::new(Husk::find()?),
        _ => Box::new(Runc),
    };
    let wanted = arguments.next().unwrap_or_default();
    let image = Image::busybox()?;
    let busybox = std::iter::once(&FIRST_LIGHT)
        .chain(TOPICS.iter().flat_map(|(_, scripts)| *scripts))
        .map(|script| (script.name.to_owned(), script.job(&image)));
    let mut jobs: Vec<(String, Job)> = busybox.collect();
    for script in debian::scripts()? {
        if script.name.contains(&wanted) {
            jobs.push((script.name.clone(), script.job()?));
        }
    }
    for (name, job) in jobs.iter().filter(|(name, _)| name.contains(&wanted)) {
        let start = Instant::now();
        let run = runner.run(job)?;
        let shown =
            |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
        println!(
            "=== {} ({:?}, {} ms)",
            name,
            run.end,
            start.elapsed().as_millis()
        );
        println!("{}--- stderr\n{}", shown(&run.stdout), shown(&run.stderr));
    }
    Ok(())
}
