// A million signals to a thread in a syscall loop: none may be lost, no syscall may be disturbed.
#include "check.h"

static atomic_long handled, handled_rt, rt_sum;
static atomic_int stop;
static pid_t pid, parent;

static void on_usr1(int signal) {
    (void)signal;
    int saved = errno;
    errno = 12345; // must not be seen outside
    handled++;
    errno = saved;
}

static void on_rt(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    handled_rt++;
    rt_sum += info->si_value.sival_int;
}

static void *worker(void *arg) {
    (void)arg;
    long seen = 0, calls = 0;
    while (!stop) {
        errno = 0;
        if (getppid() != parent) failures++;
        if (getpid() != pid) failures++;
        if (syscall(SYS_getpid) != pid) failures++;
        // An error return must survive a handler at the same place.
        if (close(-1) != -1 || errno != EBADF) failures++;
        calls++;
        long now = handled;
        if (now != seen) {
            // Hand the processor back where there is only one.
            seen = now;
            sched_yield();
        }
    }
    return (void *)calls;
}

int main(int argc, char **argv) {
    long total = argument(argc, argv, 1, 1000000);
    pid = getpid(), parent = getppid();
    struct sigaction action = {.sa_handler = on_usr1};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    struct sigaction queued = {.sa_sigaction = on_rt, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGRTMIN + 1, &queued, NULL) == 0);
    pthread_t thread = start(worker, NULL);

    // Standard signals coalesce while pending, so each waits for the handler of the one before.
    long standard = total / 2;
    for (long sent = 0; sent < standard; sent++) {
        CHECK_INT(pthread_kill(thread, SIGUSR1), 0);
        while (handled != sent + 1) sched_yield();
    }
    // Real-time signals queue; a full queue is EAGAIN.
    long queue = total - standard, sum = 0;
    for (long sent = 0; sent < queue; sent++) {
        union sigval value = {.sival_int = (int)(sent % 1000)};
        int error;
        while ((error = pthread_sigqueue(thread, SIGRTMIN + 1, value)) == EAGAIN) sched_yield();
        CHECK_INT(error, 0);
        sum += sent % 1000;
    }
    while (handled_rt != queue) sched_yield();
    stop = 1;
    void *calls;
    pthread_join(thread, &calls);
    CHECK_INT(handled, standard);
    CHECK_INT(handled_rt, queue);
    CHECK_INT(rt_sum, sum);
    CHECK((long)calls > 0);
    printf("%ld standard, %ld queued\n", (long)handled, (long)handled_rt);
    return finish();
}
