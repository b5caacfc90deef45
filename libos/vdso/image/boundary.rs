//! The boundary's definitions the image needs, from the one place where they are written.

macro_rules! assert_size {
    ($ty:ty, $size:literal) => {
        const _: () = assert!(size_of::<$ty>() == $size);
    };
}
pub(crate) use assert_size;

#[path = "../../../abi/src/boundary/clock.rs"]
pub mod clock;
#[path = "../../../abi/src/boundary/layout.rs"]
pub mod layout;
