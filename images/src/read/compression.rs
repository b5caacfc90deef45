//! Decompression by magic number.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The first bytes, then the rest.
type Input<R> = BufReader<io::Chain<Cursor<Vec<u8>>, R>>;

/// The expanded form of a stream, whatever it is compressed with.
pub(super) enum Expand<R: Read> {
    Plain(Input<R>),
    Gzip(Box<MultiGzDecoder<Input<R>>>),
    Zstd(Box<Zstd<Input<R>>>),
}

/// Gzip (RFC 1952), zstd frames and skippable frames (RFC 8878).
pub(super) fn is_compressed(head: &[u8]) -> bool {
    is_gzip(head) || is_zstd(head)
}

fn is_gzip(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b, 8])
}

fn is_zstd(head: &[u8]) -> bool {
    head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || (head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18])
}

impl<R: Read> Expand<R> {
    /// Looks at the first bytes. The magic decides, not the media type: content is checked against
    /// its digests either way, and tools are known to mislabel layers.
    pub(super) fn new(mut reader: R) -> io::Result<Self> {
        let mut head = Vec::with_capacity(4);
        reader.by_ref().take(4).read_to_end(&mut head)?;
        let (gzip, zstd) = (is_gzip(&head), is_zstd(&head));
        let input = BufReader::with_capacity(64 * 1024, Cursor::new(head).chain(reader));
        Ok(if gzip {
            Self::Gzip(Box::new(MultiGzDecoder::new(input)))
        } else if zstd {
            Self::Zstd(Box::new(Zstd {
                input,
                decoder: FrameDecoder::new(),
                in_frame: false,
            }))
        } else {
            Self::Plain(input)
        })
    }
}

impl<R: Read> Read for Expand<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(r) => r.read(buf),
            Self::Gzip(r) => r.read(buf),
            Self::Zstd(r) => r.read(buf),
        }
    }
}

/// All frames of a zstd stream in a row. Layers in the "zstd:chunked" form have one frame per file
/// and skippable frames at the end.
pub(super) struct Zstd<R> {
    input: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    /// Enters the next frame; `false` at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.input.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.input) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let mut skipped = self.input.by_ref().take(length.into());
                    if io::copy(&mut skipped, &mut io::sink())? != u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(e) => return Err(corrupt(e)),
            }
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame {
                if !self.next_frame()? {
                    return Ok(0);
                }
                self.in_frame = true;
            }
            if self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(corrupt)?;
            }
            let n = self.decoder.read(buf)?;
            if n > 0 {
                return Ok(n);
            }
            self.in_frame = !self.decoder.is_finished();
        }
    }
}

fn corrupt(error: FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{gzip, zstd};

    fn expand(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Expand::new(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_form_and_several_members() {
        let text: Vec<u8> = (0..300_000_u32)
            .map(|i| (i.wrapping_mul(i) / 7) as u8)
            .collect();
        assert_eq!(expand(&text).unwrap(), text);
        assert_eq!(expand(b"").unwrap(), b"");
        assert_eq!(expand(b"ab").unwrap(), b"ab");
        let double = [text.clone(), text.clone()].concat();
        assert_eq!(
            expand(&[gzip(&text), gzip(&text)].concat()).unwrap(),
            double
        );
        let skippable = [0x52, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 9, 9, 9].to_vec();
        let frames = [
            zstd(&text),
            skippable.clone(),
            zstd(b""),
            zstd(&text),
            skippable.clone(),
        ];
        assert_eq!(expand(&frames.concat()).unwrap(), double);
        assert_eq!(expand(&[skippable, zstd(&text)].concat()).unwrap(), text);
    }

    #[test]
    fn cut_streams_are_errors() {
        for packed in [gzip(b"hello hello hello"), zstd(b"hello hello hello")] {
            for len in 4..packed.len() {
                assert!(expand(&packed[..len]).is_err(), "{len}");
            }
        }
    }

    #[test]
    fn damaged_streams_never_panic() {
        let text: Vec<u8> = (0..20_000_u32)
            .map(|i| (i.wrapping_mul(i) / 91) as u8)
            .collect();
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for packed in [gzip(&text), zstd(&text)] {
            for _ in 0..600 {
                let mut damaged = packed.clone();
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                // The first bytes, where the headers are, get their share.
                let range = if state & 1 == 0 { 40 } else { damaged.len() };
                damaged[(state >> 16) as usize % range] = (state >> 8) as u8;
                let mut out = Vec::new();
                if let Ok(reader) = Expand::new(damaged.as_slice()) {
                    let _ = reader.take(1 << 20).read_to_end(&mut out);
                }
            }
        }
    }

    #[test]
    fn what_the_usual_tools_write() {
        use std::process::{Command, Stdio};
        // Text with repetitions near and far, so that every kind of block occurs.
        let line = |i: u32| format!("{} {}\n", i % 1000, i.wrapping_mul(2_654_435_761) >> 20);
        let text: Vec<u8> = (0..200_000).flat_map(|i| line(i).into_bytes()).collect();
        for command in [
            "gzip -1",
            "gzip -9",
            "zstd -1",
            "zstd -19 --long=24",
            "zstd --no-check",
        ] {
            let mut words = command.split(' ');
            let spawned = Command::new(words.next().unwrap())
                .args(words)
                .arg("-c")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn();
            let Ok(mut child) = spawned else {
                continue; // Not installed.
            };
            let (mut stdin, text) = (child.stdin.take().unwrap(), &text);
            let packed = std::thread::scope(|scope| {
                scope.spawn(move || {
                    io::Write::write_all(&mut stdin, text).unwrap();
                    drop(stdin);
                });
                child.wait_with_output().unwrap().stdout
            });
            assert!(packed.len() < text.len(), "{command}");
            assert_eq!(&expand(&packed).unwrap(), text, "{command}");
        }
    }
}
