//! The table of `husk run --stats`.

use std::fmt::Write;
use std::time::Duration;

use husk_abi::boundary::doorbell;

use crate::sandbox::Outcome;

/// Names of the doorbells, from [`doorbell::FIRST`] on.
fn doorbell_name(port: u16) -> &'static str {
    match port {
        doorbell::STDIO_OUT => "output",
        doorbell::STDIO_IN => "input",
        doorbell::IDLE => "idle",
        doorbell::TIMER => "timer",
        doorbell::SHUTDOWN => "shutdown",
        doorbell::PANIC => "panic",
        doorbell::RECORDS => "records",
        doorbell::LOG => "log",
        _ => "unknown",
    }
}

/// Where time went (the image took `image`, everything `total`) and what left the guest.
pub fn table(image: Duration, total: Duration, outcome: &Outcome) -> String {
    let times = &outcome.times;
    let mut text = String::from("\ntime, ms\n");
    let mut row = |name: &str, time: Option<Duration>| {
        let _ = match time {
            Some(time) => writeln!(text, "  {name:<28} {:>10.3}", time.as_secs_f64() * 1e3),
            None => writeln!(text, "  {name:<28} {:>10}", "-"),
        };
    };
    row("image", Some(image));
    row("machine and libOS", Some(times.machine));
    row("boot to first process", times.boot);
    row(
        "processes",
        times.boot.map(|boot| times.run.saturating_sub(boot)),
    );
    row("teardown", Some(times.teardown));
    row("total", Some(total));
    text.push_str("doorbells served by the VMM\n");
    for (port, count) in (doorbell::FIRST..).zip(outcome.doorbells) {
        if count > 0 {
            let _ = writeln!(text, "  {:<28} {count:>10}", doorbell_name(port));
        }
    }
    if let Some(recorded) = &outcome.recorded {
        text.push_str("records\n");
        let _ = writeln!(text, "  {:<28} {:>10}", "written", recorded.written);
        let _ = writeln!(text, "  {:<28} {:>10}", "lost", recorded.lost);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{DOORBELLS, Ended, Times};

    #[test]
    fn rows() {
        let mut doorbells = [0; DOORBELLS];
        doorbells[4] = 1;
        let outcome = Outcome {
            ended: Ended::Init(0),
            times: Times {
                machine: Duration::from_micros(12_345),
                boot: Some(Duration::from_millis(5)),
                run: Duration::from_millis(9),
                teardown: Duration::ZERO,
            },
            doorbells,
            recorded: Some(crate::record::Summary {
                written: 7,
                lost: 1,
                problem: None,
            }),
        };
        let text = table(
            Duration::from_millis(1),
            Duration::from_millis(30),
            &outcome,
        );
        let expected = "
time, ms
  image                             1.000
  machine and libOS                12.345
  boot to first process             5.000
  processes                         4.000
  teardown                          0.000
  total                            30.000
doorbells served by the VMM
  shutdown                              1
records
  written                               7
  lost                                  1
";
        assert_eq!(text, expected);
    }
}
