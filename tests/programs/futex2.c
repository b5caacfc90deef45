// futex_waitv and its kin, conditions over PI locks, limits of CPU time.
#include "check.h"
#include <linux/futex.h>
#include <sys/resource.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#define SYS_FUTEX_WAKE 454
#define SYS_FUTEX_WAIT 455
#define SYS_FUTEX_REQUEUE 456

struct waitv {
    uint64_t value, address;
    uint32_t flags, reserved;
};

static long waitv(struct waitv *all, unsigned count, unsigned flags, struct timespec *timeout, int clock) {
    return syscall(SYS_futex_waitv, all, count, flags, timeout, clock);
}
static long futex(void *word, int op, long value, void *timeout, void *second, unsigned value3) {
    return syscall(SYS_futex, word, op, value, timeout, second, value3);
}
static int tid(void) { return syscall(SYS_gettid); }

static atomic_uint words[3];
static atomic_int arrived;

static struct waitv three(int index) {
    return (struct waitv){0, (uintptr_t)&words[index], 2 | 128, 0};
}

static void *wait_for_one_of_three(void *arg) {
    (void)arg;
    struct waitv all[3] = {three(0), three(1), three(2)};
    arrived = tid();
    return (void *)waitv(all, 3, 0, NULL, 0);
}

// Until the thread sleeps.
static void wait_asleep(int id) {
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", id);
    for (;;) {
        FILE *file = fopen(path, "r");
        if (!file) return;
        char *line = fgets(text, sizeof text, file);
        fclose(file);
        char *end = line ? strrchr(line, ')') : NULL;
        if (end && end[2] == 'S') return;
        sched_yield();
    }
}

static void several_futexes(void) {
    struct waitv all[3] = {three(0), three(1), three(2)};
    struct timespec soon = {0, 1};
    CHECK_ERRNO(waitv(all, 0, 0, NULL, 0), EINVAL);
    CHECK_ERRNO(waitv(all, 129, 0, NULL, 0), EINVAL);
    CHECK_ERRNO(waitv(all, 3, 1, NULL, 0), EINVAL);
    CHECK_ERRNO(waitv(NULL, 3, 0, NULL, 0), EINVAL);
    CHECK_ERRNO(waitv((void *)8, 3, 0, NULL, 0), EFAULT);
    CHECK_ERRNO(waitv(all, 3, 0, &soon, 7), EINVAL);
    CHECK_ERRNO(waitv(all, 3, 0, &soon, CLOCK_MONOTONIC), ETIMEDOUT);
    CHECK_ERRNO(waitv(all, 3, 0, &soon, CLOCK_REALTIME), ETIMEDOUT);
    all[1].value = 5;
    CHECK_ERRNO(waitv(all, 3, 0, NULL, 0), EAGAIN);
    all[1].value = 1ull << 32;
    CHECK_ERRNO(waitv(all, 3, 0, NULL, 0), EINVAL);
    all[1] = three(1);
    all[2].reserved = 1;
    CHECK_ERRNO(waitv(all, 3, 0, NULL, 0), EINVAL);
    all[2] = three(2);
    all[2].flags = 128;
    CHECK_ERRNO(waitv(all, 3, 0, NULL, 0), EINVAL);
    all[2] = three(2);
    all[0].address += 1;
    CHECK_ERRNO(waitv(all, 3, 0, NULL, 0), EINVAL);
    for (int index = 0; index < 3; index++) {
        arrived = 0;
        pthread_t thread = start(wait_for_one_of_three, NULL);
        while (!arrived) sched_yield();
        wait_asleep(arrived);
        CHECK_INT(futex(&words[index], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0), 1);
        void *result;
        pthread_join(thread, &result);
        CHECK_INT((long)result, index);
        // It has left all queues.
        for (int other = 0; other < 3; other++)
            CHECK_INT(futex(&words[other], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0), 0);
    }
}

static void *wait_the_new_way(void *arg) {
    (void)arg;
    arrived = tid();
    return (void *)syscall(SYS_FUTEX_WAIT, &words[0], 0L, 6L, 2 | 128, NULL, 0);
}

static void one_call_for_each(void) {
    struct timespec soon = {0, 1};
    CHECK_ERRNO(syscall(SYS_FUTEX_WAIT, &words[0], 0L, ~0u, 2 | 128, &soon, CLOCK_MONOTONIC), ETIMEDOUT);
    CHECK_ERRNO(syscall(SYS_FUTEX_WAIT, &words[0], 1L, ~0u, 2 | 128, NULL, 0), EAGAIN);
    CHECK_ERRNO(syscall(SYS_FUTEX_WAIT, &words[0], 0L, 0L, 2 | 128, NULL, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_FUTEX_WAIT, &words[0], 0L, ~0u, 128, NULL, 0), EINVAL);
    arrived = 0;
    pthread_t thread = start(wait_the_new_way, NULL);
    while (!arrived) sched_yield();
    wait_asleep(arrived);
    CHECK_INT(syscall(SYS_FUTEX_WAKE, &words[0], 1L, 1, 2 | 128), 0);
    CHECK_INT(syscall(SYS_FUTEX_WAKE, &words[0], 4L, 0, 2 | 128), 0);
    struct waitv both[2] = {three(0), three(1)};
    CHECK_ERRNO(syscall(SYS_FUTEX_REQUEUE, both, 1, 0, 1), EINVAL);
    CHECK_INT(syscall(SYS_FUTEX_REQUEUE, both, 0, 0, 1), 1);
    CHECK_INT(syscall(SYS_FUTEX_WAKE, &words[0], 4L, 1, 2 | 128), 0);
    CHECK_INT(syscall(SYS_FUTEX_WAKE, &words[1], 4L, 1, 2 | 128), 1);
    void *result;
    pthread_join(thread, &result);
    CHECK_INT((long)result, 0);
}

static atomic_uint condition, lock_word;
static atomic_int entered, inside, most_inside;

static void lock_pi(void) {
    unsigned free_word = 0;
    if (!atomic_compare_exchange_strong(&lock_word, &free_word, tid()))
        CHECK_INT(futex(&lock_word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0), 0);
}
static void unlock_pi(void) {
    unsigned own = tid();
    if (!atomic_compare_exchange_strong(&lock_word, &own, 0))
        CHECK_INT(futex(&lock_word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0), 0);
}

static void *wait_for_condition(void *arg) {
    entered++;
    *(atomic_int *)arg = tid();
    CHECK_INT(futex(&condition, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, NULL, &lock_word, 0), 0);
    CHECK_INT(lock_word & FUTEX_TID_MASK, tid());
    int now = ++inside;
    if (now > most_inside) most_inside = now;
    sched_yield();
    inside--;
    unlock_pi();
    return NULL;
}

static void conditions_over_pi_locks(void) {
    CHECK_ERRNO(futex(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 2, (void *)9, &lock_word, 0), EINVAL);
    CHECK_ERRNO(futex(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, (void *)9, &condition, 0), EINVAL);
    CHECK_ERRNO(futex(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, (void *)9, &lock_word, 1), EAGAIN);
    CHECK_INT(futex(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, (void *)9, &lock_word, 0), 0);
    CHECK_ERRNO(futex(&condition, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 1, NULL, &lock_word, 0), EAGAIN);
    struct timespec soon = {0, 1};
    CHECK_ERRNO(futex(&condition, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, &soon, &lock_word, 0), ETIMEDOUT);
    for (int held = 0; held < 2; held++) {
        pthread_t threads[5];
        atomic_int ids[5] = {0};
        for (int i = 0; i < 5; i++) threads[i] = start(wait_for_condition, &ids[i]);
        for (int i = 0; i < 5; i++) {
            while (!ids[i]) sched_yield();
            wait_asleep(ids[i]);
        }
        // Free: the first gets it and the rest queue. Held by this thread: all queue behind it.
        if (held) lock_pi();
        CHECK_INT(futex(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, (void *)2, &lock_word, 0), 3);
        CHECK_INT(futex(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, (void *)9, &lock_word, 0), 2);
        if (held) {
            CHECK_INT(lock_word, (unsigned)tid() | FUTEX_WAITERS);
            unlock_pi();
        }
        for (int i = 0; i < 5; i++) pthread_join(threads[i], NULL);
        CHECK_INT(lock_word & FUTEX_TID_MASK, 0);
        lock_word = 0;
    }
    CHECK_INT(most_inside, 1);
}

static atomic_int xcpu;
static void on_xcpu(int sig) { xcpu += sig == SIGXCPU; }

static void cpu_limits(void) {
    int status;
    // The default is death, by the soft limit.
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {1, 3};
        setrlimit(RLIMIT_CPU, &limit);
        for (;;) {}
    }
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU);
    // A handler gets it every second until the hard limit; a child of the limited has the limit, too.
    child = fork();
    if (child == 0) {
        struct rlimit limit = {1, 3};
        setrlimit(RLIMIT_CPU, &limit);
        pid_t inner = fork();
        if (inner) {
            waitpid(inner, &status, 0);
            _exit(WIFSIGNALED(status) ? WTERMSIG(status) : 0);
        }
        signal(SIGXCPU, on_xcpu);
        while (xcpu < 2) {}
        getrlimit(RLIMIT_CPU, &limit);
        if (limit.rlim_cur != 3 || limit.rlim_max != 3) _exit(0);
        for (;;) {}
    }
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(WEXITSTATUS(status), SIGKILL);
}

int main(void) {
    GROUP(several_futexes);
    GROUP(one_call_for_each);
    GROUP(conditions_over_pi_locks);
    GROUP(cpu_limits);
    return finish();
}
