/* Many distinct syscall sites of each form found in real programs. */
#pragma once
#include "check.h"

/* mov $nr, %eax; syscall: what most of glibc's wrappers are. */
#define SITE_MOV(n)                                                                          \
    static __attribute__((noinline)) long site_mov_##n(void) {                               \
        long result;                                                                         \
        __asm__ volatile("mov $186, %%eax\n\tsyscall" : "=a"(result) : : "rcx", "r11", "memory"); \
        return result;                                                                       \
    }
/* The number comes from a register: as in syscall(). */
#define SITE_REG(n)                                                                          \
    static __attribute__((noinline)) long site_reg_##n(void) {                               \
        long result, number = 186;                                                           \
        __asm__ volatile("mov %1, %%rax\n\tsyscall\n\tcmp $-4095, %%rax\n\tjae 1f\n1:"        \
                         : "=a"(result) : "r"(number) : "rcx", "r11", "memory", "cc");       \
        return result;                                                                       \
    }
/* Other threads jump straight to the syscall instruction of a site. */
#define SITE_SPLIT(n)                                                                        \
    static __attribute__((noinline)) long site_split_##n(long skip) {                        \
        long result = 186;                                                                   \
        __asm__ volatile("test %1, %1\n\tjnz 1f\n\tmov $186, %%eax\n1:\n\tsyscall"           \
                         : "+a"(result) : "r"(skip) : "rcx", "r11", "memory", "cc");         \
        return result;                                                                       \
    }
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
EACH(SITE_MOV)
EACH(SITE_REG)
EACH(SITE_SPLIT)

#define SITES 16
#define ROW_MOV(n) site_mov_##n,
#define ROW_REG(n) site_reg_##n,
#define ROW_SPLIT(n) site_split_##n,
static long (*const mov_sites[SITES])(void) = {EACH(ROW_MOV)};
static long (*const reg_sites[SITES])(void) = {EACH(ROW_REG)};
static long (*const split_sites[SITES])(long) = {EACH(ROW_SPLIT)};
