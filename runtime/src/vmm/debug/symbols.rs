//! From addresses of the libOS to functions, files and lines.

use std::borrow::Cow;
use std::fmt;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use elf::ElfBytes;
use elf::abi::{STT_FUNC, STT_NOTYPE};
use flate2::read::ZlibDecoder;
use gimli::{EndianArcSlice, LittleEndian};

type Slice = EndianArcSlice<LittleEndian>;

/// Where an address lies in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Function, demangled.
    pub function: String,
    /// File and line, as far as known.
    pub line: Option<(String, u32)>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.line {
            Some((file, line)) => write!(f, "{} at {file}:{line}", self.function),
            None => f.write_str(&self.function),
        }
    }
}

/// The symbols of a libOS image.
pub struct Symbols {
    /// Sorted by address: first address, name.
    functions: Vec<(u64, String)>,
    /// Fills its caches as it is asked.
    lines: Mutex<Option<addr2line::Context<Slice>>>,
}

impl fmt::Debug for Symbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symbols")
            .field("functions", &self.functions.len())
            .finish_non_exhaustive()
    }
}

impl Symbols {
    /// Those of the ELF file `image`; without what it lacks.
    #[must_use]
    pub fn of(image: &[u8]) -> Self {
        let Ok(file) = ElfBytes::<elf::endian::LittleEndian>::minimal_parse(image) else {
            return Self {
                functions: Vec::new(),
                lines: Mutex::new(None),
            };
        };
        let mut functions = Vec::new();
        if let Ok(Some((symbols, names))) = file.symbol_table() {
            for symbol in symbols.iter() {
                let is_code = matches!(symbol.st_symtype(), STT_FUNC | STT_NOTYPE);
                if is_code
                    && symbol.st_value != 0
                    && let Ok(name) = names.get(symbol.st_name as usize)
                    && !name.is_empty()
                {
                    functions.push((symbol.st_value, demangled(name)));
                }
            }
        }
        functions.sort();
        let load = |id: gimli::SectionId| -> Result<Slice, gimli::Error> {
            let bytes = section(&file, id.name()).unwrap_or_default();
            Ok(Slice::new(Arc::from(&*bytes), LittleEndian))
        };
        let lines = gimli::Dwarf::load(load)
            .and_then(addr2line::Context::from_dwarf)
            .ok();
        Self {
            functions,
            lines: Mutex::new(lines),
        }
    }

    /// Name of the function or label at or before `address`, and how far behind its start that is.
    #[must_use]
    pub fn function(&self, address: u64) -> Option<(&str, u64)> {
        let after = self
            .functions
            .partition_point(|(start, _)| *start <= address);
        let (start, name) = self.functions.get(after.checked_sub(1)?)?;
        Some((name, address - start))
    }

    /// Address of the function or label called `name`.
    #[must_use]
    pub fn address_of(&self, name: &str) -> Option<u64> {
        self.functions
            .iter()
            .find(|(_, known)| known == name)
            .map(|(address, _)| *address)
    }

    /// The functions `address` lies in, innermost (inlined) first; never empty.
    #[must_use]
    pub fn places(&self, address: u64) -> Vec<Place> {
        let mut places = self.with_lines(address).unwrap_or_default();
        if places.is_empty() {
            places.push(Place {
                function: self.function(address).map_or_else(
                    || format!("{address:#x}"),
                    |(name, offset)| format!("{name}+{offset:#x}"),
                ),
                line: None,
            });
        }
        places
    }

    fn with_lines(&self, address: u64) -> Option<Vec<Place>> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut frames = lines.as_ref()?.find_frames(address).skip_all_loads().ok()?;
        let mut places = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            let Some(function) = &frame.function else {
                continue;
            };
            let name = function.raw_name().map_or_else(
                |_| format!("{address:#x}"),
                |name: Cow<'_, str>| demangled(&name),
            );
            let line = frame
                .location
                .and_then(|location| Some((shortened(location.file?).to_owned(), location.line?)));
            places.push(Place {
                function: name,
                line,
            });
        }
        Some(places)
    }
}

fn demangled(name: &str) -> String {
    // Without the hash.
    format!("{:#}", rustc_demangle::demangle(name))
}

/// The contents of a section, decompressed.
fn section<'a>(
    file: &ElfBytes<'a, elf::endian::LittleEndian>,
    name: &str,
) -> Option<Cow<'a, [u8]>> {
    let header = file.section_header_by_name(name).ok()??;
    let (bytes, compression) = file.section_data(&header).ok()?;
    let Some(compression) = compression else {
        return Some(Cow::Borrowed(bytes));
    };
    if compression.ch_type != elf::abi::ELFCOMPRESS_ZLIB {
        return None;
    }
    let mut plain = Vec::with_capacity(usize::try_from(compression.ch_size).ok()?);
    ZlibDecoder::new(bytes).read_to_end(&mut plain).ok()?;
    Some(Cow::Owned(plain))
}

/// A file's name without the directories of the machine it was built on.
fn shortened(path: &str) -> &str {
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/");
    let workspace = workspace.strip_suffix("runtime/").unwrap_or(workspace);
    if let Some(rest) = path.strip_prefix(workspace) {
        return rest;
    }
    for marker in ["/registry/src/", "/rustc/"] {
        if let Some((_, rest)) = path.split_once(marker) {
            return rest.split_once('/').map_or(rest, |(_, rest)| rest);
        }
    }
    path.split_once("/rust/library/")
        .map_or(path, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_has_names_and_lines() {
        let symbols = Symbols::of(crate::LIBOS);
        let start = symbols.address_of("husk_syscall").unwrap();
        assert_eq!(symbols.function(start), Some(("husk_syscall", 0)));
        let places = symbols.places(start + 1);
        let outer = places.last().unwrap();
        assert_eq!(outer.function, "husk_syscall");
        let (file, line) = outer.line.clone().unwrap();
        assert_eq!(file, "libos/image/src/hooks.rs");
        assert!(line > 0);
        // Assembly has no lines, but labels.
        let gate = symbols.address_of("hal_load_root").unwrap();
        assert!(
            symbols.places(gate)[0]
                .function
                .starts_with("hal_load_root")
        );
    }

    #[test]
    fn what_is_no_image_has_no_symbols() {
        for bytes in [&b""[..], b"\x7fELF", &crate::LIBOS[..4096]] {
            let symbols = Symbols::of(bytes);
            assert_eq!(symbols.places(16)[0].to_string(), "0x10");
        }
    }

    #[test]
    fn file_names() {
        assert_eq!(
            shortened("/root/.cargo/registry/src/index.crates.io-1/talc-5/src/a.rs"),
            "talc-5/src/a.rs"
        );
        assert_eq!(
            shortened("/rustc/abc/library/core/src/x.rs"),
            "library/core/src/x.rs"
        );
        assert_eq!(shortened("a/b.rs"), "a/b.rs");
    }
}
