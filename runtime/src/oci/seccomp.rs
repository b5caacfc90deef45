//! `linux.seccomp`: the workload's profile, as the libOS's dispatcher takes it.

use husk_abi::boundary::config::{Seccomp, SeccompAction, SeccompArg, SeccompOp, SeccompRule};
use husk_abi::linux::syscalls::ALL;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompOperator};

use super::spec::Error;

/// `EPERM`: what runc gives where a profile names no errno.
const DEFAULT_ERRNO: u32 = libc::EPERM as u32;

fn action(
    action: LinuxSeccompAction,
    errno: Option<u32>,
    field: &str,
) -> Result<SeccompAction, Error> {
    use LinuxSeccompAction as Action;
    Ok(match action {
        Action::ScmpActAllow => SeccompAction::Allow,
        Action::ScmpActLog => SeccompAction::Log,
        Action::ScmpActErrno => {
            let errno = errno.unwrap_or(DEFAULT_ERRNO);
            let errno = u16::try_from(errno)
                .ok()
                .filter(|errno| *errno < 4096)
                .ok_or_else(|| Error::field(field, format!("{errno} is no errno")))?;
            SeccompAction::Errno(errno)
        }
        Action::ScmpActTrace => SeccompAction::Trace,
        Action::ScmpActTrap => SeccompAction::Trap,
        Action::ScmpActKill | Action::ScmpActKillThread => SeccompAction::KillThread,
        Action::ScmpActKillProcess => SeccompAction::KillProcess,
        Action::ScmpActNotify => {
            return Err(Error::unsupported(field, "SCMP_ACT_NOTIFY"));
        }
    })
}

/// The profile. Names of calls that x86-64 does not have are ignored, as libseccomp does.
///
/// # Errors
/// [`Error`], naming the field.
pub fn profile(seccomp: &LinuxSeccomp) -> Result<Seccomp, Error> {
    if seccomp.listener_path().is_some() {
        return Err(Error::unsupported(
            "linux.seccomp.listenerPath",
            "a seccomp agent",
        ));
    }
    let default_action = action(
        seccomp.default_action(),
        seccomp.default_errno_ret(),
        "linux.seccomp.defaultAction",
    )?;
    let mut rules = Vec::new();
    for (index, entry) in seccomp.syscalls().iter().flatten().enumerate() {
        let field = format!("linux.seccomp.syscalls[{index}]");
        let action = action(
            entry.action(),
            entry.errno_ret(),
            &format!("{field}.action"),
        )?;
        let syscalls: Vec<u32> = entry
            .names()
            .iter()
            .filter_map(|name| ALL.iter().find(|row| row.name == name))
            .map(|row| row.nr)
            .collect();
        if syscalls.is_empty() || action == default_action {
            // A rule that does what happens anyway; libseccomp does not take it either.
            continue;
        }
        let mut args = Vec::new();
        for (at, arg) in entry.args().iter().flatten().enumerate() {
            args.push(condition(arg, &format!("{field}.args[{at}]"))?);
        }
        rules.extend(alternatives(syscalls, action, args));
    }
    let newest = rules
        .iter()
        .flat_map(|rule| rule.syscalls.iter().copied())
        .max()
        .unwrap_or(u32::MAX);
    let newest = match default_action {
        SeccompAction::Allow | SeccompAction::Log => u32::MAX,
        _ => newest,
    };
    Ok(Seccomp {
        default_action,
        newest,
        rules,
    })
}

/// As runc: where an index occurs twice, each condition is a rule of its own.
fn alternatives(
    syscalls: Vec<u32>,
    action: SeccompAction,
    args: Vec<SeccompArg>,
) -> Vec<SeccompRule> {
    let doubled = args
        .iter()
        .enumerate()
        .any(|(at, arg)| args[..at].iter().any(|other| other.index == arg.index));
    let sets = if doubled {
        args.into_iter().map(|arg| vec![arg]).collect()
    } else {
        vec![args]
    };
    sets.into_iter()
        .map(|args| SeccompRule {
            syscalls: syscalls.clone(),
            args,
            action,
        })
        .collect()
}

fn condition(arg: &oci_spec::runtime::LinuxSeccompArg, field: &str) -> Result<SeccompArg, Error> {
    use LinuxSeccompOperator as Op;
    let index = u8::try_from(arg.index())
        .ok()
        .filter(|index| *index < 6)
        .ok_or_else(|| Error::field(format!("{field}.index"), "is not from 0 to 5"))?;
    let (value, two) = (arg.value(), arg.value_two().unwrap_or(0));
    let (op, value, mask) = match arg.op() {
        Op::ScmpCmpNe => (SeccompOp::NotEqual, value, 0),
        Op::ScmpCmpLt => (SeccompOp::Less, value, 0),
        Op::ScmpCmpLe => (SeccompOp::LessOrEqual, value, 0),
        Op::ScmpCmpEq => (SeccompOp::Equal, value, 0),
        Op::ScmpCmpGe => (SeccompOp::GreaterOrEqual, value, 0),
        Op::ScmpCmpGt => (SeccompOp::Greater, value, 0),
        // The mask comes first there.
        Op::ScmpCmpMaskedEq => (SeccompOp::MaskedEqual, two, value),
    };
    Ok(SeccompArg {
        index,
        op,
        value,
        mask,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(value: Value) -> Result<Seccomp, Error> {
        profile(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn names_become_numbers() {
        let profile = of(json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [
                {"names": ["read", "write", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["getpid"], "action": "SCMP_ACT_ERRNO"},
                {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            ],
        }))
        .unwrap();
        assert_eq!(profile.default_action, SeccompAction::Errno(1));
        assert_eq!(profile.rules.len(), 2);
        assert_eq!(profile.rules[0].syscalls, [0, 1]);
        assert_eq!(profile.rules[1].action, SeccompAction::Errno(38));
        assert_eq!(profile.newest, 62);
    }

    #[test]
    fn conditions() {
        let profile = of(json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{
                "names": ["clone"], "action": "SCMP_ACT_KILL_PROCESS",
                "args": [{"index": 0, "value": 0x7e02_0000_u32, "valueTwo": 5, "op": "SCMP_CMP_MASKED_EQ"}],
            }, {
                "names": ["personality"], "action": "SCMP_ACT_TRAP",
                "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 9, "op": "SCMP_CMP_NE"}],
            }],
        }))
        .unwrap();
        let arg = profile.rules[0].args[0];
        assert_eq!(
            (arg.op, arg.value, arg.mask),
            (SeccompOp::MaskedEqual, 5, 0x7e02_0000)
        );
        assert_eq!(profile.rules.len(), 3);
        assert_eq!(profile.newest, u32::MAX);
    }

    #[test]
    fn refusals_name_the_field() {
        let text = |value| of(value).unwrap_err().to_string();
        assert!(
            text(json!({"defaultAction": "SCMP_ACT_NOTIFY"})).contains("seccomp.defaultAction")
        );
        assert!(
            text(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{
            "names": ["kill"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}))
            .contains("syscalls[0].args[0].index")
        );
    }
}
