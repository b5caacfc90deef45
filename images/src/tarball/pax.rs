//! Records of a pax extended header: `length key=value\n`. Values are bytes and may hold newlines.

use super::sparse::Segment;

/// The records this reader understands.
#[derive(Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Major number of the sparse format, where one is given.
    pub(super) sparse: Option<u64>,
    pub(super) sparse_name: Option<Vec<u8>>,
    pub(super) sparse_size: Option<u64>,
    /// The map of formats 0.0 and 0.1.
    pub(super) sparse_map: Option<Vec<Segment>>,
}

impl Pax {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, &'static str> {
        let mut pax = Self::default();
        let mut open_segment = None;
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes)?;
            bytes = rest;
            // An empty value takes a global record back; there are none here.
            if value.is_empty() && !key.starts_with(XATTR) {
                continue;
            }
            match key {
                b"path" => pax.path = Some(name(value)?),
                b"linkpath" => pax.link = Some(name(value)?),
                b"size" => pax.size = Some(decimal(value)?),
                b"uid" => pax.uid = Some(decimal(value)?),
                b"gid" => pax.gid = Some(decimal(value)?),
                b"mtime" => pax.mtime = Some(time(value)?),
                b"GNU.sparse.major" => pax.sparse = Some(decimal(value)?),
                b"GNU.sparse.name" => pax.sparse_name = Some(name(value)?),
                b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                    pax.sparse_size = Some(decimal(value)?);
                }
                b"GNU.sparse.map" => pax.sparse_map = Some(map_0_1(value)?),
                b"GNU.sparse.offset" => open_segment = Some(decimal(value)?),
                b"GNU.sparse.numbytes" => {
                    let offset = open_segment.take().ok_or("sparse length without offset")?;
                    let len = decimal(value)?;
                    let map = pax.sparse_map.get_or_insert_default();
                    map.push(Segment { offset, len });
                }
                _ => {
                    if let Some(attribute) = key.strip_prefix(XATTR) {
                        pax.xattrs.push((name(attribute)?, value.to_vec()));
                    }
                }
            }
        }
        Ok(pax)
    }
}

const XATTR: &[u8] = b"SCHILY.xattr.";

/// Key, value and what follows.
type Record<'a> = (&'a [u8], &'a [u8], &'a [u8]);

fn record(bytes: &[u8]) -> Result<Record<'_>, &'static str> {
    let space = bytes
        .iter()
        .position(|b| *b == b' ')
        .ok_or("no record length")?;
    let len = usize::try_from(decimal(&bytes[..space])?).map_err(|_| "bad record length")?;
    if len <= space + 1 || len > bytes.len() || bytes[len - 1] != b'\n' {
        return Err("bad record length");
    }
    let body = &bytes[space + 1..len - 1];
    let equals = body
        .iter()
        .position(|b| *b == b'=')
        .ok_or("record without =")?;
    Ok((&body[..equals], &body[equals + 1..], &bytes[len..]))
}

/// Names go to the kernel as C strings: a NUL inside would cut them silently.
fn name(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    if value.is_empty() || value.contains(&0) {
        return Err("empty name, or a NUL in one");
    }
    Ok(value.to_vec())
}

pub(super) fn decimal(value: &[u8]) -> Result<u64, &'static str> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err("bad number");
    }
    let text = std::str::from_utf8(value).map_err(|_| "bad number")?;
    text.parse().map_err(|_| "number too large")
}

/// `[-]seconds[.fraction]`, floored to nanoseconds.
fn time(value: &[u8]) -> Result<(i64, u32), &'static str> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let dot = value.iter().position(|b| *b == b'.');
    let (whole, fraction) = dot.map_or((value, &[][..]), |d| (&value[..d], &value[d + 1..]));
    let seconds = i64::try_from(decimal(whole)?).map_err(|_| "number too large")?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err("bad time");
    }
    let digit = |i: usize| u32::from(fraction.get(i).map_or(0, |b| b - b'0'));
    let nanos = (0..9).fold(0, |sum, i| sum * 10 + digit(i));
    Ok(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

/// Format 0.1: `offset,length,offset,length...`.
fn map_0_1(value: &[u8]) -> Result<Vec<Segment>, &'static str> {
    let numbers = value
        .split(|b| *b == b',')
        .map(decimal)
        .collect::<Result<Vec<_>, _>>()?;
    if numbers.len() % 2 != 0 {
        return Err("odd sparse map");
    }
    let segment = |pair: &[u64]| Segment {
        offset: pair[0],
        len: pair[1],
    };
    Ok(numbers.chunks_exact(2).map(segment).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines_and_equals() {
        let pax = Pax::parse(b"24 SCHILY.xattr.u=a\nb=\0\n13 path=a\nbc\n").unwrap();
        assert_eq!(pax.xattrs, [(b"u".to_vec(), b"a\nb=\0".to_vec())]);
        assert_eq!(pax.path.unwrap(), b"a\nbc");
    }

    #[test]
    fn times() {
        assert_eq!(time(b"12"), Ok((12, 0)));
        assert_eq!(time(b"12.5"), Ok((12, 500_000_000)));
        assert_eq!(time(b"12.0000000019"), Ok((12, 1)));
        assert_eq!(time(b"-1.25"), Ok((-2, 750_000_000)));
        assert_eq!(time(b"-3"), Ok((-3, 0)));
        for bad in [&b""[..], b"x", b"1.x", b"--1", b"99999999999999999999"] {
            assert!(time(bad).is_err());
        }
    }

    #[test]
    fn malformed_records() {
        let bad: [&[u8]; 9] = [
            b"x",
            b"3 a",
            b"99 path=a\n",
            b"0 path=a\n",
            b"9 path=ab",
            b"6 abc\n",
            b"10 path=\0a\n",
            b"10 size=1x\n",
            b"18446744073709551616 a=b\n",
        ];
        for bytes in bad {
            assert!(Pax::parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
