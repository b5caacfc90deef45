// flags: -nostdlib -ffreestanding -fno-stack-protector -fcf-protection=none
// A known sequence of syscalls and nothing else: no C library, no start-up code. tests/trace.rs holds the sequence.

static long call(long number, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/* A site of the other form, five times: first by trap, then however the libOS likes. */
static long getppid_site(void) {
    long result;
    __asm__ volatile("mov $110, %%eax\n\tsyscall" : "=a"(result) : : "rcx", "r11", "memory");
    return result;
}

__attribute__((noreturn, used)) static void run(void) {
    call(39, 11, 12, 13, 14, 15, 16);               // getpid: arguments it ignores are recorded too
    for (int i = 0; i < 5; i++) getppid_site();     // getppid
    call(3, -1, 0, 0, 0, 0, 0);                     // close(-1) = -EBADF
    long page = call(9, 0, 4096, 3, 0x22, -1, 0);   // mmap
    call(10, page, 4096, 1, 0, 0, 0);               // mprotect
    call(11, page, 4096, 0, 0, 0, 0);               // munmap
    call(1, 1, (long)"known\n", 6, 0, 0, 0);        // write = 6
    call(257, -100, (long)"/nothing", 0, 0, 0, 0);  // openat = -ENOENT
    call(33, 1, 9, 0, 0, 0, 0);                     // dup2(1, 9) = 9
    call(3, 9, 0, 0, 0, 0, 0);                      // close(9) = 0
    call(100000, 1, 2, 3, 4, 5, 6);                 // no such call = -ENOSYS
    call(186, 0, 0, 0, 0, 0, 0);                    // gettid
    call(231, 23, 0, 0, 0, 0, 0);                   // exit_group(23)
    __builtin_unreachable();
}

__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tand $-16, %rsp\n\tcall run\n");
