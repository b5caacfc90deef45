// fork in the middle of signals and of many threads at one syscall site.
#include "sites.h"

#define THREADS 16
static atomic_int stop;
static atomic_long handled;

static void on_usr1(int signal) {
    (void)signal;
    handled++;
}

static void *caller(void *arg) {
    (void)arg;
    long tid = syscall(SYS_gettid), wrong = 0;
    for (long i = 0; !stop; i++) wrong += mov_sites[i % SITES]() != tid;
    CHECK_INT(wrong, 0);
    return NULL;
}

static void *sender(void *arg) {
    pthread_t target = *(pthread_t *)arg;
    while (!stop) {
        CHECK_INT(pthread_kill(target, SIGUSR1), 0);
        sched_yield();
    }
    return NULL;
}

/* Runs in the child: only what is safe after fork in a threaded program. */
static int child(int index, const char *shared, char *private) {
    long pid = syscall(SYS_getpid);
    for (int i = 0; i < 100; i++) {
        if (mov_sites[i % SITES]() != pid) return 201;
        if (reg_sites[i % SITES]() != pid) return 202;
        if (split_sites[i % SITES](i & 1) != pid) return 203;
    }
    if (shared[0] != 's' || private[0] != 'p') return 204;
    private[0] = (char)index; // copied on write: the parent must not see it
    return index % 200;
}

int main(int argc, char **argv) {
    long forks = argument(argc, argv, 1, 200);
    struct sigaction action = {.sa_handler = on_usr1, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *private = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    shared[0] = 's', private[0] = 'p';
    pthread_t threads[THREADS], senders[2], self = pthread_self();
    for (int i = 0; i < THREADS; i++) threads[i] = start(caller, NULL);
    senders[0] = start(sender, &threads[0]);
    senders[1] = start(sender, &self);

    for (int i = 0; i < forks; i++) {
        pid_t pid = fork();
        if (pid == 0) _exit(child(i, shared, private));
        CHECK(pid > 0);
        int status = -1;
        pid_t waited;
        while ((waited = waitpid(pid, &status, 0)) == -1 && errno == EINTR) {}
        CHECK_INT(waited, pid);
        CHECK(WIFEXITED(status));
        CHECK_INT(WEXITSTATUS(status), i % 200);
        CHECK_INT(private[0], 'p');
    }
    stop = 1;
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++) pthread_join(senders[i], NULL);
    CHECK(handled > 0);
    CHECK_ERRNO(wait(NULL), ECHILD);
    return finish();
}
