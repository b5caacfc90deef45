//! Loads the libOS image and checks that it speaks this VMM's boundary.

use std::io::Cursor;

use elf::ElfBytes;
use elf::endian::LittleEndian;
use elf::note::Note;
use husk_abi::boundary::layout::{IMAGE_BASE, IMAGE_LOAD, IMAGE_SPAN};
use husk_abi::boundary::version::{BOUNDARY_VERSION, ImageNote, NOTE_TYPE};
use linux_loader::loader::{Elf, KernelLoader};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::Error;

/// What the VMM needs to know of the image.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    pub entry: u64,
    pub lstar: u64,
    pub cstar: u64,
    /// First guest physical address after the image, its bss included.
    pub end: u64,
}

/// Reads the image's headers; nothing is loaded yet.
pub fn inspect(bytes: &[u8]) -> Result<Image, Error> {
    let bad = |why: &str| Error::Image(why.to_owned());
    let file = ElfBytes::<LittleEndian>::minimal_parse(bytes).map_err(|e| bad(&e.to_string()))?;
    let segments = file
        .segments()
        .ok_or_else(|| bad("it has no program headers"))?;
    let mut end = 0;
    let mut note = None;
    for segment in segments.iter() {
        if segment.p_type == elf::abi::PT_LOAD && segment.p_memsz > 0 {
            let last = segment
                .p_paddr
                .checked_add(segment.p_memsz)
                .ok_or_else(|| bad("a segment wraps"))?;
            if segment.p_paddr < IMAGE_LOAD
                || last > IMAGE_SPAN
                || segment.p_vaddr != IMAGE_BASE + segment.p_paddr
            {
                return Err(bad("a segment lies outside the image's range"));
            }
            end = end.max(last);
        } else if segment.p_type == elf::abi::PT_NOTE {
            let notes = file
                .segment_data_as_notes(&segment)
                .map_err(|e| bad(&e.to_string()))?;
            note = note.or(notes.into_iter().find_map(husk_note));
        }
    }
    let note = note.ok_or_else(|| bad("it has no version note"))?;
    if note.boundary_version != BOUNDARY_VERSION {
        return Err(bad(&format!(
            "it speaks boundary version {}, this husk {BOUNDARY_VERSION}",
            note.boundary_version
        )));
    }
    Ok(Image {
        entry: file.ehdr.e_entry,
        lstar: note.lstar,
        cstar: note.cstar,
        end,
    })
}

fn husk_note(note: Note<'_>) -> Option<ImageNote> {
    let Note::Unknown(any) = note else {
        return None;
    };
    let desc: &[u8; size_of::<ImageNote>()] = any.desc.try_into().ok()?;
    if any.n_type != u64::from(NOTE_TYPE) {
        return None;
    }
    let word = |at: usize| u32::from_le_bytes([desc[at], desc[at + 1], desc[at + 2], desc[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    Some(ImageNote {
        boundary_version: word(0),
        reserved: word(4),
        lstar: long(8),
        cstar: long(16),
    })
}

/// Copies the image's segments into guest RAM.
pub fn load(memory: &GuestMemoryMmap, bytes: &[u8]) -> Result<(), Error> {
    // The offset of 0 only says that no PVH entry is looked for.
    Elf::load(memory, Some(GuestAddress(0)), &mut Cursor::new(bytes), None)
        .map(drop)
        .map_err(|error| Error::Image(error.to_string()))
}
