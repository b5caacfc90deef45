// Single steps over system calls of every form: a handler of SIGTRAP must see each of the program's own instructions once,
// with the registers it has there, and nothing else, whether the site is translated by then or not.
#include "check.h"
#include <ucontext.h>

/* Each function sets TF, runs a site and clears TF. Labels: name_begin .. name_end. */
#define STEPPED(name, site)                                                                  \
    __asm__(".text\n.p2align 6\n.globl " #name "\n.globl " #name "_end\n" #name ":\n"        \
            "push %rbx\npush %rbp\nsub $24, %rsp\nmov $0x5a5a, %ecx\nmov %rdi, %rbx\n"       \
            "pushf\norl $0x100, (%rsp)\ntest %rbx, %rbx\njz 5f\npopf\njmp 6f\n"              \
            "5: add $8, %rsp\n6:\n" site "\n"                                                \
            "7: pushf\nandl $~0x100, (%rsp)\npopf\n"                                         \
            "add $24, %rsp\npop %rbp\npop %rbx\nret\n" #name "_end: nop\n");                 \
    long name(long step);                                                                    \
    extern char name##_end[]

STEPPED(load_eax, "mov $39, %eax\nsyscall\nmov %eax, %ebp");
STEPPED(load_rax, "mov $39, %rax\nsyscall\nmov %eax, %ebp");
STEPPED(compare, "mov $39, %eax\nnop\nsyscall\ncmp $-4095, %rax\njae 1f\n1: mov %eax, %ebp");
STEPPED(long_move, "mov $39, %eax\nmov %eax, %ebp\nsyscall\nmov %rax, 8(%rsp)\nmov 8(%rsp), %rbp");
STEPPED(short_ones, "mov $39, %eax\nnop\nsyscall\npush %rax\npop %rbp\nmov %ebp, %eax\nnop");
STEPPED(branch, "mov $39, %eax\nnop\nsyscall\ntest %rax, %rax\njns 1f\nud2\n1: mov %eax, %ebp");
STEPPED(far_branch, "mov $39, %eax\nnop\nsyscall\n.byte 0xe9, 2, 0, 0, 0\nud2\nmov %eax, %ebp");
STEPPED(relative, "mov $39, %eax\nnop\nsyscall\nlea 1f(%rip), %rbp\n1: nop");
STEPPED(before, "mov $39, %eax\nmov %eax, 0x8(%rsp)\nmov $0x77777777, %esi\nsyscall\nnop");
STEPPED(zero, "xor %edi, %edi\nxor %edx, %edx\nxor %esi, %esi\nxor %eax, %eax\nsyscall\ncmp $-4096, %rax\nja 1f\n1: nop");
STEPPED(unknown, "mov $-1, %rax\nsyscall\ncmp $-4095, %rax\njae 1f\n1: nop");
STEPPED(twice, "mov $39, %eax\nnop\nsyscall\nmov $110, %eax\nsyscall\nmov %rax, %rbp");

static struct step {
    long rip, rax, rcx, r11, address;
    int how;
} steps[200];
static int count;
static uintptr_t begin, end;

static long relative_to(uintptr_t value) {
    return value >= begin && value < end ? (long)(value - begin) : (long)value;
}

static void on_trap(int signal, siginfo_t *info, void *context) {
    (void)signal;
    const greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (count == 200) _exit(3);
    steps[count++] = (struct step){
        .rip = relative_to(r[REG_RIP]),
        .rax = r[REG_RAX],
        .rcx = relative_to(r[REG_RCX]),
        .r11 = r[REG_R11] & 0x500,
        .address = relative_to((uintptr_t)info->si_addr),
        .how = info->si_code,
    };
}

static void run(const char *name, long (*site)(long), char *site_end) {
    begin = (uintptr_t)site, end = (uintptr_t)site_end;
    // Stepped when it has never run, and again and again once it has.
    for (int round = 0; round < 4; round++) {
        if (round == 2) site(0), site(0);
        count = 0;
        site(1);
        printf("%s round %d:", name, round);
        // What the registers held before the site's own instructions is the caller's.
        for (int i = 0; i < count; i++)
            printf(" %lx/%lx/%lx/%lx/%d%s", steps[i].rip, steps[i].rax & 0xffffffff, steps[i].rcx, steps[i].r11,
                   steps[i].how, steps[i].address == steps[i].rip ? "" : "!");
        printf("\n");
    }
}
#define RUN(name) run(#name, name, name##_end)

int main(void) {
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGTRAP, &action, NULL) == 0);
    RUN(load_eax);
    RUN(load_rax);
    RUN(compare);
    RUN(long_move);
    RUN(short_ones);
    RUN(branch);
    RUN(far_branch);
    RUN(relative);
    RUN(before);
    RUN(zero);
    RUN(unknown);
    RUN(twice);
    return finish();
}
