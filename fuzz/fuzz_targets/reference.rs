//! References and sources: what parses is shown in a form that parses to the same.
#![no_main]

use husk_images::{Reference, Source};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse().as_ref(), Ok(&reference));
        let name: Reference = reference.name().parse().expect("a name is a reference");
        assert_eq!(name.name(), reference.name());
    }
    if let Ok(source) = text.parse::<Source>() {
        assert_eq!(source.to_string().parse().as_ref(), Ok(&source));
    }
});
