//! A recording in any form: events or an error, and every event can be printed on one line.
#![no_main]

use husk::record::decode;
use husk::record::reader::{Error, Reader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut reader) = Reader::new(bytes) else {
        return;
    };
    let read = reader.read(|event| {
        assert!(!decode::line(event).contains('\n'));
        Ok::<(), Error>(())
    });
    let _ = (read, reader.is_cut());
});
