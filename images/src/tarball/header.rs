//! The 512 bytes before each entry.

use super::sparse::{self, Segment};

/// Fields of a header block, decoded; extensions may still override them.
pub(super) struct RawHeader {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) flag: u8,
    pub(super) mode: u32,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) major: i64,
    pub(super) minor: i64,
    /// GNU sparse files: the map's start, whether more of it follows, and the length with holes.
    pub(super) sparse: Vec<Segment>,
    pub(super) sparse_more: bool,
    pub(super) sparse_size: u64,
}

impl RawHeader {
    /// Decodes a block that is not all zeros.
    pub(super) fn parse(block: &[u8; 512]) -> Result<Self, &'static str> {
        let stored = number(&block[148..156]).ok_or("bad checksum field")?;
        if !checksum_fits(block, stored) {
            return Err("wrong checksum");
        }
        let is_gnu = &block[257..265] == b"ustar  \0";
        let is_ustar = !is_gnu && &block[257..262] == b"ustar";
        let mut path = text(&block[..100]);
        if is_ustar && block[345] != 0 {
            let mut full = text(&block[345..500]);
            full.push(b'/');
            full.append(&mut path);
            path = full;
        }
        let flag = block[156];
        let mut header = Self {
            path,
            link: text(&block[157..257]),
            flag,
            // Some writers put the file type above the permission bits.
            mode: (number(&block[100..108]).ok_or("bad mode")? & 0o7777) as u32,
            uid: number(&block[108..116]).ok_or("bad owner")?,
            gid: number(&block[116..124]).ok_or("bad group")?,
            size: number(&block[124..136])
                .and_then(|n| u64::try_from(n).ok())
                .ok_or("bad size")?,
            mtime: number(&block[136..148]).ok_or("bad modification time")?,
            major: 0,
            minor: 0,
            sparse: Vec::new(),
            sparse_more: false,
            sparse_size: 0,
        };
        if matches!(flag, b'3' | b'4') {
            header.major = number(&block[329..337]).ok_or("bad device number")?;
            header.minor = number(&block[337..345]).ok_or("bad device number")?;
        }
        if flag == b'S' {
            sparse::push_gnu(&block[386..482], &mut header.sparse)?;
            header.sparse_more = block[482] != 0;
            header.sparse_size = number(&block[483..495])
                .and_then(|n| u64::try_from(n).ok())
                .ok_or("bad real size")?;
        }
        Ok(header)
    }
}

/// The sum of all bytes with the checksum field as spaces. Old writers summed signed bytes.
fn checksum_fits(block: &[u8; 512], stored: i64) -> bool {
    let (mut unsigned, mut signed) = (8 * 32, 8 * 32);
    for (i, byte) in block.iter().enumerate() {
        if !(148..156).contains(&i) {
            unsigned += i64::from(*byte);
            signed += i64::from(byte.cast_signed());
        }
    }
    stored == unsigned || stored == signed
}

/// Up to the first NUL.
fn text(field: &[u8]) -> Vec<u8> {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    field[..end].to_vec()
}

/// A number field: octal digits, or GNU's base-256 (two's complement, top bit of the first byte
/// set). Empty reads as 0. `None` when malformed or beyond 64 bits.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let top = if negative { first } else { first & 0x7f };
        let mut value: i128 = if negative { -1 } else { 0 };
        for byte in std::iter::once(top).chain(field[1..].iter().copied()) {
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).ok();
    }
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    let digits = field[..end].trim_ascii();
    let mut value: i64 = 0;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_of_every_writer() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"12345678"), None);
        assert_eq!(number(b"-1\0\0\0\0\0\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(
            number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]),
            Some(-256)
        );
        let mut huge = [0xff; 12];
        huge[0] = 0x80;
        assert_eq!(number(&huge), None);
    }
}
