//! Names from archives, made fit for one line of an error message.

/// Longest name shown; hostile archives hold names of a megabyte.
const SHOWN_CHARS: usize = 200;

/// `bytes` in quotes, control characters escaped, cut when very long. Archive names may hold
/// newlines and terminal escapes, which must not reach the user's terminal.
pub(crate) fn shown(bytes: impl AsRef<[u8]>) -> String {
    let text = String::from_utf8_lossy(bytes.as_ref());
    let mut chars = text.chars();
    let head: String = chars.by_ref().take(SHOWN_CHARS).collect();
    let more = if chars.next().is_some() { "..." } else { "" };
    format!("\"{}{more}\"", head.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn control_characters_and_length_are_tamed() {
        assert_eq!(shown("a\n\u{1b}[31m"), "\"a\\n\\u{1b}[31m\"");
        assert_eq!(shown([0xff, b'x']), "\"\u{fffd}x\"");
        assert!(shown(vec![b'y'; 10_000]).len() < 300);
    }
}
