//! Shows what scripts print: `cargo run -p husk-tests --example show -- runc|husk PART-OF-A-NAME`.

use std::time::Instant;

use husk_tests::scripts::{FIRST_LIGHT, TOPICS};
use husk_tests::{Husk, Image, Runc, Runner};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let runner: Box<dyn Runner> = match arguments.next().as_deref() {
        Some("husk") => Box::new(Husk::find()?),
        _ => Box::new(Runc),
    };
    let wanted = arguments.next().unwrap_or_default();
    let image = Image::busybox()?;
    let all = TOPICS.iter().flat_map(|(_, scripts)| *scripts);
    for script in std::iter::once(&FIRST_LIGHT)
        .chain(all)
        .filter(|script| script.name.contains(&wanted))
    {
        let start = Instant::now();
        let run = runner.run(&script.job(&image))?;
        let shown =
            |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
        println!(
            "=== {} ({:?}, {} ms)",
            script.name,
            run.end,
            start.elapsed().as_millis()
        );
        println!("{}--- stderr\n{}", shown(&run.stdout), shown(&run.stderr));
    }
    Ok(())
}
