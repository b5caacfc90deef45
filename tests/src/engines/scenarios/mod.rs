//! The scenarios, by topic.
//!
//! What a scenario prints must be the same in every run: no ids, no times, no unsorted output of concurrent writers. Functions it can use
//! are in `prelude.sh`.

mod compose;
mod exec;
mod files;
mod life;
mod limits;
mod networks;
mod run;
mod users;

/// Some lines of bash.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name in reports.
    pub name: &'static str,
    /// The lines.
    pub text: &'static str,
    only: Option<&'static str>,
}

impl Scenario {
    const fn new(name: &'static str, text: &'static str) -> Self {
        Self {
            name,
            text,
            only: None,
        }
    }

    /// For this engine only: others have no such thing.
    const fn only(self, engine: &'static str) -> Self {
        Self {
            only: Some(engine),
            ..self
        }
    }

    /// Whether an engine has it.
    pub fn is_for(&self, engine: &str) -> bool {
        self.only.is_none_or(|only| only == engine)
    }
}

/// All of them.
pub const TOPICS: &[(&str, &[Scenario])] = &[
    ("run", run::SCENARIOS),
    ("exec", exec::SCENARIOS),
    ("life", life::SCENARIOS),
    ("files", files::SCENARIOS),
    ("limits", limits::SCENARIOS),
    ("networks", networks::SCENARIOS),
    ("compose", compose::SCENARIOS),
    ("users", users::SCENARIOS),
];
