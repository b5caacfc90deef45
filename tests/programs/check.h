/* What the test programs share: checks that print what failed and go on. */
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static atomic_int failures;

#define CHECK(condition)                                                                     \
    do {                                                                                     \
        errno = 0;                                                                           \
        if (!(condition)) {                                                                  \
            int error_ = errno;                                                              \
            failures++;                                                                      \
            printf("FAILED line %d: %s (errno %d)\n", __LINE__, #condition, error_);         \
            fflush(stdout);                                                                  \
        }                                                                                    \
    } while (0)

/* The call must fail with this errno. */
#define CHECK_ERRNO(call, expected)                                                          \
    do {                                                                                     \
        errno = 0;                                                                           \
        long result_ = (long)(call);                                                         \
        if (result_ != -1 || errno != (expected)) {                                          \
            failures++;                                                                      \
            printf("FAILED line %d: %s gave %ld, errno %d\n", __LINE__, #call, result_, errno); \
            fflush(stdout);                                                                  \
        }                                                                                    \
    } while (0)

#define CHECK_INT(actual, expected)                                                          \
    do {                                                                                     \
        long long actual_ = (long long)(actual), expected_ = (long long)(expected);          \
        if (actual_ != expected_) {                                                          \
            failures++;                                                                      \
            printf("FAILED line %d: %s is %lld, not %lld\n", __LINE__, #actual, actual_, expected_); \
            fflush(stdout);                                                                  \
        }                                                                                    \
    } while (0)

/* Runs one group of checks and says how it went. */
#define GROUP(function)                                                                      \
    do {                                                                                     \
        int before_ = failures;                                                              \
        function();                                                                          \
        printf("%s: %s\n", #function, failures == before_ ? "ok" : "FAILED");                \
        fflush(stdout);                                                                      \
    } while (0)

static inline long argument(int argc, char **argv, int index, long otherwise) {
    return argc > index ? atol(argv[index]) : otherwise;
}

static inline pthread_t start(void *(*body)(void *), void *arg) {
    pthread_t thread;
    int error = pthread_create(&thread, NULL, body, arg);
    if (error) {
        printf("pthread_create: %s\n", strerror(error));
        exit(99);
    }
    return thread;
}

static inline int finish(void) {
    printf("%s\n", failures ? "FAILED" : "all ok");
    fflush(stdout);
    return failures != 0;
}
