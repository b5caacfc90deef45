//! The ways in and out: system calls (trapped and translated), exceptions, interrupts, the gate.
//!
//! Every way in ends with a [`TrapFrame`](crate::trap::TrapFrame) on the current thread's stack and a call
//! into Rust. An interrupt must find either a whole user context or the libOS; the labels here bound the
//! few instructions where neither is true, and `upcall.rs` knows what each range means.

use core::arch::global_asm;

use husk_abi::boundary::layout::{
    PERCPU_EXCEPTION_STACK_TOP, PERCPU_INTERRUPT_STACK_TOP, selector,
};

use super::cpu::{CR2, KSTACK_TOP, SCRATCH_R11, SCRATCH_RAX, SCRATCH_RCX, SCRATCH_RSP, WORK};
use crate::trap::{ENTRY_TRANSLATED, ENTRY_TRAPPED, EXIT_FULL};

/// Flags no libOS code may run with: TF, DF, AC. Also the value of `MSR_SYSCALL_MASK`.
pub(super) const ENTRY_FLAGS: u64 = 0x4_0500;

// --- System calls -----------------------------------------------------------------------------------
global_asm!(
    r#"
    .macro PUSH_REGS
        push %rdi
        push %rsi
        push %rdx
        push %rcx
        push %rax
        push %r8
        push %r9
        push %r10
        push %r11
        push %rbx
        push %rbp
        push %r12
        push %r13
        push %r14
        push %r15
    .endm
    .macro LOAD_REGS
        mov 0x00(%rsp), %r15
        mov 0x08(%rsp), %r14
        mov 0x10(%rsp), %r13
        mov 0x18(%rsp), %r12
        mov 0x20(%rsp), %rbp
        mov 0x28(%rsp), %rbx
        mov 0x30(%rsp), %r11
        mov 0x38(%rsp), %r10
        mov 0x40(%rsp), %r9
        mov 0x48(%rsp), %r8
        mov 0x50(%rsp), %rax
        mov 0x58(%rsp), %rcx
        mov 0x60(%rsp), %rdx
        mov 0x68(%rsp), %rsi
        mov 0x70(%rsp), %rdi
    .endm

    .section .text.entry, "ax"
    .balign 64
    .globl hal_entry_start
hal_entry_start:

    // MSR_LSTAR. At CPL 3 on PVM, at CPL 0 on hardware (kvm-facts.md, quirk 1). rcx = return address,
    // r11 = flags, rsp = the user's.
    .globl hal_lstar
hal_lstar:
    mov %rax, {scratch_rax}
    mov %cs, %eax
    test $3, %al
    mov {scratch_rax}, %rax
    jnz hal_lstar_cpl3
    mov %rcx, {scratch_rcx}
    mov %r11, {scratch_r11}
    .globl hal_lstar_saved
hal_lstar_saved:
    lea 1f(%rip), %rcx
    mov $0x202, %r11d
    sysretq
1:  mov {scratch_rcx}, %rcx
    mov {scratch_r11}, %r11
    .globl hal_lstar_cpl3
hal_lstar_cpl3:
    mov %rsp, {scratch_rsp}
    mov {kstack_top}, %rsp
    push ${user_data}
    push {scratch_rsp}
    push %r11
    push ${user_code}
    push %rcx
    push ${trapped}
    jmp hal_entry_common

    // A thunk jumps here with rcx = return address and rax = number.
    .balign 64
    .globl hal_fast_entry
hal_fast_entry:
    mov %rsp, %r11
    mov {kstack_top}, %rsp
    push ${user_data}
    push %r11
    pushfq
    push ${user_code}
    push %rcx
    push ${translated}
    .globl hal_entry_common
hal_entry_common:
    push %rax
    PUSH_REGS
    testl ${entry_flags}, 0x98(%rsp)
    jnz 2f
3:  mov %rsp, %rdi
    call husk_syscall

    // Back to user code: only what the C ABI did not keep. Restartable from `hal_exit` on.
    .globl hal_exit
hal_exit:
    cmpl $0, {work}
    jne hal_exit_work
    testb ${exit_full}, 0x80(%rsp)
    jnz hal_exit_full_checked
    mov 0x50(%rsp), %rax
    mov 0x38(%rsp), %r10
    mov 0x40(%rsp), %r9
    mov 0x48(%rsp), %r8
    mov 0x60(%rsp), %rdx
    mov 0x68(%rsp), %rsi
    mov 0x70(%rsp), %rdi
    mov 0x98(%rsp), %r11
    mov 0x88(%rsp), %rcx
    mov 0xa0(%rsp), %rsp
    .globl hal_exit_jump
hal_exit_jump:
    jmp *%rcx
    .globl hal_exit_fast_end
hal_exit_fast_end:

    // The caller had TF, DF or AC: run without, give them back by iretq. r11 is what `syscall` makes it.
2:  orq ${exit_full}, 0x80(%rsp)
    mov 0x98(%rsp), %rax
    mov %rax, 0x30(%rsp)
    pushq $0x202
    popfq
    jmp 3b

    .globl hal_exit_work
hal_exit_work:
    mov %rsp, %rdi
    call husk_exit_work
    jmp hal_exit

    // The frame at rsp is whole user state: restore all of it. Restartable until the iretq.
    .globl hal_exit_full
hal_exit_full:
    cmpl $0, {work}
    jne hal_exit_work
    .globl hal_exit_full_checked
hal_exit_full_checked:
    LOAD_REGS
    lea 0x88(%rsp), %rsp
    .globl hal_exit_iret
hal_exit_iret:
    iretq
    .globl hal_exit_end
hal_exit_end:

    // A thunk jumps here instead of a `cpuid`, with rdx = return address, rbx free, all else the program's.
    .balign 64
    .globl hal_cpuid_entry
hal_cpuid_entry:
    mov %rsp, %rbx
    mov {kstack_top}, %rsp
    push ${user_data}
    push %rbx
    pushfq
    push ${user_code}
    push %rdx
    push ${exit_full}
    push $-1
    PUSH_REGS
    testl ${entry_flags}, 0x98(%rsp)
    jz 4f
    pushq $0x202
    popfq
4:  mov %rsp, %rdi
    call husk_cpuid
    jmp hal_exit_full

    .globl hal_cstar
hal_cstar:
    // A compat-mode syscall: there is no 32-bit Linux here. #UD, which the process gets as SIGILL.
    ud2

    .globl hal_entry_end
hal_entry_end:

    // rdi = where to leave the old stack pointer, rsi = the new one.
    .section .text, "ax"
    .globl hal_switch
hal_switch:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

    // A new thread's first instructions: its frame is at rsp.
    .globl hal_thread_start
hal_thread_start:
    call husk_thread_started
    jmp hal_exit_full
    "#,
    scratch_rax = const SCRATCH_RAX,
    scratch_rcx = const SCRATCH_RCX,
    scratch_r11 = const SCRATCH_R11,
    scratch_rsp = const SCRATCH_RSP,
    kstack_top = const KSTACK_TOP,
    work = const WORK,
    user_data = const selector::USER_DATA,
    user_code = const selector::USER_CODE,
    trapped = const ENTRY_TRAPPED,
    translated = const ENTRY_TRANSLATED,
    entry_flags = const ENTRY_FLAGS,
    exit_full = const EXIT_FULL,
    options(att_syntax)
);

// --- Exceptions and interrupts ----------------------------------------------------------------------
//
// A stub runs at CPL 0, emulated instruction by instruction on PVM, so it is as short as can be: load a
// prepared frame, iretq to the prologue at CPL 3. The CPU's own frame stays on the IST stack.
global_asm!(
    r#"
    .section .text.upcall, "ax"
    .balign 64
    .globl hal_upcall_start
hal_upcall_start:

    .macro IRET_FRAME vector, top, pushed
    .section .data.upcall_frames, "aw"
    .balign 8
upcall_frame_\vector:
    .quad upcall_prologue_\vector
    .quad {user_code}
    .quad 0x202
    .quad \top - \pushed
    .quad {user_data}
    .section .text.upcall, "ax"
    .endm

    // Vectors without an error code.
    .macro STUB vector
    IRET_FRAME \vector, {exception_top}, 40
    .balign 32
upcall_stub_\vector:
    mov $upcall_frame_\vector, %rsp
    iretq
upcall_prologue_\vector:
    push $0
    push $-1
    PUSH_REGS
    mov $\vector, %esi
    jmp upcall_exception
    .endm

    // Vectors with one.
    .macro STUB_ERROR vector
    IRET_FRAME \vector, {exception_top}, 48
    .balign 32
upcall_stub_\vector:
    mov $upcall_frame_\vector, %rsp
    iretq
upcall_prologue_\vector:
    push $-1
    PUSH_REGS
    mov $\vector, %esi
    jmp upcall_exception
    .endm

    STUB 0
    STUB 1
    STUB 2
    STUB 4
    STUB 5
    STUB 6
    STUB 7
    STUB_ERROR 8
    STUB 9
    STUB_ERROR 10
    STUB_ERROR 11
    STUB_ERROR 12
    STUB_ERROR 13
    STUB 15
    STUB 16
    STUB_ERROR 17
    STUB 18
    STUB 19
    STUB 20
    STUB_ERROR 21

    // Page fault: CR2 can only be read at CPL 0.
    IRET_FRAME 14, {exception_top}, 56
    .balign 32
upcall_stub_14:
    push %rax
    mov %cr2, %rax
    mov $upcall_frame_14, %rsp
    iretq
upcall_prologue_14:
    mov %rax, {cr2}
    pop %rax
    push $-1
    PUSH_REGS
    mov $14, %esi
    jmp upcall_exception

    // Breakpoint: one of the gates', the most frequent first, or a program's.
    IRET_FRAME 3, {exception_top}, 40
    .balign 32
upcall_stub_3:
    cmpq $hal_load_root_return, (%rsp)
    jne 1f
    mov %rdi, %cr3
    iretq
1:  cmpq $hal_flush_page_return, (%rsp)
    jne 2f
    invlpg (%rdi)
    iretq
2:  cmpq $hal_cpuid_return, (%rsp)
    jne 3f
    cpuid
    iretq
3:  cmpq $hal_load_task_return, (%rsp)
    jne 4f
    ltr %di
    iretq
4:  mov $upcall_frame_3, %rsp
    iretq
upcall_prologue_3:
    push $0
    push $-1
    PUSH_REGS
    mov $3, %esi

upcall_exception:
    mov %rsp, %rdi
    mov {cr2}, %rdx
    mov %rsi, %rbx
    mov %rdx, %r13
    mov 0x80(%rsp), %r12
    cld
    call hal_exception_place
    test %rax, %rax
    jz 4f
    mov %rax, %rsp
    mov %rax, %rdi
    mov %rbx, %rsi
    mov %r13, %rdx
    mov %r12, %rcx
    // A frame record of the interrupted code: a backtrace goes on there.
    push 0x88(%rax)
    push 0x20(%rax)
    mov %rsp, %rbp
    call hal_exception_handle
    lea 16(%rsp), %rsp
    test %al, %al
    jz hal_exit_full
    // Back into the libOS: no work is done on the way.
4:  LOAD_REGS
    lea 0x88(%rsp), %rsp
    iretq

    // The VMM's interrupt, on its own stack.
    IRET_FRAME interrupt, {interrupt_top}, 40
    .balign 32
upcall_stub_interrupt:
    mov $upcall_frame_interrupt, %rsp
    iretq
upcall_prologue_interrupt:
    push $0
    push $-1
    PUSH_REGS
    cld
    mov %rsp, %rdi
    call hal_interrupt_place
    test %rax, %rax
    jnz 3f
    LOAD_REGS
    lea 0x88(%rsp), %rsp
    iretq
3:  mov %rax, %rsp
    jmp hal_exit_full

    .globl hal_upcall_end
hal_upcall_end:

    // The gates: what only CPL 0 may do. rdi = new CR3.
    .section .text, "ax"
    .globl hal_load_root
hal_load_root:
    int3
    .globl hal_load_root_return
hal_load_root_return:
    ret

    // rdi = an address in the page to flush.
    .globl hal_flush_page
hal_flush_page:
    int3
    .globl hal_flush_page_return
hal_flush_page_return:
    ret

    // edi = leaf, esi = subleaf, rdx = where eax, ebx, ecx and edx go. At CPL 3 it may fault (`cpu::cpuid`).
    .globl hal_cpuid
hal_cpuid:
    push %rbx
    mov %rdx, %r8
    mov %edi, %eax
    mov %esi, %ecx
    int3
    .globl hal_cpuid_return
hal_cpuid_return:
    mov %eax, (%r8)
    mov %ebx, 4(%r8)
    mov %ecx, 8(%r8)
    mov %edx, 12(%r8)
    pop %rbx
    ret

    // The gate for boot: edi = selector of an available TSS.
    .globl hal_load_task
hal_load_task:
    int3
    .globl hal_load_task_return
hal_load_task_return:
    ret

    // IDT stubs by vector; 0 where there is none.
    .section .rodata.upcall_stubs, "a"
    .balign 8
    .globl hal_stubs
hal_stubs:
    .quad upcall_stub_0, upcall_stub_1, upcall_stub_2, upcall_stub_3
    .quad upcall_stub_4, upcall_stub_5, upcall_stub_6, upcall_stub_7
    .quad upcall_stub_8, upcall_stub_9, upcall_stub_10, upcall_stub_11
    .quad upcall_stub_12, upcall_stub_13, upcall_stub_14, upcall_stub_15
    .quad upcall_stub_16, upcall_stub_17, upcall_stub_18, upcall_stub_19
    .quad upcall_stub_20, upcall_stub_21
    .fill 10, 8, 0
    .quad upcall_stub_interrupt
    "#,
    exception_top = const PERCPU_EXCEPTION_STACK_TOP,
    interrupt_top = const PERCPU_INTERRUPT_STACK_TOP,
    cr2 = const CR2,
    user_data = const selector::USER_DATA,
    user_code = const selector::USER_CODE,
    options(att_syntax)
);

/// Number of entries in `hal_stubs`.
pub(super) const STUBS: usize = 33;

#[allow(missing_docs, reason = "labels of the assembly above")]
unsafe extern "C" {
    pub(super) fn hal_entry_start();
    pub(super) fn hal_entry_end();
    pub(super) fn hal_lstar();
    pub(super) fn hal_lstar_saved();
    pub(super) fn hal_cstar();
    pub(super) fn hal_lstar_cpl3();
    pub(super) fn hal_fast_entry();
    pub(super) fn hal_cpuid_entry();
    pub(super) fn hal_exit();
    pub(super) fn hal_exit_jump();
    pub(super) fn hal_exit_full();
    pub(super) fn hal_exit_iret();
    pub(super) fn hal_upcall_start();
    pub(super) fn hal_upcall_end();
    pub(super) fn hal_switch(old: *mut u64, new: u64);
    pub(super) fn hal_thread_start();
    pub(super) fn hal_load_task(selector: u32);
    pub(super) fn hal_load_root(root: u64);
    pub(super) fn hal_flush_page(address: u64);
    pub(super) fn hal_cpuid(leaf: u32, subleaf: u32, registers: *mut [u32; 4]);
    pub(super) static hal_stubs: [u64; STUBS];
}
