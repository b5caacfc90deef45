// A million signals to a thread in a syscall loop: none may be lost, no syscall may be disturbed.
#include "check.h"
#include <semaphore.h>

/* Without SIGURG, which Go programs such as runc send themselves and pass on. Standard signals coalesce while pending, so a round sends each of these once and waits for all their handlers. */
static const int standard[] = {SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGCHLD,
                               SIGTTIN, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGWINCH, SIGIO, SIGPWR};
#define KINDS ((long)(sizeof standard / sizeof *standard))

static atomic_long handled[65], total_handled, handled_rt, rt_sum;
static long queue;
static sem_t done;
static atomic_int stop;
static pid_t pid, parent;

static void on_standard(int signal) {
    int saved = errno;
    errno = 12345; // must not be seen outside
    handled[signal]++;
    if (++total_handled % KINDS == 0) sem_post(&done);
    errno = saved;
}

static void on_rt(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    int saved = errno;
    rt_sum += info->si_value.sival_int;
    if (++handled_rt == queue) sem_post(&done);
    errno = saved;
}

static void *worker(void *arg) {
    (void)arg;
    long calls = 0;
    for (; !stop; calls++) {
        errno = 0;
        if (getppid() != parent) failures++;
        if (getpid() != pid) failures++;
        if (syscall(SYS_getpid) != pid) failures++;
        // An error return must survive a handler at the same place.
        if (close(-1) != -1 || errno != EBADF) failures++;
    }
    return (void *)calls;
}

static void wait_for_handlers(void) {
    while (sem_wait(&done) == -1) CHECK_INT(errno, EINTR);
}

int main(int argc, char **argv) {
    long total = argument(argc, argv, 1, 1000000);
    pid = getpid(), parent = getppid();
    sem_init(&done, 0, 0);
    struct sigaction action = {.sa_handler = on_standard};
    for (long i = 0; i < KINDS; i++) CHECK(sigaction(standard[i], &action, NULL) == 0);
    struct sigaction queued = {.sa_sigaction = on_rt, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGRTMIN + 1, &queued, NULL) == 0);
    long rounds = total / 2 / KINDS;
    queue = total - rounds * KINDS;
    pthread_t thread = start(worker, NULL);

    for (long round = 0; round < rounds; round++) {
        for (long i = 0; i < KINDS; i++) CHECK_INT(pthread_kill(thread, standard[i]), 0);
        wait_for_handlers();
    }
    // Real-time signals queue; a full queue is EAGAIN.
    long sum = 0;
    for (long sent = 0; sent < queue; sent++) {
        union sigval value = {.sival_int = (int)(sent % 1000)};
        int error;
        while ((error = pthread_sigqueue(thread, SIGRTMIN + 1, value)) == EAGAIN) sched_yield();
        CHECK_INT(error, 0);
        sum += sent % 1000;
    }
    wait_for_handlers();
    stop = 1;
    void *calls;
    pthread_join(thread, &calls);
    for (long i = 0; i < KINDS; i++) CHECK_INT(handled[standard[i]], rounds);
    CHECK_INT(handled_rt, queue);
    CHECK_INT(rt_sum, sum);
    CHECK((long)calls > 0);
    printf("%ld standard, %ld queued\n", (long)total_handled, (long)handled_rt);
    return finish();
}
