//! What part of its file system a mount shows (`/proc/PID/mountinfo`, proc(5)).

use std::collections::BTreeMap;
use std::fs;

/// By mount point, the path in its file system of what this process sees mounted there.
///
/// Nothing where it cannot be read.
#[must_use]
pub fn roots() -> BTreeMap<Vec<u8>, Vec<u8>> {
    let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let lines = text.split(|byte| *byte == b'\n');
    // Of several at one point the last is on top.
    lines.filter_map(point_and_root).collect()
}

fn point_and_root(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut fields = line.split(|byte| *byte == b' ').skip(3);
    let root = plain(fields.next()?);
    Some((plain(fields.next()?), root))
}

/// A field with its `\ooo` undone.
fn plain(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [byte, after @ ..] = rest {
        let escaped = (*byte == b'\\').then(|| after.first_chunk::<3>()).flatten();
        let value = escaped.and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match value {
            Some(value) => {
                bytes.push(value);
                rest = &after[3..];
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_line() {
        let of = |line: &str| point_and_root(line.as_bytes());
        let line = r"36 35 98:0 /a\040b/\134c /v\011w rw,noatime master:1 - ext4 /dev/root rw";
        assert_eq!(of(line), Some((b"/v\tw".to_vec(), br"/a b/\c".to_vec())));
        assert_eq!(of("36 35 98:0 /"), None);
        assert_eq!(plain(br"\9\04\"), br"\9\04\");
        assert_eq!(roots().get(&b"/proc"[..]), Some(&b"/".to_vec()));
    }
}
