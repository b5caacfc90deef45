//! The version note in the libOS image, checked by the loader before anything runs.

/// Version of everything in [`super`]. Bump it with any change on the wire.
pub const BOUNDARY_VERSION: u32 = 14;

/// Name of the ELF note (with its NUL, padded to a multiple of 4 bytes).
pub const NOTE_NAME: [u8; 8] = *b"husk\0\0\0\0";
/// Length of the note's name as the note header gives it.
pub const NOTE_NAME_LEN: u32 = 5;
/// Type of the ELF note.
pub const NOTE_TYPE: u32 = 0x6b_73_75_68;

/// Contents of the note.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ImageNote {
    /// [`BOUNDARY_VERSION`] the image was built with.
    pub boundary_version: u32,
    /// Reserved, 0.
    pub reserved: u32,
    /// Value for `MSR_LSTAR`.
    pub lstar: u64,
    /// Value for `MSR_CSTAR`.
    pub cstar: u64,
}
super::assert_size!(ImageNote, 24);
