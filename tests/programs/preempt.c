// A busy loop, in a thread or in another process, does not keep others from running.
#include "check.h"

static atomic_int stop;
static atomic_long ticks;

static void *busy(void *arg) {
    (void)arg;
    // No syscall, no pause: only a timer gets this thread off its processor.
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {}
    return NULL;
}

static void *counter(void *arg) {
    (void)arg;
    for (int i = 0; i < 1000; i++) {
        ticks++;
        if (i % 100 == 0) sched_yield();
    }
    stop = 1;
    return NULL;
}

static void one_processor(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    CHECK(sched_setaffinity(0, sizeof set, &set) == 0);
}

static void threads(void) {
    pthread_t loops[4];
    for (int i = 0; i < 4; i++) loops[i] = start(busy, NULL);
    pthread_t other = start(counter, NULL);
    pthread_join(other, NULL);
    for (int i = 0; i < 4; i++) pthread_join(loops[i], NULL);
    CHECK_INT(ticks, 1000);
}

static void processes(void) {
    atomic_int *flag = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid = fork();
    if (pid == 0) {
        *flag = 1;
        for (;;) {} // until killed
    }
    // The parent is as busy, without a syscall.
    while (!*flag) {}
    CHECK(kill(pid, SIGTERM) == 0);
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

static volatile sig_atomic_t alarmed;
static void on_alarm(int signal) {
    (void)signal;
    alarmed = 1;
}

static void a_timer_reaches_a_busy_loop(void) {
    struct sigaction action = {.sa_handler = on_alarm};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    alarm(1);
    while (!alarmed) {}
}

int main(void) {
    one_processor();
    GROUP(threads);
    GROUP(processes);
    GROUP(a_timer_reaches_a_busy_loop);
    return finish();
}
