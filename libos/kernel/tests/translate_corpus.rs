//! The decision of `translate::decode` on real binaries, against linear disassembly from function starts.
//!
//! Two questions for each binary:
//! - its own `syscall` instructions: how many of pattern 1 are found, is any claimed that is none?
//! - every instruction whose bytes *end* like `mov $nr, %eax`, with a `syscall` put behind it: thousands of stores,
//!   `lea`s, `r8d` loads and displacements that must be told from the real thing.
//!
//! Function starts come from `.symtab`, `.dynsym` and `.eh_frame`; code that none of them covers is left out.
//! Run with `cargo test -p husk-kernel --release --test translate_corpus -- --ignored --nocapture`.

use std::path::{Path, PathBuf};
use std::process::Command;

use husk_kernel::translate::decode::{AFTER, BEFORE, Registers, Site, Text, classify};
use iced_x86::{Code, Decoder, DecoderOptions};

/// An executable segment's bytes and, for each, the length of the instruction that truly begins there.
struct Program {
    name: String,
    text: Vec<u8>,
    address: u64,
    truth: Vec<u8>,
}

fn u16_at(data: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes(
        data[at..at + 2].try_into().expect("2 bytes"),
    ))
}

fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(data[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(data: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(data[at..at + 8].try_into().expect("8 bytes"))
}

struct Section {
    kind: u32,
    flags: u64,
    address: u64,
    offset: usize,
    size: usize,
    name: String,
}

fn sections(data: &[u8]) -> Vec<Section> {
    let table = u64_at(data, 0x28) as usize;
    let (entry, count, names) = (u16_at(data, 0x3a), u16_at(data, 0x3c), u16_at(data, 0x3e));
    let header = |index: usize| &data[table + index * entry..][..entry];
    let names = u64_at(header(names), 0x18) as usize;
    (0..count)
        .map(|index| {
            let header = header(index);
            let name = &data[names + u32_at(header, 0) as usize..];
            let end = name.iter().position(|byte| *byte == 0).expect("NUL");
            Section {
                kind: u32_at(header, 4),
                flags: u64_at(header, 8),
                address: u64_at(header, 0x10),
                offset: u64_at(header, 0x18) as usize,
                size: u64_at(header, 0x20) as usize,
                name: String::from_utf8_lossy(&name[..end]).into_owned(),
            }
        })
        .collect()
}

/// Start and end addresses of functions.
fn functions(data: &[u8], sections: &[Section]) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    for section in sections {
        let bytes = || &data[section.offset..section.offset + section.size];
        match section.kind {
            // SHT_SYMTAB, SHT_DYNSYM
            2 | 11 => {
                for symbol in bytes().chunks_exact(24) {
                    let (start, size) = (u64_at(symbol, 8), u64_at(symbol, 16));
                    if symbol[4] & 15 == 2 && size > 0 {
                        found.push((start, start + size));
                    }
                }
            }
            _ if section.name == ".eh_frame" => {
                let mut at = 0;
                while at + 16 <= section.size {
                    let length = u32_at(bytes(), at) as usize;
                    if length == 0 {
                        at += 4;
                        continue;
                    }
                    // An FDE of a CIE with the usual encoding: pcrel | sdata4.
                    if u32_at(bytes(), at + 4) != 0 {
                        let here = section.address + at as u64 + 8;
                        let start = here
                            .wrapping_add_signed(i64::from(u32_at(bytes(), at + 8).cast_signed()));
                        found.push((start, start + u64::from(u32_at(bytes(), at + 12))));
                    }
                    at += 4 + length;
                }
            }
            _ => {}
        }
    }
    found
}

fn load(path: &Path) -> Option<Program> {
    let data = std::fs::read(path).ok()?;
    let sections = sections(&data);
    let code: Vec<_> = sections
        .iter()
        .filter(|section| section.kind == 1 && section.flags & 4 != 0)
        .collect();
    let (first, last) = (code.first()?, code.last()?);
    let size = (last.address - first.address) as usize + last.size;
    let mut text = vec![0; size];
    for section in &code {
        let at = (section.address - first.address) as usize;
        text[at..at + section.size]
            .copy_from_slice(&data[section.offset..section.offset + section.size]);
    }
    let address = first.address;
    let mut truth = vec![0u8; size];
    for (start, end) in functions(&data, &sections) {
        if start < address || end > address + size as u64 || start >= end {
            continue;
        }
        let (from, to) = ((start - address) as usize, (end - address) as usize);
        let mut decoder = Decoder::with_ip(64, &text[from..to], start, DecoderOptions::NONE);
        while decoder.can_decode() {
            let at = from + decoder.position();
            let instruction = decoder.decode();
            if instruction.code() == Code::INVALID {
                break;
            }
            truth[at] = instruction.len() as u8;
        }
    }
    // Where two functions' instructions overlap (labels in the middle of functions, moved code) nothing is known.
    let overlaps: Vec<usize> = (0..size)
        .filter(|at| (1..usize::from(truth[*at])).any(|byte| truth.get(at + byte) > Some(&0)))
        .collect();
    for at in overlaps {
        truth[at.saturating_sub(BEFORE)..(at + BEFORE).min(size)].fill(0);
    }
    Some(Program {
        name: path.display().to_string(),
        text,
        address,
        truth,
    })
}

/// The number that bytes ending like a load of it would load.
fn lookalike(before: &[u8]) -> Option<u32> {
    let (head, immediate) = before.split_last_chunk::<4>()?;
    let nr = u32::from_le_bytes(*immediate);
    let matches = matches!(head, [.., 0xb8] | [.., 0x48, 0xc7, 0xc0]);
    (matches && i32::try_from(nr).is_ok()).then_some(nr)
}

/// Whether the instruction before `end` truly is `mov $nr, %eax` or `mov $nr, %rax`.
fn truly_pattern1(program: &Program, end: usize) -> bool {
    let text = &program.text;
    (text[end - 5] == 0xb8 && program.truth[end - 5] == 5)
        || (text[end - 7..].starts_with(&[0x48, 0xc7, 0xc0]) && program.truth[end - 7] == 7)
}

#[derive(Default)]
struct Counts {
    accepted: usize,
    missed: usize,
    wrong: usize,
    rightly_rejected: usize,
}

impl Counts {
    fn add(&mut self, program: &Program, end: usize, truth: bool, site: Site) {
        match (truth, matches!(site, Site::Pattern1 { .. })) {
            (true, true) => self.accepted += 1,
            (true, false) => {
                self.missed += 1;
                if self.missed <= 5 && std::env::var_os("SHOW").is_some() {
                    let at = program.address + end as u64;
                    println!(
                        "  missed {at:#x}: {:02x?}",
                        &program.text[end - 24..end + 2]
                    );
                }
            }
            (false, true) => {
                self.wrong += 1;
                let at = program.address + end as u64;
                println!("  WRONG {at:#x}: {:02x?}", &program.text[end - 24..end + 2]);
            }
            (false, false) => self.rightly_rejected += 1,
        }
    }
}

fn own_sites(program: &Program) -> Counts {
    let mut counts = Counts::default();
    let mut others = std::collections::BTreeMap::<String, usize>::new();
    for at in BEFORE..program.text.len() - AFTER {
        if !program.text[at..].starts_with(&[0x0f, 0x05]) || program.truth[at] != 2 {
            continue;
        }
        let from = at - BEFORE;
        let text = Text {
            bytes: &program.text[from..at + AFTER],
            syscall: BEFORE,
            address: program.address + from as u64,
        };
        let nr = lookalike(&program.text[..at]);
        let registers = Registers {
            rax: u64::from(nr.unwrap_or(u32::MAX)),
            r8: 0,
        };
        let site = classify(&text, &registers);
        if site == Site::Restorer {
            continue;
        }
        let truth = truly_pattern1(program, at);
        counts.add(program, at, truth, site);
        if !truth {
            let name = format!("{site:?}");
            *others
                .entry(name.split(' ').next().expect("one").to_owned())
                .or_default() += 1;
        }
    }
    println!("  the rest: {others:?}");
    counts
}

fn put_behind_lookalikes(program: &Program) -> Counts {
    let mut counts = Counts::default();
    for at in BEFORE..program.text.len() - AFTER {
        if program.truth[at] == 0 {
            continue;
        }
        let Some(nr) = lookalike(&program.text[..at]) else {
            continue;
        };
        // What truly ends here must be known.
        let known = (1..=15).any(|len| usize::from(program.truth[at - len]) == len);
        if !known || nr == 15 {
            continue;
        }
        let from = at - BEFORE;
        let mut bytes = program.text[from..at].to_vec();
        bytes.extend([0x0f, 0x05]);
        bytes.extend(&program.text[at..at + AFTER - 2]);
        let text = Text {
            bytes: &bytes,
            syscall: BEFORE,
            address: program.address + from as u64,
        };
        let registers = Registers {
            rax: u64::from(nr),
            r8: 0,
        };
        let site = classify(&text, &registers);
        counts.add(program, at, truly_pattern1(program, at), site);
    }
    counts
}

/// A static glibc program, built here so that its symbols are there.
fn static_program() -> Option<PathBuf> {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (directory.join("static.c"), directory.join("static"));
    std::fs::write(
        &source,
        "#include <stdio.h>\n#include <pthread.h>\n#include <sys/wait.h>\n#include <unistd.h>\n\
         static void *f(void *p) { puts(\"hi\"); return p; }\n\
         int main(void) { pthread_t t; pthread_create(&t, 0, f, 0); pthread_join(t, 0);\n\
         if (fork() == 0) execlp(\"true\", \"true\", (char *)0); wait(0); return 0; }\n",
    )
    .ok()?;
    let built = Command::new("gcc")
        .args(["-static", "-O2", "-o"])
        .args([&program, &source])
        .status()
        .ok()?;
    built.success().then_some(program)
}

#[test]
#[ignore = "a measurement over the machine's own binaries; see the file's head"]
fn real_binaries() {
    let mut paths = vec![
        PathBuf::from("/bin/busybox"),
        PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
        PathBuf::from("/lib64/ld-linux-x86-64.so.2"),
    ];
    paths.extend(static_program());
    paths.extend(
        std::env::var("MORE")
            .iter()
            .flat_map(|more| more.split(':').map(PathBuf::from).collect::<Vec<_>>()),
    );
    let mut wrong = 0;
    for path in paths {
        let Some(program) = load(&path) else {
            println!("{}: not here", path.display());
            continue;
        };
        println!("{}", program.name);
        for (name, counts) in [
            ("its own syscalls", own_sites(&program)),
            (
                "syscall put behind lookalikes",
                put_behind_lookalikes(&program),
            ),
        ] {
            println!(
                "  {name}: {} accepted, {} rejected although good, {} accepted although wrong, {} rightly rejected",
                counts.accepted, counts.missed, counts.wrong, counts.rightly_rejected
            );
            wrong += counts.wrong;
        }
    }
    assert_eq!(wrong, 0, "sites were accepted that are no pattern 1");
}
