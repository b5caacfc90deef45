/* What the bench programs share. Each prints nanoseconds per operation, measured inside, and how many operations it made
 * in all, warming up included. */
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static inline int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static inline void must(int condition, const char *what) {
    if (!condition) {
        perror(what);
        exit(1);
    }
}

static inline void report(int64_t start, long measured, long all) {
    printf("%.3f %ld\n", (double)(now() - start) / (double)measured, all);
}

/* Runs the operation a tenth as often to warm up, then measures. */
#define MEASURE(count, operation)                                     \
    do {                                                              \
        long count_ = (count);                                        \
        for (long i_ = 0; i_ < count_ / 10 + 1; i_++) { operation; }   \
        int64_t start_ = now();                                       \
        for (long i_ = 0; i_ < count_; i_++) { operation; }           \
        report(start_, count_, count_ + count_ / 10 + 1);             \
    } while (0)
