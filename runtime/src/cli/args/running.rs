//! What is asked of a container that runs: `exec`, `ps`, `events`, `update`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

use super::ListFormat;

/// `husk ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Print a table of the processes inside, or a JSON array of the host's processes that stand for them
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "table"
    )]
    pub format: ListFormat,
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `husk events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// How often to print what is used
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "5s")]
    pub interval: Duration,
    /// Print what is used, once
    #[arg(long)]
    pub stats: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `husk update`. Amounts of memory are bytes, times are microseconds.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// The new limits as JSON; - is standard input. Other options are ignored then
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,
    /// Period of the CPU quota
    #[arg(long, value_name = "N")]
    pub cpu_period: Option<u64>,
    /// CPU time in a period
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Share of the CPUs, relative to others
    #[arg(long, value_name = "N")]
    pub cpu_share: Option<u64>,
    /// Period of the realtime quota
    #[arg(long, value_name = "N")]
    pub cpu_rt_period: Option<u64>,
    /// Realtime in a period
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs to use
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Memory
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub memory: Option<i64>,
    /// Memory that is kept when others want it
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub memory_reservation: Option<i64>,
    /// Memory and swap; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// Processes and threads
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `husk exec`.
#[derive(Debug, Args)]
#[command(trailing_var_arg = true)]
pub struct ExecArgs {
    /// Socket that is sent the process's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Directory to start in [default: the container's]
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Add a variable
    #[arg(short, long, value_name = "NAME=VALUE", action = ArgAction::Append)]
    pub env: Vec<String>,
    /// With a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// User to run as [default: the container's]
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// Add a supplementary group
    #[arg(short = 'g', long, value_name = "GID", action = ArgAction::Append)]
    pub additional_gids: Vec<u32>,
    /// The process as a JSON file describes it (OCI runtime-spec, process)
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Do not wait for the process's end
    #[arg(short, long)]
    pub detach: bool,
    /// Write the id of the process that stands for it to FILE
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// SELinux label: for the host's processes, so not applied; refused where the host has no SELinux
    #[arg(long, value_name = "LABEL", hide = true)]
    pub process_label: Option<String>,
    /// AppArmor profile: the same
    #[arg(long, value_name = "PROFILE", hide = true)]
    pub apparmor: Option<String>,
    /// Set no_new_privs
    #[arg(long)]
    pub no_new_privs: bool,
    /// Add a capability, as CAP_NAME
    #[arg(short, long, value_name = "CAP", action = ArgAction::Append)]
    pub cap: Vec<String>,
    /// Pass on this many descriptors after the first three
    #[arg(long, value_name = "N", default_value = "0")]
    pub preserve_fds: u32,
    /// Also in a container that is paused: the process runs when that is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
    /// Command and arguments
    #[arg(value_name = "COMMAND", allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// A duration as runc takes it: `500ms`, `5s`, `1.5m`, `1h30m`.
fn interval(text: &str) -> Result<Duration, String> {
    let wrong = || "give a duration above 0, such as 500ms, 5s or 1m".to_owned();
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let cut = rest
            .find(|c: char| c.is_ascii_alphabetic())
            .ok_or_else(wrong)?;
        let (number, after) = rest.split_at(cut);
        let end = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let unit = match &after[..end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        total += number.parse::<f64>().map_err(|_| wrong())? * unit;
        rest = &after[end..];
    }
    Duration::try_from_secs_f64(total)
        .ok()
        .filter(|duration| *duration >= Duration::from_millis(1))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(interval("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("1m1.5s"), Ok(Duration::from_millis(61_500)));
        for wrong in ["", "5", "s", "0s", "-1s", "5d", "nans", "1e300s"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
