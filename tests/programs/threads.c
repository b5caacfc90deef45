// flags: -Wno-array-bounds
// Threads, mutexes, futexes, thread-local storage.
#include "check.h"
#include <linux/futex.h>

static void *doubled(void *arg) {
    return (void *)((long)arg * 2);
}

static void create_and_join_a_thousand(void) {
    for (long i = 0; i < 1000; i++) {
        void *value;
        CHECK_INT(pthread_join(start(doubled, (void *)i), &value), 0);
        CHECK_INT((long)value, i * 2);
    }
}

static void many_at_once(void) {
    pthread_t threads[200];
    for (long i = 0; i < 200; i++) threads[i] = start(doubled, (void *)i);
    for (long i = 0; i < 200; i++) {
        void *value;
        CHECK_INT(pthread_join(threads[i], &value), 0);
        CHECK_INT((long)value, i * 2);
    }
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static int turn, turns;
#define TURNS 5000

static void *player(void *arg) {
    int me = (int)(long)arg;
    pthread_mutex_lock(&mutex);
    while (turns < TURNS) {
        if (turn != me) {
            pthread_cond_wait(&turned, &mutex);
            continue;
        }
        turns++;
        turn = !turn;
        pthread_cond_broadcast(&turned);
    }
    pthread_mutex_unlock(&mutex);
    return NULL;
}

static void ping_pong(void) {
    pthread_t a = start(player, (void *)0), b = start(player, (void *)1);
    pthread_join(a, NULL);
    pthread_join(b, NULL);
    CHECK_INT(turns, TURNS);
}

static long guarded;
static void *adder(void *arg) {
    (void)arg;
    for (int i = 0; i < 20000; i++) {
        pthread_mutex_lock(&mutex);
        guarded++;
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

static void a_mutex_excludes(void) {
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) threads[i] = start(adder, NULL);
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    CHECK_INT(guarded, 160000);
}

static long futex(uint32_t *word, int op, uint32_t value, const struct timespec *timeout) {
    return syscall(SYS_futex, word, op, value, timeout, NULL, FUTEX_BITSET_MATCH_ANY);
}

static void futex_timeouts(void) {
    uint32_t word = 5;
    struct timespec soon = {0, 2000000}, before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    CHECK_ERRNO(futex(&word, FUTEX_WAIT_PRIVATE, 5, &soon), ETIMEDOUT);
    clock_gettime(CLOCK_MONOTONIC, &after);
    long waited = (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec;
    CHECK(waited >= 2000000); // never too early
    CHECK_ERRNO(futex(&word, FUTEX_WAIT_PRIVATE, 4, NULL), EAGAIN);
    CHECK_INT(futex(&word, FUTEX_WAKE_PRIVATE, 1, NULL), 0);
    // An absolute time in the past is over at once.
    CHECK_ERRNO(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 5, &before), ETIMEDOUT);
    CHECK_ERRNO(futex((uint32_t *)((char *)&word + 1), FUTEX_WAIT_PRIVATE, 5, NULL), EINVAL);
    struct timespec wrong = {0, 2000000000};
    CHECK_ERRNO(futex(&word, FUTEX_WAIT_PRIVATE, 5, &wrong), EINVAL);
    pthread_mutex_lock(&mutex);
    clock_gettime(CLOCK_REALTIME, &after);
    CHECK_INT(pthread_cond_timedwait(&turned, &mutex, &after), ETIMEDOUT);
    pthread_mutex_unlock(&mutex);
}

static void futex_between_processes(void) {
    uint32_t *word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid = fork();
    if (pid == 0) {
        while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == 0) futex(word, FUTEX_WAIT, 0, NULL);
        _exit(*word);
    }
    __atomic_store_n(word, 33, __ATOMIC_SEQ_CST);
    futex(word, FUTEX_WAKE, 1, NULL);
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_INT(WEXITSTATUS(status), 33);
}

static __thread long local = 7;
static __thread char block[5000];
static pthread_key_t key;
static atomic_int destroyed;

static void destroy(void *value) {
    destroyed += (int)(long)value;
}

static void *own_storage(void *arg) {
    long me = (long)arg;
    CHECK_INT(local, 7);
    for (int i = 0; i < 5000; i += 500) CHECK_INT(block[i], 0);
    local = me;
    memset(block, (int)me, sizeof block);
    pthread_setspecific(key, (void *)1);
    for (int i = 0; i < 100; i++) {
        sched_yield();
        CHECK_INT(local, me);
        CHECK_INT(block[4999], (char)me);
    }
    return NULL;
}

static void thread_local_storage(void) {
    pthread_key_create(&key, destroy);
    pthread_t threads[20];
    for (long i = 0; i < 20; i++) threads[i] = start(own_storage, (void *)(i + 100));
    for (int i = 0; i < 20; i++) pthread_join(threads[i], NULL);
    CHECK_INT(local, 7);
    CHECK_INT(destroyed, 20);
}

static pthread_barrier_t barrier;
static atomic_int arrivals;
static void *meets(void *arg) {
    (void)arg;
    for (int i = 1; i <= 100; i++) {
        arrivals++;
        pthread_barrier_wait(&barrier);
        CHECK(arrivals >= i * 10);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static void barriers(void) {
    pthread_barrier_init(&barrier, NULL, 10);
    pthread_t threads[10];
    for (int i = 0; i < 10; i++) threads[i] = start(meets, NULL);
    for (int i = 0; i < 10; i++) pthread_join(threads[i], NULL);
    CHECK_INT(arrivals, 1000);
}

static void *forever(void *arg) {
    (void)arg;
    for (;;) pause();
    return NULL;
}

static void cancellation(void) {
    pthread_t thread = start(forever, NULL);
    CHECK_INT(pthread_cancel(thread), 0);
    void *value;
    CHECK_INT(pthread_join(thread, &value), 0);
    CHECK(value == PTHREAD_CANCELED);
}

static void exit_ends_every_thread(void) {
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < 5; i++) start(forever, NULL);
        exit(44);
    }
    int status;
    waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 44);
}

static void *leaves_last(void *arg) {
    (void)arg;
    _exit(45);
}

static void the_first_thread_may_leave_first(void) {
    pid_t pid = fork();
    if (pid == 0) {
        start(leaves_last, NULL);
        pthread_exit(NULL);
    }
    int status;
    waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 45);
}

static void *crashes(void *arg) {
    (void)arg;
    *(volatile int *)8 = 1;
    return NULL;
}

static void a_fault_in_one_thread_kills_all(void) {
    pid_t pid = fork();
    if (pid == 0) {
        start(forever, NULL);
        start(crashes, NULL);
        for (;;) pause();
    }
    int status;
    waitpid(pid, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static void *executes(void *arg) {
    (void)arg;
    execl("/proc/self/exe", "threads", "executed", NULL);
    _exit(1);
}

static void exec_in_a_thread_ends_the_others(void) {
    pid_t pid = fork();
    if (pid == 0) {
        start(forever, NULL);
        start(executes, NULL);
        for (;;) pause();
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 46);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "executed") == 0) return getpid() == syscall(SYS_gettid) ? 46 : 1;
    GROUP(create_and_join_a_thousand);
    GROUP(many_at_once);
    GROUP(ping_pong);
    GROUP(a_mutex_excludes);
    GROUP(futex_timeouts);
    GROUP(futex_between_processes);
    GROUP(thread_local_storage);
    GROUP(barriers);
    GROUP(cancellation);
    GROUP(exit_ends_every_thread);
    GROUP(the_first_thread_may_leave_first);
    GROUP(a_fault_in_one_thread_kills_all);
    GROUP(exec_in_a_thread_ends_the_others);
    return finish();
}
