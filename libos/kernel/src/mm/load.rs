//! Loading a program (`execve(2)`'s part that is memory).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use husk_abi::boundary::layout::{PAGE_SIZE, USER_END};
use husk_abi::linux::auxvec;
use husk_hal::{cpu, fpu, phys};

use super::counts::{self, Event};
use super::elf::{self, Header, Segment};
use super::fault::Access;
use super::frames::Frames;
use super::layout::{Kind, Layout};
use super::map::{Mapping, Placement};
use super::space::{AddressSpace, Limits, Places, page_down, page_up};
use super::vma::{Backing, Flags, Object, Prot};
use super::{Mappable, stack};
use crate::fs::{FileRef, random};
use crate::process::Credentials;
use crate::process::prctl::ADDR_NO_RANDOMIZE;
use crate::{Errno, Result, Thread};

/// What the stack has below its contents from the start.
const STACK_EXPAND_BYTES: u64 = 128 << 10;
/// How much of a program's code, and of its data, is mapped before it runs: cheaper than the faults.
const AHEAD_CODE_BYTES: u64 = 2 << 20;
const AHEAD_DATA_BYTES: u64 = 128 << 10;
/// `AT_HWCAP2`: programs may use `rdfsbase` and its like.
const HWCAP2_FSGSBASE: u64 = 1 << 1;
/// `AT_CLKTCK`.
const CLOCK_TICKS: u64 = 100;
/// A signal frame without its vector state: `rt_sigframe`, alignment and the red zone's neighbour.
const SIGNAL_FRAME_BYTES: u64 = 440 + 64 + 16;

/// A program to load.
pub struct Program<'a> {
    /// Its file, opened for execution.
    pub exe: &'a FileRef,
    /// Arguments, without NULs.
    pub argv: &'a [Vec<u8>],
    /// Environment, without NULs.
    pub envp: &'a [Vec<u8>],
    /// The path it was called by (`AT_EXECFN`).
    pub execfn: &'a [u8],
    /// Opens the interpreter the file names, with execve's checks.
    pub open_interpreter: &'a mut dyn FnMut(&[u8]) -> Result<FileRef>,
    /// The vDSO's image.
    pub vdso: Option<Arc<dyn Mappable>>,
    /// The ids it will run with.
    pub credentials: &'a Credentials,
    /// Whether it gains privileges by running (`AT_SECURE`).
    pub secure: bool,
}

/// A program in memory.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its address space, not active anywhere yet.
    pub mm: Arc<AddressSpace>,
    /// Where to start.
    pub entry: u64,
    /// Initial stack pointer.
    pub stack: u64,
}

/// Loads a program into a new address space.
///
/// # Errors
/// As `execve(2)`: `ENOEXEC` (no program for this machine), `EINVAL`, `ELIBBAD` (bad interpreter), `E2BIG`, `ENOMEM`, and what
/// opening the interpreter gives.
pub fn load(t: &Thread, program: Program<'_>) -> Result<Loaded> {
    let mappable = |file: &FileRef| {
        Ok(Image {
            mappable: file.ops.mappable().map_err(|_| Errno::ENOEXEC)?,
            path: Arc::from(file.path.as_slice()),
        })
    };
    let Program {
        exe,
        open_interpreter,
        ..
    } = program;
    let image = mappable(exe)?;
    let maker = t.mm();
    let setup = Setup {
        argv: program.argv,
        envp: program.envp,
        execfn: program.execfn,
        vdso: program.vdso,
        credentials: program.credentials,
        secure: program.secure,
        limits: Limits::of(&t.process),
        randomize: program.secure || t.personality() & ADDR_NO_RANDOMIZE == 0,
    };
    let mut load = || {
        load_images(
            &maker,
            &image,
            &mut |path| mappable(&open_interpreter(path)?),
            &setup,
        )
    };
    let loaded = match load() {
        Err(Errno::ENOMEM) if maker.shelf.clear() => load(),
        result => result,
    }?;
    loaded.mm.set_executable(exe.clone());
    Ok(loaded)
}

/// A file as the loader sees it.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub mappable: Arc<dyn Mappable>,
    pub path: Arc<[u8]>,
}

/// Everything about a new program but its files.
pub(super) struct Setup<'a> {
    pub argv: &'a [Vec<u8>],
    pub envp: &'a [Vec<u8>],
    pub execfn: &'a [u8],
    pub vdso: Option<Arc<dyn Mappable>>,
    pub credentials: &'a Credentials,
    pub secure: bool,
    pub limits: Limits,
    /// Whether addresses are random.
    pub randomize: bool,
}

/// A parsed file.
struct Parsed {
    header: Header,
    program: elf::Program,
}

impl Image {
    /// Fills `bytes` from `offset` on.
    fn read(&self, frames: &Frames, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let end = offset
            .checked_add(bytes.len() as u64)
            .ok_or(Errno::ENOEXEC)?;
        if end > self.mappable.size_bytes() {
            return Err(Errno::ENOEXEC);
        }
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let in_page = (at % PAGE_SIZE) as usize;
            let len = (PAGE_SIZE as usize - in_page).min(bytes.len() - done);
            let frame = self.mappable.page(at / PAGE_SIZE, false)?;
            phys::read(frame, in_page, &mut bytes[done..done + len]);
            frames.put(frame);
            done += len;
        }
        Ok(())
    }

    fn parse(&self, frames: &Frames) -> Result<Parsed> {
        let mut bytes = [0; elf::HEADER_BYTES];
        self.read(frames, 0, &mut bytes)?;
        let header = Header::parse(&bytes)?;
        let mut bytes = alloc::vec![0; header.phnum * elf::PHENT_BYTES];
        self.read(frames, header.phoff, &mut bytes)?;
        let program = elf::Program::parse(&bytes)?;
        Ok(Parsed { header, program })
    }

    fn interpreter_path(&self, frames: &Frames, parsed: &Parsed) -> Result<Option<Vec<u8>>> {
        let Some((offset, len)) = parsed.program.interpreter else {
            return Ok(None);
        };
        let mut path = alloc::vec![0; len];
        self.read(frames, offset, &mut path)?;
        if path.pop() != Some(0) {
            return Err(Errno::ENOEXEC);
        }
        let end = path.iter().position(|byte| *byte == 0);
        path.truncate(end.unwrap_or(path.len()));
        Ok(Some(path))
    }
}

/// An address space for a program, beside `maker`'s: with the page tables and the layout of an earlier run, or new ones.
fn make_space(maker: &AddressSpace, kind: Kind) -> Result<(Arc<AddressSpace>, Arc<Layout>)> {
    let (table, layout) = match maker.shelf.take_for_exec(&kind) {
        Some((table, layout)) => (Some(table), layout),
        None => (None, Arc::new(Layout::new(kind))),
    };
    counts::count(if table.is_some() {
        Event::ExecKept
    } else {
        Event::ExecNew
    });
    layout.begin_run();
    let space = AddressSpace::beside(maker.frames, maker.cpus, maker.shelf.clone(), table)?;
    space.with(|state| state.layout = Some(layout.clone()));
    Ok((space, layout))
}

/// Loads a program into an address space beside `maker`'s.
pub(super) fn load_images(
    maker: &AddressSpace,
    exe: &Image,
    open_interpreter: &mut dyn FnMut(&[u8]) -> Result<Image>,
    setup: &Setup<'_>,
) -> Result<Loaded> {
    let frames = maker.frames;
    let main = exe.parse(frames)?;
    stack::check_size(setup.argv, setup.envp, setup.limits.stack)?;
    let interpreter = match exe.interpreter_path(frames, &main)? {
        Some(path) => {
            let image = open_interpreter(&path)?;
            let parsed = image.parse(frames).map_err(|errno| {
                if errno == Errno::ENOMEM {
                    errno
                } else {
                    Errno::ELIBBAD
                }
            })?;
            Some((image, parsed))
        }
        None => None,
    };

    let kind = Kind {
        program: exe.mappable.identity(),
        interpreter: interpreter
            .as_ref()
            .map(|(image, _)| image.mappable.identity()),
        is_dyn: main.header.is_dyn,
        align: main.program.align(),
        start: main.program.span().start,
        stack_limit: setup.limits.stack,
        randomize: setup.randomize,
    };
    let (space, layout) = make_space(maker, kind)?;
    let (stack_top, mmap_base, bias) = (layout.stack_top, layout.mmap_base, layout.bias);
    space.update_places(|places| places.mmap_base = mmap_base);

    let mut tails = Vec::new();
    let mut places = map_segments(&space, exe, &main.program, bias, setup, &mut tails)?;
    places.mmap_base = mmap_base;

    let (entry, interpreter_base) = match &interpreter {
        Some((image, parsed)) => {
            let base = map_interpreter(&space, image, parsed, setup, &mut tails)?;
            (parsed.header.entry.wrapping_add(base), base)
        }
        None => (main.header.entry.wrapping_add(bias), 0),
    };
    if entry >= USER_END {
        return Err(Errno::EINVAL);
    }
    if let Some(vdso) = &setup.vdso {
        places.vdso = map_vdso(&space, vdso, setup)?;
    }
    places.start_brk += layout.brk_gap;
    places.brk = places.start_brk;

    let auxv = auxiliary_vector(&main, bias, interpreter_base, places.vdso, setup);
    let mut random_bytes = [0; 16];
    random::fill(&mut random_bytes);
    let image = stack::build(
        stack_top,
        &stack::Contents {
            argv: setup.argv,
            envp: setup.envp,
            execfn: setup.execfn,
            random: random_bytes,
            shift: layout.stack_shift,
            auxv: &auxv,
        },
    );
    map_stack(
        &space,
        stack_top,
        &image,
        main.program.executable_stack,
        setup,
    )?;
    // All areas are there: what kept page tables map is made to agree. Only now may anything be written.
    space.adopt();
    for tail in tails {
        zero(&space, tail)?;
    }
    if space.write_bytes(image.pointer, &image.bytes)? < image.bytes.len() {
        return Err(Errno::EFAULT);
    }
    places.start_stack = image.pointer;
    places.arg_start = image.arg_start;
    places.arg_end = image.arg_end;
    places.env_start = image.env_start;
    places.env_end = image.env_end;
    places.auxv_start = image.auxv_start;
    places.auxv_bytes = image.auxv_bytes;
    space.update_places(|all| *all = places);
    map_ahead(&space, &main.program, bias);
    if let Some(vdso) = &setup.vdso {
        let pages = page_up(vdso.size_bytes()).ok_or(Errno::ENOMEM)?;
        // What cannot be mapped ahead is faulted in.
        let _ = space.populate(places.vdso..places.vdso + pages, Access::Read);
    }
    Ok(Loaded {
        mm: space,
        entry,
        stack: image.pointer,
    })
}

/// Maps all segments at `bias` and says where they lie; the heap starts behind the last.
fn map_segments(
    space: &AddressSpace,
    image: &Image,
    program: &elf::Program,
    bias: u64,
    setup: &Setup<'_>,
    tails: &mut Vec<Range<u64>>,
) -> Result<Places> {
    let mut places = Places {
        start_code: u64::MAX,
        ..Places::default()
    };
    for segment in &program.segments {
        tails.extend(map_segment(space, image, segment, bias, setup)?);
        let start = segment.vaddr.wrapping_add(bias);
        let file_end = start + segment.file_bytes;
        if segment.prot.contains(Prot::EXEC) {
            places.start_code = places.start_code.min(start);
            places.end_code = places.end_code.max(file_end);
        }
        places.start_data = places.start_data.max(start);
        places.end_data = places.end_data.max(file_end);
        let end = page_up(start + segment.mem_bytes).ok_or(Errno::EINVAL)?;
        places.start_brk = places.start_brk.max(end);
    }
    if places.start_code == u64::MAX {
        places.start_code = 0;
    }
    Ok(places)
}

/// Maps a segment; returns what must be zeroed, if anything.
fn map_segment(
    space: &AddressSpace,
    image: &Image,
    segment: &Segment,
    bias: u64,
    setup: &Setup<'_>,
) -> Result<Option<Range<u64>>> {
    let start = segment.vaddr.wrapping_add(bias);
    if start >= USER_END || segment.mem_bytes > USER_END - start {
        return Err(Errno::ENOMEM);
    }
    let end = page_up(start + segment.mem_bytes).ok_or(Errno::ENOMEM)?;
    let file_end = start + segment.file_bytes;
    let file_pages_end = if segment.file_bytes == 0 {
        page_down(start)
    } else {
        page_up(file_end).ok_or(Errno::ENOMEM)?
    };
    let map = |range: Range<u64>, backing| {
        if range.is_empty() {
            return Ok(());
        }
        let mapping = Mapping {
            prot: segment.prot,
            max_prot: Prot::all(),
            flags: Flags::empty(),
            backing,
        };
        let at = Placement::Fixed(range.start);
        space
            .map(at, range.end - range.start, mapping, &setup.limits)
            .map(drop)
    };
    map(
        page_down(start)..file_pages_end,
        Backing::Object(Object {
            mappable: image.mappable.clone(),
            offset: page_down(segment.offset),
            path: image.path.clone(),
            thunk_base: None,
        }),
    )?;
    map(file_pages_end..end, Backing::Anonymous)?;
    // The rest of the last file page belongs to the zeros, if the program may write there at all.
    let tail = file_end..file_pages_end.max(file_end);
    let zeroed = segment.mem_bytes > segment.file_bytes && segment.prot.contains(Prot::WRITE);
    Ok((zeroed && !tail.is_empty()).then_some(tail))
}

/// Writes zeros to `range`, which lies in one page.
fn zero(space: &AddressSpace, range: Range<u64>) -> Result<()> {
    let zeros = alloc::vec![0; (range.end - range.start) as usize];
    if space.write_bytes(range.start, &zeros)? < zeros.len() {
        return Err(Errno::EFAULT);
    }
    Ok(())
}

/// Maps the interpreter among the other mappings; returns its base.
fn map_interpreter(
    space: &AddressSpace,
    image: &Image,
    parsed: &Parsed,
    setup: &Setup<'_>,
    tails: &mut Vec<Range<u64>>,
) -> Result<u64> {
    if !parsed.header.is_dyn {
        map_segments(space, image, &parsed.program, 0, setup, tails)?;
        return Ok(0);
    }
    let span = parsed.program.span();
    let align = parsed.program.align();
    let len = (span.end - span.start)
        .checked_add(align - PAGE_SIZE)
        .ok_or(Errno::ENOMEM)?;
    // Room for it in one piece.
    let whole = Mapping::anonymous(Prot::empty());
    let at = space
        .with(|state| state.find_place(len, &whole))
        .ok_or(Errno::ENOMEM)?;
    let start = at.next_multiple_of(align) + span.start % align;
    let bias = start.wrapping_sub(span.start);
    map_segments(space, image, &parsed.program, bias, setup, tails)?;
    Ok(bias)
}

fn map_vdso(space: &AddressSpace, vdso: &Arc<dyn Mappable>, setup: &Setup<'_>) -> Result<u64> {
    let mapping = Mapping {
        prot: Prot::READ | Prot::EXEC,
        max_prot: Prot::all(),
        flags: Flags::empty(),
        backing: Backing::Object(Object {
            mappable: vdso.clone(),
            offset: 0,
            path: Arc::from(&b"[vdso]"[..]),
            thunk_base: None,
        }),
    };
    let len = vdso.size_bytes();
    let at = space.map(Placement::Hint(0), len, mapping, &setup.limits)?;
    Ok(at)
}

/// Maps the stack that `image` will be written to.
fn map_stack(
    space: &AddressSpace,
    top: u64,
    image: &stack::StackImage,
    executable: bool,
    setup: &Setup<'_>,
) -> Result<()> {
    let mut prot = Prot::READ | Prot::WRITE;
    prot.set(Prot::EXEC, executable);
    let used = page_down(image.pointer);
    let room = setup.limits.stack.min(top - used + STACK_EXPAND_BYTES);
    let start = page_down(top - room.max(top - used));
    let mapping = Mapping {
        flags: Flags::GROWSDOWN,
        ..Mapping::anonymous(prot)
    };
    let at = Placement::FixedNoReplace(start);
    space.map(at, top - start, mapping, &setup.limits).map(drop)
}

fn auxiliary_vector(
    main: &Parsed,
    bias: u64,
    interpreter_base: u64,
    vdso: u64,
    setup: &Setup<'_>,
) -> Vec<(u32, u64)> {
    let ids = setup.credentials;
    let phdr = match main.program.phdr_address(&main.header) {
        0 => 0,
        address => address.wrapping_add(bias),
    };
    let signal_stack = (fpu::size_bytes() as u64 + SIGNAL_FRAME_BYTES).next_multiple_of(16);
    let mut auxv = Vec::with_capacity(24);
    if vdso != 0 {
        auxv.push((auxvec::AT_SYSINFO_EHDR, vdso));
    }
    auxv.extend([
        (auxvec::AT_MINSIGSTKSZ, signal_stack),
        (auxvec::AT_HWCAP, u64::from(cpu::hwcap())),
        (auxvec::AT_PAGESZ, PAGE_SIZE),
        (auxvec::AT_CLKTCK, CLOCK_TICKS),
        (auxvec::AT_PHDR, phdr),
        (auxvec::AT_PHENT, elf::PHENT_BYTES as u64),
        (auxvec::AT_PHNUM, main.header.phnum as u64),
        (auxvec::AT_BASE, interpreter_base),
        (auxvec::AT_FLAGS, 0),
        (auxvec::AT_ENTRY, main.header.entry.wrapping_add(bias)),
        (auxvec::AT_UID, u64::from(ids.uid)),
        (auxvec::AT_EUID, u64::from(ids.euid)),
        (auxvec::AT_GID, u64::from(ids.gid)),
        (auxvec::AT_EGID, u64::from(ids.egid)),
        (auxvec::AT_SECURE, u64::from(setup.secure)),
        (auxvec::AT_HWCAP2, HWCAP2_FSGSBASE),
    ]);
    auxv
}

/// Maps what the program is about to touch anyway.
fn map_ahead(space: &AddressSpace, program: &elf::Program, bias: u64) {
    for segment in &program.segments {
        let start = page_down(segment.vaddr.wrapping_add(bias));
        let end = segment.end().wrapping_add(bias);
        let (limit, access) = if segment.prot.contains(Prot::WRITE) {
            (AHEAD_DATA_BYTES, Access::Write)
        } else if segment.prot.contains(Prot::EXEC) {
            (AHEAD_CODE_BYTES, Access::Execute)
        } else {
            continue;
        };
        let end = end.min(start + limit).next_multiple_of(PAGE_SIZE);
        // What cannot be mapped ahead is faulted in, or a fault then.
        let _ = space.populate(start..end, access);
        if access == Access::Execute {
            space.map_all_thunks(start);
        }
    }
}
