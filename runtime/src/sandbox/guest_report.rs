//! Reading what the libOS tells about its life. It is the guest's word: checked, bounded, not believed.

use std::mem::offset_of;

use husk_abi::boundary::events::{GUEST_EVENTS_OFFSET, GuestEvents};
use husk_abi::boundary::report::{self, GuestReport, MAX_BYTES, ReportPlace};
use husk_abi::boundary::start::{self, StartReport};
use vm_memory::{Bytes, GuestAddress};

use crate::vmm::GuestMemory;

/// How the first process started: errno of its `execve` and when it was about to run; 0 for neither.
pub fn start(memory: &GuestMemory, events_gpa: u64) -> (u64, u64) {
    let read = |offset: usize| word(memory, events_gpa + start::OFFSET + offset as u64);
    (
        read(offset_of!(StartReport, exec_errno)),
        read(offset_of!(StartReport, started_ns)),
    )
}

/// How many processes the libOS says it killed because memory ran out.
pub fn oom_kills(memory: &GuestMemory, events_gpa: u64) -> u64 {
    let at = GUEST_EVENTS_OFFSET + offset_of!(GuestEvents, oom_kills) as u64;
    word(memory, events_gpa + at)
}

/// The report the libOS left, if it left a readable one.
pub fn last(memory: &GuestMemory, events_gpa: u64) -> Option<GuestReport> {
    let read = |offset: usize| word(memory, events_gpa + report::OFFSET + offset as u64);
    let gpa = read(offset_of!(ReportPlace, gpa));
    let len = read(offset_of!(ReportPlace, bytes));
    if gpa == 0 || len == 0 || len > MAX_BYTES {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    memory.read_slice(&mut bytes, GuestAddress(gpa)).ok()?;
    match report::decode(&bytes) {
        Ok(report) => Some(report),
        Err(error) => {
            tracing::warn!("the libOS's report does not decode: {error}");
            None
        }
    }
}

fn word(memory: &GuestMemory, gpa: u64) -> u64 {
    memory.read_obj(GuestAddress(gpa)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use vm_memory::GuestMemoryMmap;

    fn memory(gpa: u64, len: u64, bytes: &[u8]) -> GuestMemory {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
        memory.write_obj(gpa, GuestAddress(report::OFFSET)).unwrap();
        memory
            .write_obj(len, GuestAddress(report::OFFSET + 8))
            .unwrap();
        memory.write_slice(bytes, GuestAddress(0x1000)).unwrap();
        Arc::new(memory)
    }

    #[test]
    fn a_report_comes_over() {
        let report = GuestReport {
            missing: vec![(41, 3)],
            ..GuestReport::default()
        };
        let bytes = report::encode(&report).unwrap();
        let memory = memory(0x1000, bytes.len() as u64, &bytes);
        assert_eq!(last(&memory, 0), Some(report));
    }

    #[test]
    fn nonsense_is_no_report() {
        for (gpa, len) in [
            (0, 0),
            (0, 8),
            (0x1000, 0),
            (0x1000, u64::MAX),
            (0x1000, MAX_BYTES + 1),
            (0x3fff, 16),
            (u64::MAX, 16),
            (0x1000, 0x1000),
        ] {
            assert_eq!(
                last(&memory(gpa, len, &[0xff; 0x1000]), 0),
                None,
                "{gpa:#x} {len}"
            );
        }
    }
}
