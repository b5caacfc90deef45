//! The vDSO (`vdso(7)`): the ELF image every process maps, so that reading the clock needs no system call.

/// The image as the kernel was given it.
#[derive(Debug)]
pub(super) struct Image {
    #[expect(dead_code, reason = "mapped once the memory room hands out frames")]
    elf: &'static [u8],
}

impl Image {
    pub fn new(elf: &'static [u8]) -> Self {
        Self { elf }
    }
}
