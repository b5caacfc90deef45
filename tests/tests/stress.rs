//! Random work, replayable by its seed: husk and runc must find the same.
//!
//! `HUSK_STRESS_SECONDS` (30) says for how long new seeds are tried, `HUSK_STRESS_SEED` (1) where they begin. A failure
//! names its seed; `stress SEED OPERATIONS WORKERS KIND` runs one kind of operation alone.

use std::time::{Duration, Instant};

use husk_tests::{End, Husk, Job, Runc, differential_to, programs};

const OPERATIONS: &str = "60";

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn processes_memory_signals_and_futexes() {
    let end = Instant::now() + Duration::from_secs(setting("HUSK_STRESS_SECONDS", 30));
    let mut seed = setting("HUSK_STRESS_SEED", 1);
    let husk = Husk::find().unwrap();
    while Instant::now() < end {
        let text = seed.to_string();
        let job = Job::new(programs::image(), ["/t/stress", &text, OPERATIONS])
            .limit(Duration::from_secs(300));
        let report = differential_to(End::Status(0), &Runc, &husk, &job).unwrap();
        assert!(
            report.is_none(),
            "seed {seed}:\n{}",
            report.unwrap_or_default()
        );
        seed += 1;
    }
}
