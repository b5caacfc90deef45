//! The table of `husk run --stats`.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use husk_abi::boundary::doorbell;
use husk_abi::boundary::stats::{MemoryEvent, SiteReport, TranslationReport, TrapReason};
use husk_abi::linux::syscalls::lookup;

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
        doorbell::DEBUG => "debugger",
        doorbell::FUSE => "files",
        doorbell::STARTED => "started",
        doorbell::MEMORY => "memory",
        doorbell::SETTLED => "settled",
        _ => "unknown",
    }
}

/// Time that went outside the machine.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// For getting the image ready.
    pub image: Duration,
    /// For the VMM's process, its namespaces and cgroup, if it has them.
    pub container: Option<Duration>,
    /// For everything.
    pub total: Duration,
}

/// Where time went and what left the guest.
pub fn table(spent: &Spent, outcome: &Outcome) -> String {
    let times = &outcome.times;
    let mut text = String::from("\ntime, ms\n");
    let mut row = |name: &str, time: Option<Duration>| {
        let _ = match time {
            Some(time) => writeln!(text, "  {name:<28} {:>10.3}", time.as_secs_f64() * 1e3),
            None => writeln!(text, "  {name:<28} {:>10}", "-"),
        };
    };
    row("image", Some(spent.image));
    row("namespaces and cgroup", spent.container);
    row("machine and libOS", Some(times.machine));
    row("boot to first process", times.boot);
    row(
        "processes",
        times.boot.map(|boot| times.run.saturating_sub(boot)),
    );
    row("teardown", Some(times.teardown));
    row("total", Some(spent.total));
    text.push_str("doorbells served by the VMM\n");
    for (port, count) in (doorbell::FIRST..).zip(outcome.doorbells) {
        if count > 0 {
            let _ = writeln!(text, "  {:<28} {count:>10}", doorbell_name(port));
        }
    }
    if !outcome.requests.is_empty() {
        text.push_str("requests served by the VMM\n");
    }
    for (service, operation, count) in &outcome.requests {
        let name = format!("{service}.{operation}");
        let _ = writeln!(text, "  {name:<28} {count:>10}");
    }
    if let Some(recorded) = &outcome.recorded {
        text.push_str("records\n");
        let _ = writeln!(text, "  {:<28} {:>10}", "written", recorded.written);
        let _ = writeln!(text, "  {:<28} {:>10}", "lost", recorded.lost);
    }
    if let Some(guest) = &outcome.guest {
        translation(&mut text, &guest.translation);
        missing(&mut text, &guest.missing);
        memory(&mut text, &guest.memory);
    }
    text
}

/// What came by trap instead of by a translated call.
fn translation(text: &mut String, report: &TranslationReport) {
    text.push_str("syscall translation\n");
    let mut row = |name: &str, value: u64| {
        let _ = writeln!(text, "  {name:<28} {value:>10}");
    };
    row("calls", report.calls);
    row(
        "calls translated",
        report.calls.saturating_sub(report.calls_trapped),
    );
    row("sites translated", report.sites_translated);
    for (reason, count) in &report.traps {
        row(&format!("traps: {}", reason.name()), *count);
    }
    if report.traps_unlisted > 0 {
        row("traps at sites not listed", report.traps_unlisted);
    }
    if report.calls > 0 {
        let share = 100.0 - 100.0 * report.calls_trapped as f64 / report.calls as f64;
        let _ = writeln!(text, "  {:<28} {share:>9.3}%", "share translated");
    }
    let untranslated = |site: &&SiteReport| site.reason != TrapReason::FirstUse;
    if !report.sites.iter().any(|site| untranslated(&site)) {
        return;
    }
    text.push_str(
        "sites that trap: traps, call, reason, file, offset, function, bytes before | from\n",
    );
    for site in report.sites.iter().filter(untranslated) {
        let hex =
            |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        let symbol = match &site.symbol {
            Some((name, at)) => format!("{}+{at:#x}", printable(name)),
            None => "-".to_owned(),
        };
        let _ = writeln!(
            text,
            "  {:>10} {} ({}) {} {:#x} {symbol} {} | {}",
            site.traps,
            call_name(site.nr),
            site.reason.name(),
            printable(&site.path),
            site.offset,
            hex(&site.before),
            hex(&site.after),
        );
    }
}

/// Names from the guest, without what a terminal would take for commands.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}

fn call_name(nr: u64) -> Cow<'static, str> {
    lookup(nr).map_or_else(
        || Cow::Owned(format!("call {nr}")),
        |row| Cow::Borrowed(row.name),
    )
}

/// Calls the libOS does not have.
fn missing(text: &mut String, missing: &[(u32, u32)]) {
    if missing.is_empty() {
        return;
    }
    text.push_str("system calls the libOS does not have\n");
    for (nr, count) in missing {
        let _ = writeln!(text, "  {:<28} {count:>10}", call_name(u64::from(*nr)));
    }
}

/// What the guest's memory cost in switches.
fn memory(text: &mut String, events: &[(MemoryEvent, u64)]) {
    if events.is_empty() {
        return;
    }
    text.push_str("memory\n");
    for (event, count) in events {
        let _ = writeln!(text, "  {:<28} {count:>10}", event.name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{DOORBELLS, Ended, Times};
    use husk_abi::boundary::report::GuestReport;

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
            requests: vec![("network", "send", 3)],
            recorded: Some(crate::record::Summary {
                written: 7,
                lost: 1,
                problem: None,
            }),
            oom_kills: 0,
            guest: Some(GuestReport {
                translation: TranslationReport {
                    calls: 1000,
                    calls_trapped: 5,
                    sites_translated: 3,
                    traps: vec![(TrapReason::FirstUse, 3), (TrapReason::NotFileText, 2)],
                    sites: vec![
                        SiteReport {
                            file: None,
                            path: b"/bin/\x1bx".to_vec(),
                            symbol: Some((b"f".to_vec(), 4)),
                            offset: 0x10,
                            nr: 39,
                            traps: 2,
                            reason: TrapReason::NotFileText,
                            before: vec![0xb8],
                            after: vec![0x0f, 0x05],
                        },
                        SiteReport {
                            file: None,
                            path: b"/bin/y".to_vec(),
                            symbol: None,
                            offset: 0x20,
                            nr: 39,
                            traps: 1,
                            reason: TrapReason::FirstUse,
                            before: vec![],
                            after: vec![],
                        },
                    ],
                    traps_unlisted: 0,
                },
                missing: vec![(41, 2), (511, 1)],
                memory: vec![(MemoryEvent::Load, 12)],
            }),
        };
        let spent = Spent {
            image: Duration::from_millis(1),
            container: None,
            total: Duration::from_millis(30),
        };
        let text = table(&spent, &outcome);
        let expected = "
time, ms
  image                             1.000
  namespaces and cgroup                 -
  machine and libOS                12.345
  boot to first process             5.000
  processes                         4.000
  teardown                          0.000
  total                            30.000
doorbells served by the VMM
  shutdown                              1
requests served by the VMM
  network.send                          3
records
  written                               7
  lost                                  1
syscall translation
  calls                              1000
  calls translated                    995
  sites translated                      3
  traps: first use                      3
  traps: not file text                  2
  share translated                99.500%
sites that trap: traps, call, reason, file, offset, function, bytes before | from
           2 getpid (not file text) /bin/x 0x10 f+0x4 b8 | 0f05
system calls the libOS does not have
  socket                                2
  call 511                              1
memory
  address spaces loaded                12
";
        assert_eq!(text, expected);
    }
}
