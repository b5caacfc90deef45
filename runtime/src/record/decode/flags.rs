//! Numbers by their names.

use husk_abi::linux::general;

/// Values and their names.
pub type Names = &'static [(u64, &'static str)];

/// A table of constants under their own names.
macro_rules! names {
    ($module:ident: $($name:ident)*) => {
        &[$(($module::$name as u64, stringify!($name))),*]
    };
}
pub(super) use names;

/// Flags: the names of the bits that are set, and what is left in hexadecimal; `none` if none are.
pub fn bits(value: u64, names: Names, none: &str) -> String {
    let mut left = value;
    let mut parts: Vec<String> = Vec::new();
    for (bit, name) in names {
        if *bit != 0 && left & bit == *bit {
            left &= !bit;
            parts.push((*name).to_owned());
        }
    }
    if left != 0 {
        parts.push(format!("{left:#x}"));
    }
    if parts.is_empty() {
        none.to_owned()
    } else {
        parts.join("|")
    }
}

/// One of several: its name, or the number in hexadecimal.
pub fn choice(value: u32, names: Names) -> String {
    names
        .iter()
        .find(|(number, _)| *number == u64::from(value))
        .map_or_else(|| format!("{value:#x}"), |(_, name)| (*name).to_owned())
}

const SIGNALS: Names = names!(general:
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE
    SIGALRM SIGTERM SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ
    SIGVTALRM SIGPROF SIGWINCH SIGIO SIGPWR SIGSYS
);

/// A signal's name.
pub fn signal(number: u32) -> String {
    match SIGNALS
        .iter()
        .find(|(value, _)| *value == u64::from(number))
    {
        Some((_, name)) => (*name).to_owned(),
        None if number == general::SIGRTMIN => "SIGRTMIN".to_owned(),
        None if (general::SIGRTMIN..=64).contains(&number) => {
            format!("SIGRT_{}", number - general::SIGRTMIN)
        }
        None => number.cast_signed().to_string(),
    }
}
