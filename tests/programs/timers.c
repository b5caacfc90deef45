// Timers of every kind, and what a thread asks of the scheduler. Bounds are wide: the machine may be busy.
#include "check.h"
#include <poll.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>

#define MS 1000000L

static volatile sig_atomic_t hits, overrun, value;

static void count(int signo, siginfo_t *info, void *context) {
    (void)signo, (void)context;
    hits++;
    overrun = info->si_overrun;
    value = info->si_value.sival_int;
}

static void handle(int signo) {
    struct sigaction action = {.sa_sigaction = count, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(signo, &action, NULL) == 0);
}

static long long now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* Keeps the CPU busy until a clock has gone on for so long. */
static void burn(clockid_t clock, long long ns) {
    long long end = now(clock) + ns;
    while (now(clock) < end) {}
}

/* Waits, at most ten seconds, until the handler ran so often. */
static void await_hits(int wanted) {
    for (int tries = 0; hits < wanted && tries < 10000; tries++) usleep(1000);
    CHECK(hits >= wanted);
}

static struct itimerspec every(long first, long interval) {
    return (struct itimerspec){{0, interval}, {0, first}};
}

static void interval_timers(void) {
    handle(SIGALRM);
    struct itimerval setting = {{0, 20000}, {0, 20000}}, old;
    hits = 0;
    CHECK(setitimer(ITIMER_REAL, &setting, NULL) == 0);
    await_hits(5);
    CHECK(getitimer(ITIMER_REAL, &old) == 0);
    CHECK(old.it_interval.tv_usec == 20000 && old.it_value.tv_usec > 0 && old.it_value.tv_usec <= 20000);
    setting = (struct itimerval){0};
    CHECK(setitimer(ITIMER_REAL, &setting, &old) == 0);
    int before = hits;
    usleep(50000);
    CHECK_INT(hits, before);
    CHECK_INT(alarm(5), 0);
    CHECK_INT(alarm(0), 5);
    CHECK_ERRNO(setitimer(9, &setting, NULL), EINVAL);
    setting.it_value.tv_usec = 1000000;
    CHECK_ERRNO(setitimer(ITIMER_REAL, &setting, NULL), EINVAL);
    CHECK_ERRNO(getitimer(ITIMER_REAL, (void *)8), EFAULT);
}

static void sleeps_and_signals(void) {
    handle(SIGALRM);
    struct timespec request = {5, 0}, left = {0, 0};
    struct itimerval once = {{0, 0}, {0, 30000}};
    CHECK(setitimer(ITIMER_REAL, &once, NULL) == 0);
    CHECK_ERRNO(nanosleep(&request, &left), EINTR);
    CHECK(left.tv_sec == 4);
    /* A stop does not end a sleep, and does not make it longer. */
    pid_t child = fork();
    if (child == 0) {
        request = (struct timespec){0, 200 * MS};
        long long start = now(CLOCK_MONOTONIC);
        int result = nanosleep(&request, NULL);
        _exit(result ? 1 : now(CLOCK_MONOTONIC) - start < 200 * MS ? 2 : 0);
    }
    usleep(50000);
    kill(child, SIGSTOP);
    int status;
    CHECK_INT(waitpid(child, &status, WUNTRACED), child);
    CHECK(WIFSTOPPED(status));
    kill(child, SIGCONT);
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
    CHECK_INT(clock_nanosleep(CLOCK_MONOTONIC_RAW, 0, &request, NULL), EOPNOTSUPP);
    CHECK_INT(clock_nanosleep(77, 0, &request, NULL), EINVAL);
}

static void posix_timers(void) {
    handle(SIGRTMIN);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 42};
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    struct itimerspec setting = every(10 * MS, 10 * MS), got;
    hits = 0;
    CHECK(timer_settime(timer, 0, &setting, NULL) == 0);
    await_hits(5);
    CHECK_INT(value, 42);

    /* While it is blocked expirations are counted, not queued. */
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, &old);
    hits = 0;
    burn(CLOCK_MONOTONIC, 105 * MS);
    CHECK(timer_gettime(timer, &got) == 0);
    CHECK(got.it_interval.tv_nsec == 10 * MS && got.it_value.tv_nsec > 0 && got.it_value.tv_nsec <= 10 * MS);
    CHECK_INT(hits, 0);
    sigprocmask(SIG_SETMASK, &old, NULL);
    CHECK(hits >= 1);
    CHECK(overrun >= 8 || hits > 1);
    hits = 0;
    await_hits(2);

    /* Ignored for a while, then not. */
    signal(SIGRTMIN, SIG_IGN);
    usleep(50000);
    handle(SIGRTMIN);
    hits = 0;
    await_hits(3);
    CHECK(timer_delete(timer) == 0);
    CHECK_ERRNO(timer_delete(timer), EINVAL);

    event.sigev_signo = 99;
    CHECK_ERRNO(timer_create(CLOCK_MONOTONIC, &event, &timer), EINVAL);
    event.sigev_notify = 77;
    CHECK_ERRNO(timer_create(CLOCK_MONOTONIC, &event, &timer), EINVAL);
    CHECK_ERRNO(timer_create(CLOCK_MONOTONIC_RAW, NULL, &timer), EOPNOTSUPP);
}

static void absolute_and_to_a_thread(void) {
    handle(SIGRTMIN);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
    event._sigev_un._tid = gettid();
    CHECK(timer_create(CLOCK_REALTIME, &event, &timer) == 0);
    long long at = now(CLOCK_REALTIME) + 30 * MS;
    struct itimerspec setting = {{0, 0}, {at / 1000000000, at % 1000000000}};
    hits = 0;
    CHECK(timer_settime(timer, TIMER_ABSTIME, &setting, NULL) == 0);
    await_hits(1);
    CHECK(now(CLOCK_REALTIME) >= at);
    CHECK_INT(timer_getoverrun(timer), 0);
    CHECK(timer_delete(timer) == 0);
}

static void cpu_time(void) {
    handle(SIGPROF);
    struct itimerval setting = {{0, 20000}, {0, 20000}};
    hits = 0;
    CHECK(setitimer(ITIMER_PROF, &setting, NULL) == 0);
    burn(CLOCK_PROCESS_CPUTIME_ID, 300 * MS);
    CHECK(hits >= 5 && hits <= 16);
    int before = hits;
    usleep(100000);
    CHECK(hits <= before + 1);
    setting = (struct itimerval){0};
    setitimer(ITIMER_PROF, &setting, NULL);

    handle(SIGRTMIN);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    struct itimerspec once = every(50 * MS, 0);
    CHECK(timer_create(CLOCK_PROCESS_CPUTIME_ID, &event, &timer) == 0);
    hits = 0;
    CHECK(timer_settime(timer, 0, &once, NULL) == 0);
    usleep(100000);
    CHECK_INT(hits, 0);
    burn(CLOCK_PROCESS_CPUTIME_ID, 100 * MS);
    CHECK_INT(hits, 1);
    timer_delete(timer);

    long long start = now(CLOCK_PROCESS_CPUTIME_ID);
    usleep(100000);
    CHECK(now(CLOCK_PROCESS_CPUTIME_ID) - start < 50 * MS);
    clockid_t clock;
    CHECK_INT(clock_getcpuclockid(getpid(), &clock), 0);
    CHECK(now(clock) >= start);
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
    CHECK(usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_sec * 1000000 +
              usage.ru_stime.tv_usec > 300000);
    CHECK(usage.ru_maxrss > 0);
    CHECK_ERRNO(getrusage(7, &usage), EINVAL);
    struct tms ticks;
    CHECK(times(&ticks) != -1);
    CHECK(ticks.tms_utime + ticks.tms_stime >= 30);
}

static void timer_descriptors(void) {
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    uint64_t expirations = 0;
    CHECK_ERRNO(read(fd, &expirations, 8), EAGAIN);
    struct itimerspec setting = every(10 * MS, 10 * MS), got;
    CHECK(timerfd_settime(fd, 0, &setting, NULL) == 0);
    usleep(35000);
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    CHECK_INT(poll(&ready, 1, 0), 1);
    CHECK_INT(read(fd, &expirations, 8), 8);
    CHECK(expirations >= 3);
    CHECK(timerfd_gettime(fd, &got) == 0);
    CHECK(got.it_value.tv_nsec > 0 && got.it_value.tv_nsec <= 10 * MS && got.it_interval.tv_nsec == 10 * MS);
    CHECK_ERRNO(read(fd, &expirations, 4), EINVAL);
    CHECK(close(fd) == 0);

    fd = timerfd_create(CLOCK_REALTIME, 0);
    setting = every(20 * MS, 0);
    long long start = now(CLOCK_MONOTONIC);
    CHECK(timerfd_settime(fd, 0, &setting, NULL) == 0);
    CHECK_INT(read(fd, &expirations, 8), 8);
    CHECK_INT(expirations, 1);
    CHECK(now(CLOCK_MONOTONIC) - start >= 20 * MS);
    CHECK(close(fd) == 0);

    CHECK_ERRNO(timerfd_create(CLOCK_PROCESS_CPUTIME_ID, 0), EINVAL);
    CHECK_ERRNO(timerfd_create(CLOCK_MONOTONIC, 1), EINVAL);
    CHECK_ERRNO(timerfd_settime(77, 0, &setting, NULL), EBADF);
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    CHECK_ERRNO(timerfd_settime(pipes[0], 0, &setting, NULL), EINVAL);
}

static void scheduling(void) {
    cpu_set_t set, none;
    CPU_ZERO(&set);
    CPU_ZERO(&none);
    CHECK(sched_getaffinity(0, sizeof set, &set) == 0);
    CHECK(CPU_COUNT(&set) >= 1);
    CHECK(sched_setaffinity(0, sizeof set, &set) == 0);
    CHECK_ERRNO(sched_setaffinity(0, sizeof none, &none), EINVAL);
    CHECK_ERRNO(sched_getaffinity(0, 3, &set), EINVAL);
    struct sched_param parameters = {0};
    CHECK_INT(sched_getscheduler(0), SCHED_OTHER);
    CHECK(sched_setscheduler(0, SCHED_BATCH, &parameters) == 0);
    CHECK_INT(sched_getscheduler(0), SCHED_BATCH);
    CHECK(sched_setscheduler(0, SCHED_OTHER, &parameters) == 0);
    parameters.sched_priority = 5;
    CHECK_ERRNO(sched_setscheduler(0, SCHED_OTHER, &parameters), EINVAL);
    CHECK_ERRNO(sched_setscheduler(0, 77, &parameters), EINVAL);
    CHECK_ERRNO(sched_getscheduler(3999999), ESRCH);
    CHECK_ERRNO(sched_getscheduler(-1), EINVAL);
    CHECK_INT(sched_get_priority_max(SCHED_FIFO), 99);
    CHECK_INT(sched_get_priority_min(SCHED_RR), 1);
    CHECK_INT(sched_get_priority_max(SCHED_OTHER), 0);
    CHECK_ERRNO(sched_get_priority_max(77), EINVAL);
    CHECK_INT(getpriority(PRIO_PROCESS, 0), 0);
    CHECK(setpriority(PRIO_PROCESS, 0, 5) == 0);
    CHECK_INT(getpriority(PRIO_PROCESS, 0), 5);
    pid_t child = fork();
    if (child == 0) _exit(getpriority(PRIO_PROCESS, 0));
    int status;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(WEXITSTATUS(status), 5);
    CHECK_ERRNO(getpriority(9, 0), EINVAL);
    CHECK_ERRNO(setpriority(PRIO_PROCESS, 3999999, 1), ESRCH);
    struct timespec slice;
    CHECK(sched_rr_get_interval(0, &slice) == 0);
    unsigned cpu, node;
    CHECK(getcpu(&cpu, &node) == 0);
    CHECK(cpu < 4096);
}

int main(void) {
    GROUP(interval_timers);
    GROUP(sleeps_and_signals);
    GROUP(posix_timers);
    GROUP(absolute_and_to_a_thread);
    GROUP(cpu_time);
    GROUP(timer_descriptors);
    GROUP(scheduling);
    return finish();
}
