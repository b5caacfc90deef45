//! Layers on layers, without the digests that keep a fuzzer out: nothing outside of their directories, and whatever
//! unpacks can be archived or is refused.
#![no_main]

use std::fs::{self, File};

use husk_images::cpio::write_root_archive;
use husk_images::unpack::Unpacker;
use husk_images::{NoProgress, Stack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let dir = husk_fuzz::Dir::new();
    let mut below = Vec::new();
    // Where a layer ends is up to the fuzzer as well.
    for (number, layer) in data.split(|byte| *byte == 0xfe).take(4).enumerate() {
        let target = dir.path().join(number.to_string());
        fs::create_dir(&target).expect("the scratch directory takes another");
        let stack = Stack::open(&below).expect("what has been unpacked opens");
        let mut unpacker = Unpacker::new(&target, stack).expect("an empty directory opens");
        let applied = unpacker.apply(&mut &*layer);
        if applied.is_err() || unpacker.finish().is_err() {
            break;
        }
        below.insert(0, target);
    }
    let stack = Stack::open(&below).expect("what has been unpacked opens");
    let out = File::create_new(dir.path().join("root.cpio")).expect("a new file");
    let _ = write_root_archive(&stack, &out, &mut NoProgress);
    dir.assert_only(&["0", "1", "2", "3", "root.cpio"]);
});
