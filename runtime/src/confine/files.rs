//! Landlock (`landlock(7)`), where the kernel has it.

use std::os::fd::AsFd;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus,
};

use super::{Error, Files};

/// The newest rules used; kernels that know fewer apply those they know.
const RULES: ABI = ABI::V5;

/// Lets the process reach what it serves only, and execute nothing in either case.
pub fn enter(serves: Files<'_>) -> Result<(), Error> {
    let all = AccessFs::from_all(RULES);
    let below = all & !AccessFs::Execute;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .create()?;
    let trees = match serves {
        Files::OwnRoot(trees) => {
            if let Ok(root) = PathFd::new("/") {
                ruleset = ruleset.add_rule(PathBeneath::new(root, below))?;
            }
            trees
        }
        Files::Trees(trees) => trees,
    };
    for held in trees.iter().filter_map(|tree| tree.held.as_ref()) {
        // A file takes those of the rights that files have.
        ruleset = ruleset.add_rule(PathBeneath::new(held.as_fd(), below))?;
    }
    let status = ruleset.restrict_self()?;
    if status.ruleset == RulesetStatus::NotEnforced {
        tracing::debug!("this kernel has no landlock");
    }
    Ok(())
}
