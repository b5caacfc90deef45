//! Patched code runs like the original: sites and thunks as the kernel writes them, executed on the host with a stub
//! in place of the libOS's entry that does the real system call.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(
    unsafe_code,
    reason = "runs machine code it has put into memory itself"
)]

use core::arch::{asm, global_asm};

use husk_kernel::translate::decode::{Text, before, behind};
use husk_kernel::translate::thunk::{JUMP_LEN, Thunk, jump};

// husk_probe(entry, in, out): loads registers from `in`, calls `entry`, stores registers to `out`.
global_asm!(
    r#"
    .text
    .globl husk_probe
husk_probe:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    push %rdx
    push %rdi
    mov 0x00(%rsi), %rbx
    mov 0x08(%rsi), %rbp
    mov 0x10(%rsi), %r8
    mov 0x18(%rsi), %r9
    mov 0x20(%rsi), %r10
    mov 0x28(%rsi), %r12
    mov 0x30(%rsi), %r13
    mov 0x38(%rsi), %r14
    mov 0x40(%rsi), %r15
    mov 0x48(%rsi), %rdi
    mov 0x50(%rsi), %rdx
    mov 0x58(%rsi), %rsi
    call *(%rsp)
    push %rax
    mov 0x10(%rsp), %rax
    mov %rbx, 0x08(%rax)
    mov %rbp, 0x10(%rax)
    mov %r8, 0x18(%rax)
    mov %r9, 0x20(%rax)
    mov %r10, 0x28(%rax)
    mov %r12, 0x30(%rax)
    mov %r13, 0x38(%rax)
    mov %r14, 0x40(%rax)
    mov %r15, 0x48(%rax)
    mov %rdi, 0x50(%rax)
    mov %rdx, 0x58(%rax)
    mov %rsi, 0x60(%rax)
    mov %rcx, 0x68(%rax)
    popq (%rax)
    add $16, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
    "#,
    options(att_syntax)
);

type Registers = [u64; 14];
const RAX: usize = 0;
const RCX: usize = 13;

unsafe extern "C" {
    fn husk_probe(entry: u64, registers_in: &[u64; 12], registers_out: &mut Registers);
}

/// An anonymous page below 2 GiB, readable, writable and executable: the slot in it has an address a thunk can name.
fn code_page() -> u64 {
    let address: u64;
    // SAFETY: mmap(NULL, 64 KiB, RWX, PRIVATE | ANONYMOUS | 32BIT) touches nothing that exists.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") 9u64 => address,
            in("rdi") 0u64, in("rsi") 0x1_0000u64, in("rdx") 7u64,
            in("r10") 0x62u64, in("r8") u64::MAX, in("r9") 0u64,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    assert!(address < 1 << 31, "mmap: {:#x}", address);
    address
}

const SITE: u64 = 0x100;
const THUNK: u64 = 0x8000;
const STUB: u64 = 0xf000;
const SCRATCH: u64 = 0xf800;
const CALLS: u64 = 0xf808;
const SLOT: u64 = 0xf810;

/// A page with `code` at [`SITE`], and the stub.
struct Code {
    base: u64,
}

impl Code {
    fn new(code: &[u8]) -> Self {
        let this = Self { base: code_page() };
        let absolute = |offset: u64| ((this.base + offset) as u32).to_le_bytes();
        let mut stub = Vec::new();
        // mov %rcx, scratch; incq calls; syscall; mov scratch, %rcx; jmp *%rcx: as the libOS, nothing on the stack.
        stub.extend([0x48, 0x89, 0x0c, 0x25]);
        stub.extend(absolute(SCRATCH));
        stub.extend([0x48, 0xff, 0x04, 0x25]);
        stub.extend(absolute(CALLS));
        stub.extend([0x0f, 0x05]);
        stub.extend([0x48, 0x8b, 0x0c, 0x25]);
        stub.extend(absolute(SCRATCH));
        stub.extend([0xff, 0xe1]);
        this.put(STUB, &stub);
        this.put(SLOT, &(this.base + STUB).to_le_bytes());
        this.put(SITE, code);
        this
    }

    fn slot(&self) -> u64 {
        self.base + SLOT
    }

    fn put(&self, offset: u64, bytes: &[u8]) {
        let to = (self.base + offset) as *mut u8;
        // SAFETY: the 64 KiB at `base` are this test's own and writable; nothing runs in them now.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    fn calls(&self) -> u64 {
        // SAFETY: as above.
        unsafe { ((self.base + CALLS) as *const u64).read() }
    }

    fn run(&self, offset: u64) -> Registers {
        let mut registers = [0; 12];
        for (index, register) in registers.iter_mut().enumerate() {
            *register = 0x1111_0000_0000_0000 * (index as u64 % 15) + 0x2222 + index as u64;
        }
        let mut out = [0; 14];
        // SAFETY: the code at `offset` is a function that keeps to the calls made here: it clobbers only
        // rax, rcx, r11 and flags.
        unsafe { husk_probe(self.base + offset, &registers, &mut out) };
        out
    }
}

fn pid() -> u64 {
    u64::from(std::process::id())
}

/// `mov %rdi, -8(%rsp)`; the load; `syscall`; `mov -8(%rsp), %rdx`; `ret`: uses its red zone across the call.
fn function(load: &[u8]) -> Vec<u8> {
    let mut code = vec![0x48, 0x89, 0x7c, 0x24, 0xf8];
    code.extend(load);
    code.extend([0x0f, 0x05, 0x48, 0x8b, 0x54, 0x24, 0xf8, 0xc3]);
    code
}

const LOADS: [&[u8]; 2] = [&[0xb8, 0x27, 0, 0, 0], &[0x48, 0xc7, 0xc0, 0x27, 0, 0, 0]];

#[test]
fn pattern_1_runs_like_the_original() {
    for load in LOADS {
        let code = Code::new(&function(load));
        let before = code.run(SITE);
        assert_eq!(before[RAX], pid());
        assert_eq!(code.calls(), 0);

        let start = SITE + 5;
        let return_to = start + load.len() as u64 + 2;
        let thunk = Thunk::load_and_call(THUNK as i64, 39, return_to as i64, code.slot());
        code.put(THUNK, thunk.expect("near").bytes());
        let (bytes, len) = jump(start as i64, THUNK as i64, load.len()).expect("near");
        code.put(start, &bytes[..len]);

        let after = code.run(SITE);
        assert_eq!(code.calls(), 1, "the thunk was used");
        assert_eq!(after, before, "every register, rcx included");
        assert_eq!(after[RCX], code.base + return_to);
    }
}

#[test]
fn a_jump_straight_to_the_syscall_still_works() {
    for load in LOADS {
        let code = Code::new(&function(load));
        let start = SITE + 5;
        let syscall = start + load.len() as u64;
        let thunk = Thunk::load_and_call(THUNK as i64, 39, syscall as i64 + 2, code.slot());
        code.put(THUNK, thunk.expect("near").bytes());
        let (bytes, len) = jump(start as i64, THUNK as i64, load.len()).expect("near");
        code.put(start, &bytes[..len]);
        // mov %rdi, -8(%rsp); mov $39, %eax; jmp to the syscall
        const ELSEWHERE: u64 = 0x4000;
        let mut elsewhere = vec![0x48, 0x89, 0x7c, 0x24, 0xf8, 0xb8, 0x27, 0, 0, 0, 0xe9];
        let behind = ELSEWHERE + elsewhere.len() as u64 + 4;
        elsewhere.extend((syscall.wrapping_sub(behind) as u32).to_le_bytes());
        code.put(ELSEWHERE, &elsewhere);
        assert_eq!(code.run(ELSEWHERE)[RAX], pid());
        assert_eq!(code.calls(), 0, "by the instruction itself");
    }
}

#[test]
fn pattern_2_runs_like_the_original() {
    // mov $39, %eax; nop; syscall; cmp $-4095, %rax; jae 1f; mov -8(%rsp), %rdx; ret; 1: ud2
    let mut body = vec![0x48, 0x89, 0x7c, 0x24, 0xf8, 0xb8, 0x27, 0, 0, 0, 0x90];
    let syscall = SITE + body.len() as u64;
    let compare = [0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff];
    body.extend([0x0f, 0x05]);
    body.extend(compare);
    body.extend([0x73, 0x06, 0x48, 0x8b, 0x54, 0x24, 0xf8, 0xc3, 0x0f, 0x0b]);
    let code = Code::new(&body);
    let before = code.run(SITE);

    let text = Text {
        bytes: &body,
        syscall: (syscall - SITE) as usize,
        address: SITE,
    };
    let lengths = behind(&text, true).expect("can be displaced");
    let from = syscall as i64;
    let thunk =
        Thunk::call_and_continue(THUNK as i64, &compare, lengths, from, code.slot()).expect("near");
    code.put(THUNK, thunk.bytes());
    let (bytes, len) = jump(syscall as i64, THUNK as i64, 2 + compare.len()).expect("near");
    assert_eq!(len, JUMP_LEN + 3);
    code.put(syscall, &bytes[..len]);
    let after = code.run(SITE);
    assert_eq!(code.calls(), 1);
    assert_eq!(after, before, "every register, rcx included");
}

#[test]
fn pattern_3_runs_like_the_original() {
    // lea 0x100(%rip), %rsi; mov $39, %eax; mov %eax, %r9d; syscall
    let mut body = vec![0x48, 0x89, 0x7c, 0x24, 0xf8];
    body.extend([0x48, 0x8d, 0x35, 0x00, 0x01, 0, 0]);
    body.extend([0xb8, 0x27, 0, 0, 0, 0x41, 0x89, 0xc1]);
    let syscall = body.len();
    body.extend([0x0f, 0x05, 0x48, 0x8b, 0x54, 0x24, 0xf8, 0xc3]);
    let code = Code::new(&body);
    let before_patch = code.run(SITE);
    let mut padded = vec![0x90; 44];
    padded.extend(&body);
    let text = Text {
        bytes: &padded,
        syscall: 44 + syscall,
        address: SITE - 44,
    };
    let lengths = before(&text).expect("can be displaced");
    assert_eq!(lengths.iter().collect::<Vec<_>>(), [5, 3], "the nearest");
    let at = syscall - lengths.sum();
    let start = (SITE + at as u64) as i64;
    let moved = &body[at..syscall];
    let thunk = Thunk::run_and_call(THUNK as i64, moved, lengths, start, code.slot());
    code.put(THUNK, thunk.expect("near").bytes());
    let (bytes, len) = jump(start, THUNK as i64, lengths.first()).expect("near");
    code.put(start as u64, &bytes[..len]);
    let after = code.run(SITE);
    assert_eq!(code.calls(), 1);
    assert_eq!(after, before_patch, "every register, rcx included");
}

#[test]
fn a_thunk_works_wherever_the_mapping_lies() {
    let load = LOADS[0];
    let start = SITE + 5;
    let (bytes, len) = jump(start as i64, THUNK as i64, load.len()).expect("near");
    let codes: Vec<_> = (0..3).map(|_| Code::new(&function(load))).collect();
    let return_to = (start + load.len() as u64 + 2) as i64;
    let slot = codes[0].slot();
    let thunk = Thunk::load_and_call(THUNK as i64, 39, return_to, slot).expect("near");
    for code in &codes {
        code.put(THUNK, thunk.bytes());
        code.put(start, &bytes[..len]);
        let out = code.run(SITE);
        assert_eq!(out[RAX], pid());
        assert_eq!(out[RCX], code.base + return_to as u64);
    }
    assert_eq!(codes[0].calls(), 3, "all used the first one's slot");
}
