//! The rules as seccomp filters.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::Error;
use super::rules::{RULES, Role, Rule, When};

/// What a forbidden call does: the VMM ends by `SIGSYS`, which its caller sees.
const FORBIDDEN: SeccompAction = SeccompAction::KillProcess;

fn conditions(when: When) -> Result<Vec<SeccompRule>, Error> {
    let equal = |index, value| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let alternatives = match when {
        When::Always => return Ok(Vec::new()),
        When::Arg(index, value) => vec![equal(index, value)?],
        When::Masked(index, mask, value) => vec![SeccompCondition::new(
            index,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(mask),
            value,
        )?],
        When::OneOf(index, values) => values
            .iter()
            .map(|value| equal(index, *value))
            .collect::<Result<_, _>>()?,
    };
    let rules = alternatives
        .into_iter()
        .map(|condition| SeccompRule::new(vec![condition]));
    Ok(rules.collect::<Result<_, _>>()?)
}

/// A filter of the rules that `chosen` takes.
fn program(chosen: impl Fn(&Rule) -> bool) -> Result<BpfProgram, Error> {
    let mut map: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in RULES.iter().filter(|rule| chosen(rule)) {
        let wanted = conditions(rule.when)?;
        match map.get_mut(&rule.syscall) {
            // Without conditions: everything is allowed already.
            Some(known) if known.is_empty() => {}
            Some(known) if !wanted.is_empty() => known.extend(wanted),
            _ => {
                map.insert(rule.syscall, wanted);
            }
        }
    }
    let filter = SeccompFilter::new(map, FORBIDDEN, SeccompAction::Allow, TargetArch::x86_64)?;
    Ok(filter.try_into()?)
}

/// Whether this process has a filter: one that runs a container without a process of its own has none.
static CONFINED: AtomicBool = AtomicBool::new(false);

/// Forbids the process, and all threads it starts, what no rule allows.
pub fn enter_process() -> Result<(), Error> {
    seccompiler::apply_filter(&program(|_| true)?)?;
    CONFINED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Forbids the calling thread what no rule of its role allows; only within a confined process.
pub fn enter_thread(role: Role) {
    if !CONFINED.load(Ordering::Relaxed) {
        return;
    }
    let entered = program(|rule| rule.roles.contains(&role))
        .and_then(|program| Ok(seccompiler::apply_filter(&program)?));
    if let Err(error) = entered {
        // The process's own filter holds; a thread with more rights than it needs is worth a line.
        tracing::warn!("thread {role:?}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_a_filter() {
        for role in Role::ALL {
            assert!(
                !program(|rule| rule.roles.contains(&role))
                    .unwrap()
                    .is_empty()
            );
        }
        assert!(program(|_| true).unwrap().len() < 4096);
    }

    #[test]
    fn every_rule_has_a_reason_and_roles() {
        for rule in RULES {
            assert!(
                !rule.why.is_empty() && !rule.roles.is_empty(),
                "{}",
                rule.syscall
            );
        }
    }
}
