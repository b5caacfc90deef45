// Time: it goes forward, sleeps are never short. The last line is the wall clock in seconds, for the test to compare.
#include "check.h"
#include <sys/time.h>

static long long now(clockid_t clock) {
    struct timespec time;
    CHECK(clock_gettime(clock, &time) == 0);
    CHECK(time.tv_nsec >= 0 && time.tv_nsec < 1000000000);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static void monotone(void) {
    const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME, CLOCK_MONOTONIC_COARSE,
                                CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID};
    for (unsigned i = 0; i < sizeof clocks / sizeof *clocks; i++) {
        long long last = now(clocks[i]);
        long backwards = 0;
        for (int n = 0; n < 50000; n++) {
            long long next = now(clocks[i]);
            backwards += next < last;
            last = next;
        }
        CHECK_INT(backwards, 0);
    }
}

static void *watch(void *arg) {
    atomic_llong *latest = arg;
    long backwards = 0;
    for (int n = 0; n < 50000; n++) {
        long long seen = *latest, mine = now(CLOCK_MONOTONIC);
        backwards += mine < seen;
        while (seen < mine && !atomic_compare_exchange_weak(latest, &seen, mine)) {}
    }
    return (void *)backwards;
}

static void monotone_between_threads(void) {
    static atomic_llong latest;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) threads[i] = start(watch, &latest);
    for (int i = 0; i < 4; i++) {
        void *backwards;
        pthread_join(threads[i], &backwards);
        CHECK_INT((long)backwards, 0);
    }
}

static void vdso_and_syscall_agree(void) {
    for (int i = 0; i < 1000; i++) {
        struct timespec inner;
        long long before = now(CLOCK_MONOTONIC);
        CHECK(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &inner) == 0);
        long long after = now(CLOCK_MONOTONIC), middle = inner.tv_sec * 1000000000ll + inner.tv_nsec;
        CHECK(before <= middle && middle <= after);
    }
    struct timeval day;
    CHECK(gettimeofday(&day, NULL) == 0);
    CHECK(llabs(day.tv_sec - (long long)time(NULL)) <= 1);
}

static void sleeps_are_never_short(void) {
    const long lengths[] = {0, 1, 1000, 1000000, 30000000};
    for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct timespec length = {0, lengths[i]};
        long long before = now(CLOCK_MONOTONIC);
        CHECK(nanosleep(&length, NULL) == 0);
        CHECK(now(CLOCK_MONOTONIC) - before >= lengths[i]);
    }
    long long until = now(CLOCK_MONOTONIC) + 5000000;
    struct timespec absolute = {until / 1000000000, until % 1000000000};
    CHECK(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &absolute, NULL) == 0);
    CHECK(now(CLOCK_MONOTONIC) >= until);
}

static void arguments_are_checked(void) {
    struct timespec wrong = {0, 1000000000};
    CHECK_ERRNO(nanosleep(&wrong, NULL), EINVAL);
    wrong = (struct timespec){-1, 0};
    CHECK_ERRNO(nanosleep(&wrong, NULL), EINVAL);
    struct timespec time;
    CHECK_ERRNO(clock_gettime(1000, &time), EINVAL);
    CHECK(clock_getres(CLOCK_MONOTONIC, &time) == 0);
    CHECK(time.tv_sec == 0 && time.tv_nsec > 0);
}

int main(int argc, char **argv) {
    GROUP(monotone);
    GROUP(monotone_between_threads);
    GROUP(vdso_and_syscall_agree);
    GROUP(sleeps_are_never_short);
    GROUP(arguments_are_checked);
    int status = finish();
    if (argc > 1 && strcmp(argv[1], "wall") == 0) printf("%lld\n", (long long)time(NULL));
    return status;
}
