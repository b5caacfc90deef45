//! Breakpoints in the libOS's text.

use std::collections::BTreeMap;

use super::backtrace::in_image;
use super::inspector::Inspector;

const INT3: u8 = 0xcc;

/// Why there can be no breakpoint somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Refused {
    #[error("only the libOS's code can have breakpoints")]
    NotTheLibos,
    #[error("a breakpoint is reported by this code itself")]
    Reporting,
    #[error("the address is not in memory")]
    NoMemory,
}

/// Functions that run between a trap and its report on the trap's one stack, or at CPL 0: a second trap there would
/// overwrite the first.
const REPORTING: [&str; 6] = [
    "hal_upcall_start..hal_upcall_end",
    "hal_lstar..hal_lstar_cpl3",
    "hal_load_root..hal_load_task_return",
    "hal_exception_place",
    "husk_hal::arch::upcall::debugger_answers",
    "husk_hal::arch::doorbell::ring",
];

/// Planted breakpoints: address and the byte that was there.
pub type Planted = BTreeMap<u64, u8>;

impl Inspector {
    /// Plants a breakpoint. All vCPUs must be stopped.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn plant(&self, address: u64) -> Result<(), Refused> {
        if !in_image(address) {
            return Err(Refused::NotTheLibos);
        }
        if self.is_reporting(address) {
            return Err(Refused::Reporting);
        }
        let mut planted = self.debug.planted();
        if planted.contains_key(&address) {
            return Ok(());
        }
        let mut byte = [0];
        if self.space.read(self.boot_root(), address, &mut byte) != 1
            || !self.space.write(self.boot_root(), address, &[INT3])
        {
            return Err(Refused::NoMemory);
        }
        planted.insert(address, byte[0]);
        Ok(())
    }

    /// Removes a breakpoint; false if there was none. All vCPUs must be stopped.
    pub fn unplant(&self, address: u64) -> bool {
        let Some(byte) = self.debug.planted().remove(&address) else {
            return false;
        };
        self.space.write(self.boot_root(), address, &[byte])
    }

    /// Removes all breakpoints. All vCPUs must be stopped.
    pub fn unplant_all(&self) {
        let planted = std::mem::take(&mut *self.debug.planted());
        for (address, byte) in planted {
            self.space.write(self.boot_root(), address, &[byte]);
        }
    }

    /// Shows `bytes`, read at `address`, as they are without breakpoints.
    pub fn hide_breakpoints(&self, address: u64, bytes: &mut [u8]) {
        for (at, byte) in self.debug.planted().iter() {
            if let Some(shown) = at
                .checked_sub(address)
                .and_then(|offset| bytes.get_mut(usize::try_from(offset).ok()?))
            {
                *shown = *byte;
            }
        }
    }

    fn is_reporting(&self, address: u64) -> bool {
        let symbols = self.symbols();
        REPORTING.iter().any(|entry| match entry.split_once("..") {
            Some((from, to)) => match (symbols.address_of(from), symbols.address_of(to)) {
                (Some(from), Some(to)) => (from..to).contains(&address),
                _ => true,
            },
            None => symbols
                .function(address)
                .is_some_and(|(name, _)| name == *entry),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::debug::Symbols;

    #[test]
    fn the_image_has_what_must_not_be_stopped_in() {
        let symbols = Symbols::of(crate::LIBOS);
        // Functions may be inlined into each other; labels are there.
        let names = REPORTING.iter().filter(|entry| !entry.contains("::"));
        for name in names.flat_map(|entry| entry.split("..")) {
            assert!(symbols.address_of(name).is_some(), "{name}");
        }
    }
}
