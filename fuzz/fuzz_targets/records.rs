//! What a guest may leave in a record ring: records or an error, each of which can be shown.
#![no_main]

use husk::record::parse::{Record, record};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok((record, after)) = record(rest) {
        assert!(after.len() < rest.len());
        if let Record::Call(call) = &record {
            let entries: usize = call.entries().map(|entry| entry.argument).sum();
            assert!(entries <= 6 * bytes.len());
            let _ = (call.args(), call.result());
        }
        rest = after;
    }
});
