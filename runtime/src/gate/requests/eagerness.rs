//! Whether it is worth a CPU to look for something again and again instead of sleeping until it is there: it is when what was
//! looked for came soon of late. Each time that it was not makes more reluctant.

/// Weight of what must have come soon before looking begins, at first.
pub const EAGER: u32 = 4;
/// The same at most.
pub const RELUCTANT: u32 = 1 << 12;

/// What is known of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eagerness {
    /// Weight of what came soon.
    soon: u32,
    /// The weight at which looking begins.
    enough: u32,
}

impl Default for Eagerness {
    fn default() -> Self {
        Self {
            soon: 0,
            enough: EAGER,
        }
    }
}

impl Eagerness {
    /// Something of this weight came, soon or not; true if looking is worth it from now on.
    pub fn came(&mut self, soon: bool, weight: u32) -> bool {
        let earlier = if soon { self.soon } else { 0 };
        self.soon = earlier.saturating_add(weight);
        self.soon >= self.enough
    }

    /// Nothing came.
    pub fn nothing_came(&mut self) {
        self.soon = 0;
    }

    /// Whether what was found by looking is as much as it takes to begin.
    pub fn is_worth(&self, weight: u32) -> bool {
        weight >= self.enough
    }

    /// Looking has ended.
    pub fn ended(&mut self, was_worth_it: bool) {
        self.enough = if was_worth_it {
            (self.enough / 2).max(EAGER)
        } else {
            (self.enough * 2).min(RELUCTANT)
        };
        self.soon = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_makes_more_reluctant() {
        let mut eagerness = Eagerness::default();
        let needed = |eagerness: &mut Eagerness| {
            let mut count = 1;
            while !eagerness.came(true, 1) {
                count += 1;
            }
            count
        };
        assert_eq!(needed(&mut eagerness), EAGER);
        eagerness.ended(false);
        assert_eq!(needed(&mut eagerness), 2 * EAGER);
        (0..99).for_each(|_| eagerness.ended(false));
        assert_eq!(needed(&mut eagerness), RELUCTANT);
        (0..99).for_each(|_| eagerness.ended(true));
        assert!(!eagerness.came(true, EAGER - 1) && !eagerness.came(false, 1));
        eagerness.nothing_came();
        assert_eq!(needed(&mut eagerness), EAGER);
    }
}
