// Vector and floating-point registers belong to their thread, across preemption, syscalls and fork.
#include "check.h"
#include <fenv.h>

#define THREADS 8
static long rounds;

/* Fills xmm0..15 with one value, spins and makes a syscall, and compares. */
static long sse(uint64_t value, int spin) {
    uint64_t out[32] = {0};
    __asm__ volatile(
        "movq %[v], %%xmm0\n\tpunpcklqdq %%xmm0, %%xmm0\n\t"
        "movdqa %%xmm0, %%xmm1\n\tmovdqa %%xmm0, %%xmm2\n\tmovdqa %%xmm0, %%xmm3\n\tmovdqa %%xmm0, %%xmm4\n\t"
        "movdqa %%xmm0, %%xmm5\n\tmovdqa %%xmm0, %%xmm6\n\tmovdqa %%xmm0, %%xmm7\n\tmovdqa %%xmm0, %%xmm8\n\t"
        "movdqa %%xmm0, %%xmm9\n\tmovdqa %%xmm0, %%xmm10\n\tmovdqa %%xmm0, %%xmm11\n\tmovdqa %%xmm0, %%xmm12\n\t"
        "movdqa %%xmm0, %%xmm13\n\tmovdqa %%xmm0, %%xmm14\n\tmovdqa %%xmm0, %%xmm15\n\t"
        "1: dec %[spin]\n\tjnz 1b\n\t"
        "mov $24, %%eax\n\tsyscall\n\t" // sched_yield
        "movdqu %%xmm0, (%[o])\n\tmovdqu %%xmm1, 16(%[o])\n\tmovdqu %%xmm2, 32(%[o])\n\tmovdqu %%xmm3, 48(%[o])\n\t"
        "movdqu %%xmm4, 64(%[o])\n\tmovdqu %%xmm5, 80(%[o])\n\tmovdqu %%xmm6, 96(%[o])\n\tmovdqu %%xmm7, 112(%[o])\n\t"
        "movdqu %%xmm8, 128(%[o])\n\tmovdqu %%xmm9, 144(%[o])\n\tmovdqu %%xmm10, 160(%[o])\n\tmovdqu %%xmm11, 176(%[o])\n\t"
        "movdqu %%xmm12, 192(%[o])\n\tmovdqu %%xmm13, 208(%[o])\n\tmovdqu %%xmm14, 224(%[o])\n\tmovdqu %%xmm15, 240(%[o])\n\t"
        : [spin] "+r"(spin)
        : [v] "r"(value), [o] "r"(out)
        : "rax", "rcx", "r11", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    long wrong = 0;
    for (int i = 0; i < 32; i++) wrong += out[i] != value;
    return wrong;
}

__attribute__((target("avx2"))) static long avx(uint64_t value, int spin) {
    uint64_t out[8] = {0};
    __asm__ volatile("vmovq %[v], %%xmm3\n\tvpbroadcastq %%xmm3, %%ymm3\n\tvmovdqa %%ymm3, %%ymm12\n\t"
                     "1: dec %[spin]\n\tjnz 1b\n\tmov $24, %%eax\n\tsyscall\n\t"
                     "vmovdqu %%ymm3, (%[o])\n\tvmovdqu %%ymm12, 32(%[o])\n\tvzeroupper\n\t"
                     : [spin] "+r"(spin)
                     : [v] "r"(value), [o] "r"(out)
                     : "rax", "rcx", "r11", "memory", "cc", "xmm3", "xmm12");
    long wrong = 0;
    for (int i = 0; i < 8; i++) wrong += out[i] != value;
    return wrong;
}

__attribute__((target("avx512f"))) static long avx512(uint64_t value, int spin) {
    uint64_t out[8] = {0}, mask = 0;
    __asm__ volatile("vpbroadcastq %[v], %%zmm20\n\tkmovw %k[v], %%k3\n\t"
                     "1: dec %[spin]\n\tjnz 1b\n\tmov $24, %%eax\n\tsyscall\n\t"
                     "vmovdqu64 %%zmm20, (%[o])\n\tkmovw %%k3, %k[m]\n\t"
                     : [spin] "+r"(spin), [m] "=&r"(mask)
                     : [v] "r"(value), [o] "r"(out)
                     : "rax", "rcx", "r11", "memory", "cc", "xmm20", "k3");
    long wrong = (mask & 0xffff) != (value & 0xffff);
    for (int i = 0; i < 8; i++) wrong += out[i] != value;
    return wrong;
}

static void *body(void *arg) {
    uint64_t seed = (uint64_t)arg * 0x9e3779b97f4a7c15ull;
    const int modes[4] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
    int mode = modes[(long)arg % 4];
    fesetround(mode); // lives in mxcsr and the x87 control word
    long double sum = 0;
    for (long i = 0; i < rounds; i++) {
        int spin = 1 + (int)(i * 37 % 20000);
        CHECK_INT(sse(seed + (uint64_t)i, spin), 0);
        if (__builtin_cpu_supports("avx2")) CHECK_INT(avx(seed ^ (uint64_t)i, spin), 0);
        if (__builtin_cpu_supports("avx512f")) CHECK_INT(avx512(seed - (uint64_t)i, spin), 0);
        CHECK_INT(fegetround(), mode);
        sum += (long double)i * (long double)((long)arg);
    }
    CHECK(sum == (long double)((long)arg) * (long double)(rounds * (rounds - 1) / 2));
    return NULL;
}

static void threads(void) {
    pthread_t all[THREADS];
    for (long i = 0; i < THREADS; i++) all[i] = start(body, (void *)(i + 1));
    for (int i = 0; i < THREADS; i++) pthread_join(all[i], NULL);
}

static void fork_copies_registers(void) {
    fesetround(FE_UPWARD);
    long pid;
    uint64_t kept = 0x123456789abcdef0, value;
    // A raw fork, so that no library code in between may use the register.
    __asm__ volatile("movq %[kept], %%xmm9\n\tmov $57, %%eax\n\tsyscall\n\tmovq %%xmm9, %[value]"
                     : "=&a"(pid), [value] "=r"(value)
                     : [kept] "r"(kept)
                     : "rcx", "r11", "memory", "xmm9");
    if (pid == 0) _exit(value == kept && fegetround() == FE_UPWARD ? 0 : 1);
    CHECK(value == kept);
    int status = -1;
    CHECK(waitpid((pid_t)pid, &status, 0) == pid);
    CHECK_INT(status, 0);
    fesetround(FE_TONEAREST);
}

static void a_new_program_starts_clean(void) {
    CHECK_INT(fegetround(), FE_TONEAREST);
    uint32_t mxcsr;
    uint16_t control;
    __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(mxcsr), "=m"(control));
    CHECK_INT(mxcsr & ~0x3fu, 0x1f80);
    CHECK_INT(control, 0x37f);
}

int main(int argc, char **argv) {
    rounds = argument(argc, argv, 1, 2000);
    GROUP(a_new_program_starts_clean);
    GROUP(threads);
    GROUP(fork_copies_registers);
    return finish();
}
