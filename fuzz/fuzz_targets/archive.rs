//! A whole image archive, of either kind, into a store: no panic, nothing half-made, nothing outside.
#![no_main]

use std::fs;

use husk_images::{NoProgress, Source, Store};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let dir = husk_fuzz::Dir::new();
    let path = dir.path().join("archive");
    fs::write(&path, data).expect("the scratch directory takes a file");
    let store = Store::open(&dir.path().join("store")).expect("a new store opens");
    for transport in ["docker-archive", "oci-archive"] {
        let source: Source = format!("{transport}:{}", path.display()).parse().expect("a plain path");
        if let Ok(image) = store.add(&source, |_| Vec::new(), &mut NoProgress) {
            let _ = store.root_archive(&image, &mut NoProgress);
            continue;
        }
        for part in ["layers", "images", "names", "tmp"] {
            let mut left = fs::read_dir(dir.path().join("store/v2").join(part)).expect("it is there");
            assert!(left.next().is_none(), "left in {part}");
        }
    }
    dir.assert_only(&["archive", "store"]);
});
