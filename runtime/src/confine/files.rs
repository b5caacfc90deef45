//! Landlock (`landlock(7)`), where the kernel has it.

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus,
};

use super::{Error, Files};

/// The newest rules used; kernels that know fewer apply those they know.
const RULES: ABI = ABI::V5;

/// Lets the process reach files below its own root only, or none at all, and execute nothing in either case.
pub fn enter(serves: Files) -> Result<(), Error> {
    let all = AccessFs::from_all(RULES);
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .create()?;
    let root = match serves {
        Files::None => None,
        Files::OwnRoot => PathFd::new("/").ok(),
    };
    let ruleset = match root {
        Some(root) => ruleset.add_rule(PathBeneath::new(root, all & !AccessFs::Execute))?,
        None => ruleset,
    };
    let status = ruleset.restrict_self()?;
    if status.ruleset == RulesetStatus::NotEnforced {
        tracing::debug!("this kernel has no landlock");
    }
    Ok(())
}
