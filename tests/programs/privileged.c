// flags: -Wno-array-bounds -Wno-stringop-overflow
// What a process may not do, or does wrong: each gives the signal Linux gives, twice, once by default action and
// once with the siginfo a handler sees.
//
// Left out, because husk differs there by design: `int $0x80` (a 32-bit syscall under Linux; husk has none), the
// doorbell ports 0x500-0x5ff and the libOS's own memory (both in hostile.c).
#include "check.h"
#include <ucontext.h>

static const char *now;

static void on_signal(int signal, siginfo_t *info, void *context) {
    ucontext_t *uc = context;
    // Addresses differ from build to build; whether they are the faulting instruction's does not.
    uintptr_t rip = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
    const char *addr = info->si_addr == NULL ? "null"
                       : (uintptr_t)info->si_addr == rip ? "rip"
                                                         : "other";
    dprintf(1, "%s: signal %d code %d addr %s\n", now, signal, info->si_code, addr);
    _exit(0);
}

#define CASE(name, body) \
    static void name(void) { body; }
#define ASM(name, text) CASE(name, __asm__ volatile(text)) // no operands: registers are written as they are

ASM(hlt, "hlt")
ASM(cli, "cli")
ASM(sti, "sti")
ASM(in_byte, "mov $0x60, %dx; in %dx, %al")
ASM(in_word, "mov $0x3f8, %dx; in %dx, %ax")
ASM(in_long, "mov $0xcf8, %dx; in %dx, %eax")
ASM(in_imm, "in $0x80, %al")
ASM(out_byte, "mov $0x80, %dx; out %al, %dx")
ASM(out_word, "mov $0x3f8, %dx; out %ax, %dx")
ASM(out_long, "mov $0xcfc, %dx; out %eax, %dx")
ASM(out_imm, "out %al, $0x64")
ASM(out_high, "mov $0xffff, %dx; out %al, %dx")
ASM(outs_byte, "lea -128(%rsp), %rsi; mov $0x80, %dx; outsb")
ASM(breakpoint, "int3")
ASM(breakpoint_long, ".byte 0xcd, 0x03")
ASM(ud2, "ud2")
ASM(ud_into, ".byte 0xce")
ASM(int_20, "int $0x20")
ASM(int_ff, "int $0xff")
ASM(mov_from_cr3, "mov %cr3, %rax")
ASM(mov_to_cr3, "xor %eax, %eax; mov %rax, %cr3")
ASM(mov_to_cr0, "xor %eax, %eax; mov %rax, %cr0")
ASM(mov_to_dr7, "xor %eax, %eax; mov %rax, %dr7")
ASM(rdmsr, "mov $0xc0000082, %ecx; rdmsr")
ASM(wrmsr, "mov $0xc0000082, %ecx; xor %eax, %eax; xor %edx, %edx; wrmsr")
ASM(lgdt, "lgdt -64(%rsp)")
ASM(lidt, "lidt -64(%rsp)")
ASM(ltr, "mov $0x40, %eax; ltr %ax")
ASM(invlpg, "invlpg (%rsp)")
ASM(wbinvd, "wbinvd")
ASM(clts, "clts")
ASM(swapgs, "swapgs")
ASM(bad_segment, "mov $0x1234, %eax; mov %ax, %ds")
ASM(bad_stack_segment, "mov $0x1234, %eax; mov %ax, %ss")
ASM(iretq_garbage, "push $0; push $0; push $0; push $0x1230; push $0; iretq")
ASM(far_return_garbage, "push $0x1230; push $0; lretq")
ASM(divide_by_zero, "xor %edx, %edx; mov $1, %eax; xor %ecx, %ecx; div %ecx")
ASM(divide_overflow, "mov $0x80000000, %eax; cltd; mov $-1, %ecx; idiv %ecx")
ASM(single_step, "pushf; orl $0x100, (%rsp); popf; nop")
ASM(unaligned_sse, "movaps 1(%rsp), %xmm0")
CASE(read_null, (void)*(volatile char *)0)
CASE(read_low, (void)*(volatile char *)0x1000)
CASE(read_edge, (void)*(volatile char *)0x7ffffffff000)
CASE(read_non_canonical, (void)*(volatile char *)0x8000000000000000)
CASE(read_non_canonical_low, (void)*(volatile char *)0x0000800000000000)
CASE(write_null, *(volatile char *)0 = 1)
CASE(write_low, *(volatile char *)0x8000 = 1)
CASE(write_non_canonical, *(volatile char *)0xdead000000000000 = 1)
CASE(write_text, *(volatile char *)(uintptr_t)&write_null = 1)
static void jump(uintptr_t address) {
    __asm__ volatile("jmp *%0" ::"r"(address) : "memory");
}
CASE(jump_null, jump(0))
CASE(jump_low, jump(0x2000))
CASE(jump_non_canonical, jump(0x8000000000000000))
CASE(jump_data, static char data[16]; jump((uintptr_t)data))
CASE(stack_non_canonical, __asm__ volatile("mov %0, %%rsp; push %%rax" ::"r"(0x8000000000000000)))
CASE(stack_null, __asm__ volatile("xor %%esp, %%esp; push %%rax" :::))
CASE(call_with_stack_null, __asm__ volatile("xor %%esp, %%esp; call getpid" :::))
CASE(abort_itself, abort())

static const struct {
    const char *name;
    void (*run)(void);
    int no_handler; // the stack is gone
} cases[] = {
#define ROW(name) {#name, name, 0},
#define ROW_WITHOUT_STACK(name) {#name, name, 1},
    ROW(hlt) ROW(cli) ROW(sti) ROW(in_byte) ROW(in_word) ROW(in_long) ROW(in_imm) ROW(out_byte) ROW(out_word)
    ROW(out_long) ROW(out_imm) ROW(out_high) ROW(outs_byte) ROW(breakpoint) ROW(breakpoint_long) ROW(ud2)
    ROW(ud_into) ROW(int_20) ROW(int_ff) ROW(mov_from_cr3) ROW(mov_to_cr3) ROW(mov_to_cr0)
    ROW(mov_to_dr7) ROW(rdmsr) ROW(wrmsr) ROW(lgdt) ROW(lidt) ROW(ltr) ROW(invlpg) ROW(wbinvd) ROW(clts) ROW(swapgs)
    ROW(bad_segment) ROW(bad_stack_segment) ROW(iretq_garbage) ROW(far_return_garbage)
    ROW(divide_by_zero) ROW(divide_overflow) ROW(single_step) ROW(unaligned_sse)
    ROW(read_null) ROW(read_low) ROW(read_edge) ROW(read_non_canonical) ROW(read_non_canonical_low)
    ROW(write_null) ROW(write_low) ROW(write_non_canonical) ROW(write_text)
    ROW(jump_null) ROW(jump_low) ROW(jump_non_canonical) ROW(jump_data)
    ROW_WITHOUT_STACK(stack_non_canonical) ROW_WITHOUT_STACK(stack_null) ROW_WITHOUT_STACK(call_with_stack_null)
    ROW(abort_itself)
};

static void with_handler(void) {
    static char stack[65536];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, NULL);
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, NULL);
}

static void run(unsigned index, int handler) {
    now = cases[index].name;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (handler) with_handler();
        cases[index].run();
        _exit(77);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    if (handler) {
        if (status != 0) printf("%s: with a handler status %#x\n", now, status);
    } else if (WIFSIGNALED(status)) {
        printf("%s: dies of signal %d\n", now, WTERMSIG(status));
    } else {
        printf("%s: exits with %d\n", now, WEXITSTATUS(status));
    }
    fflush(stdout);
}

/* `privileged NAME` runs one case, `privileged except NAME...` all but some. */
static int chosen(int argc, char **argv, const char *name) {
    if (argc < 2) return 1;
    if (strcmp(argv[1], "except") != 0) return strcmp(argv[1], name) == 0;
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], name) == 0) return 0;
    return 1;
}

int main(int argc, char **argv) {
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!chosen(argc, argv, cases[i].name)) continue;
        run(i, 0);
        if (!cases[i].no_handler) run(i, 1);
    }
    return 0;
}
