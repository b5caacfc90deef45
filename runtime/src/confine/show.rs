//! What of the confinement holds for a process, read from `/proc`.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

/// The value of `name` in the text of a `status` file.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// `Seccomp` in the text of a `status` file: 2 is a filter.
pub(super) fn seccomp_mode(status: &str) -> Option<u32> {
    field(status, "Seccomp")?.parse().ok()
}

/// Names of the capabilities in a mask as `status` has it.
fn capabilities(mask: &str) -> String {
    let bits = u64::from_str_radix(mask, 16).unwrap_or(0);
    let names = crate::oci::process::capability_names();
    let held: Vec<_> = (0..)
        .zip(&names)
        .filter(|(bit, _)| bits >> bit & 1 != 0)
        .map(|(_, name)| name.trim_start_matches("CAP_").to_lowercase())
        .collect();
    if held.is_empty() {
        "none".to_owned()
    } else {
        held.join(" ")
    }
}

/// Describes process `pid`: capabilities, filters of its threads, descriptors, namespaces, root.
///
/// # Errors
/// When the process is not there or may not be looked at.
pub fn describe(pid: i32) -> io::Result<String> {
    let dir = format!("/proc/{pid}");
    let status = fs::read_to_string(format!("{dir}/status"))?;
    let get = |name: &str| field(&status, name).unwrap_or("?").to_owned();
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<14} {value}");
    };
    row("process", &format!("{pid} ({})", get("Name")));
    row("user", get("Uid").split_whitespace().next().unwrap_or("?"));
    row("capabilities", &capabilities(&get("CapPrm")));
    row("may ever have", &capabilities(&get("CapBnd")));
    row(
        "no_new_privs",
        if get("NoNewPrivs") == "1" {
            "yes"
        } else {
            "no"
        },
    );
    row("landlock", landlock());
    for (name, filters) in threads(&dir)? {
        row("thread", &format!("{name:<12} {filters}"));
    }
    for (number, target) in descriptors(&dir)? {
        row("descriptor", &format!("{number:<4} {target}"));
    }
    row("namespaces", &own_namespaces(&dir));
    Ok(text)
}

fn landlock() -> &'static str {
    let active = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    if active.split(',').any(|name| name.trim() == "landlock") {
        "by this kernel: files below its own root only, nothing to execute"
    } else {
        "unknown: the kernel's list of security modules cannot be read, or lacks it"
    }
}

/// Name and filters of each thread.
fn threads(dir: &str) -> io::Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(format!("{dir}/task"))?.flatten() {
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else {
            continue;
        };
        let filters = match seccomp_mode(&status) {
            Some(2) => format!(
                "{} system call filter(s)",
                field(&status, "Seccomp_filters").unwrap_or("?")
            ),
            _ => "no system call filter".to_owned(),
        };
        all.push((field(&status, "Name").unwrap_or("?").to_owned(), filters));
    }
    all.sort();
    Ok(all)
}

fn descriptors(dir: &str) -> io::Result<Vec<(u32, String)>> {
    let mut all: Vec<(u32, String)> = fs::read_dir(format!("{dir}/fd"))?
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            Some((number, target.display().to_string()))
        })
        .collect();
    all.sort();
    Ok(all)
}

/// Namespaces that are not those of the caller.
fn own_namespaces(dir: &str) -> String {
    let link = |base: &str, name: &str| fs::read_link(Path::new(base).join("ns").join(name)).ok();
    ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
        .into_iter()
        .filter(|name| link(dir, name) != link("/proc/self", name))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let status = "Name:\thusk\nCapPrm:\t0000000020000420\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(field(status, "Name"), Some("husk"));
        assert_eq!(seccomp_mode(status), Some(2));
        assert_eq!(field(status, "Seccomp_filters"), Some("1"));
        assert_eq!(
            capabilities("0000000020000420"),
            "kill net_bind_service audit_write"
        );
        assert_eq!(capabilities("0"), "none");
    }

    #[test]
    fn this_process() {
        let text = describe(std::process::id().cast_signed()).unwrap();
        assert!(text.contains("thread") && text.contains("descriptor"));
    }
}
