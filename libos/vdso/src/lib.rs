//! The vDSO as bytes: an ELF shared object, `linux-vdso.so.1`, built by the build script from `image/`.
#![cfg_attr(target_os = "none", no_std)]

/// Bytes aligned as a page, so that they can be read as an ELF file in place.
#[repr(C, align(4096))]
struct Aligned<T: ?Sized>(T);

static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/vdso.so")));

/// The image. Before it is mapped, [`husk_abi::boundary::clock::VDSO_WALL_CLOCK_SLOT`] in it is to be replaced.
///
/// [`husk_abi::boundary::clock::VDSO_WALL_CLOCK_SLOT`]: ../husk_abi/boundary/clock/constant.VDSO_WALL_CLOCK_SLOT.html
pub static IMAGE: &[u8] = &ALIGNED.0;

#[cfg(test)]
mod tests;
