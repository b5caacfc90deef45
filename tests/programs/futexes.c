// Futexes beyond wait and wake: requeueing, wake-op, locks with owners, robust lists.
#include "check.h"
#include <linux/futex.h>

static long futex(void *word, int op, uint32_t value, unsigned long value2, void *second, uint32_t value3) {
    return syscall(SYS_futex, word, op, value, value2, second, value3);
}

static uint32_t gate, other;

/* Waits for the gate's futex without looking at its value again: the wake counts. */
static void *wait_once(void *arg) {
    while (futex(&gate, FUTEX_WAIT_PRIVATE, 0, 0, NULL, 0) == -1 && errno == EINTR) {}
    return arg;
}

static pthread_t waiters[64];

static void start_waiters(int count) {
    for (int i = 0; i < count; i++) waiters[i] = start(wait_once, NULL);
    usleep(100000);
}

static void join_waiters(int count) {
    for (int i = 0; i < count; i++) CHECK_INT(pthread_join(waiters[i], NULL), 0);
}

static void wakes_are_counted(void) {
    start_waiters(64);
    int woken = 0;
    for (int tries = 0; woken < 64 && tries < 10000; tries++) {
        long now = futex(&gate, FUTEX_WAKE_PRIVATE, 3, 0, NULL, 0);
        CHECK(now >= 0 && now <= 3);
        woken += now;
        if (now < 3) usleep(1000);
    }
    CHECK_INT(woken, 64);
    join_waiters(64);
}

static void requeue(void) {
    start_waiters(8);
    CHECK_ERRNO(futex(&gate, FUTEX_CMP_REQUEUE_PRIVATE, 1, 3, &other, 5), EAGAIN);
    CHECK_INT(futex(&gate, FUTEX_CMP_REQUEUE_PRIVATE, 1, 3, &other, 0), 4);
    CHECK_INT(futex(&other, FUTEX_WAKE_PRIVATE, 100, 0, NULL, 0), 3);
    CHECK_INT(futex(&gate, FUTEX_REQUEUE_PRIVATE, 0, 1, &other, 0), 1);
    CHECK_INT(futex(&other, FUTEX_WAKE_PRIVATE, 100, 0, NULL, 0), 1);
    other = 7;
    uint32_t add_one_if_seven = FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 7);
    CHECK_INT(futex(&gate, FUTEX_WAKE_OP_PRIVATE, 2, 9, &other, add_one_if_seven), 2);
    CHECK_INT(other, 8);
    CHECK_INT(futex(&gate, FUTEX_WAKE_PRIVATE, 100, 0, NULL, 0), 1);
    join_waiters(8);
    CHECK_ERRNO(futex(&gate, FUTEX_REQUEUE_PRIVATE, -1, 1, &other, 0), EINVAL);
}

static void arguments_are_checked(void) {
    void *nowhere = (void *)0x10000000;
    CHECK_ERRNO(futex((char *)&gate + 1, FUTEX_WAKE, 1, 0, NULL, 0), EINVAL);
    CHECK_ERRNO(futex(nowhere, FUTEX_WAKE, 1, 0, NULL, 0), EFAULT);
    CHECK_INT(futex(nowhere, FUTEX_WAKE_PRIVATE, 1, 0, NULL, 0), 0);
    CHECK_ERRNO(futex(nowhere, FUTEX_WAIT_PRIVATE, 1, 0, NULL, 0), EFAULT);
    CHECK_ERRNO(futex(&gate, FUTEX_WAKE_BITSET_PRIVATE, 1, 0, NULL, 0), EINVAL);
    CHECK_ERRNO(futex(&gate, 99, 1, 0, NULL, 0), ENOSYS);
    CHECK_ERRNO(futex(&gate, FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 1, 0, NULL, 0), ENOSYS);
    CHECK_ERRNO(syscall(SYS_set_robust_list, NULL, 23), EINVAL);
}

static void locks_with_owners(void) {
    uint32_t word = gettid();
    CHECK_ERRNO(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, 0, NULL, 0), EDEADLK);
    CHECK_INT(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, NULL, 0), 0);
    CHECK_INT(word, 0);
    CHECK_ERRNO(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, NULL, 0), EPERM);
    CHECK_INT(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, 0, NULL, 0), 0);
    CHECK_INT(word, gettid());
    word = 0x1fffff;
    CHECK_ERRNO(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, 0, NULL, 0), ESRCH);
    CHECK_ERRNO(futex(&word, FUTEX_TRYLOCK_PI_PRIVATE, 0, 0, NULL, 0), ESRCH);
}

static pthread_mutex_t lock;
static long sum;

static void *add(void *arg) {
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&lock);
        long before = sum;
        if (i % 50 == 0) sched_yield();
        sum = before + 1;
        pthread_mutex_unlock(&lock);
    }
    return arg;
}

static void owners_exclude_each_other(void) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    CHECK_INT(pthread_mutex_init(&lock, &attributes), 0);
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) threads[i] = start(add, NULL);
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    CHECK_INT(sum, 16000);
}

static void *die_with_the_lock(void *mutex) {
    pthread_mutex_lock(mutex);
    usleep(50000);
    return NULL;
}

static void a_dead_owner_is_noticed(int protocol, int shared) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setprotocol(&attributes, protocol);
    pthread_mutexattr_setpshared(&attributes, shared);
    pthread_mutex_t *mutex = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(mutex != MAP_FAILED);
    CHECK_INT(pthread_mutex_init(mutex, &attributes), 0);
    pthread_t thread = 0;
    pid_t child = 0;
    if (shared == PTHREAD_PROCESS_PRIVATE) {
        thread = start(die_with_the_lock, mutex);
    } else if ((child = fork()) == 0) {
        die_with_the_lock(mutex);
        _exit(0);
    }
    /* Once it is held, sleep on it. */
    for (int tries = 0; tries < 10000; tries++) {
        int error = pthread_mutex_trylock(mutex);
        if (error == EBUSY || error == EOWNERDEAD) {
            CHECK_INT(error == EBUSY ? pthread_mutex_lock(mutex) : error, EOWNERDEAD);
            break;
        }
        pthread_mutex_unlock(mutex);
        usleep(100);
    }
    CHECK_INT(pthread_mutex_consistent(mutex), 0);
    CHECK_INT(pthread_mutex_unlock(mutex), 0);
    CHECK_INT(pthread_mutex_lock(mutex), 0);
    CHECK_INT(pthread_mutex_unlock(mutex), 0);
    if (child) {
        CHECK_INT(waitpid(child, NULL, 0), child);
    } else {
        pthread_join(thread, NULL);
    }
    munmap(mutex, 4096);
}

static void robust(void) {
    a_dead_owner_is_noticed(PTHREAD_PRIO_NONE, PTHREAD_PROCESS_PRIVATE);
    a_dead_owner_is_noticed(PTHREAD_PRIO_NONE, PTHREAD_PROCESS_SHARED);
    a_dead_owner_is_noticed(PTHREAD_PRIO_INHERIT, PTHREAD_PROCESS_PRIVATE);
    a_dead_owner_is_noticed(PTHREAD_PRIO_INHERIT, PTHREAD_PROCESS_SHARED);
}

int main(void) {
    GROUP(wakes_are_counted);
    GROUP(requeue);
    GROUP(arguments_are_checked);
    GROUP(locks_with_owners);
    GROUP(owners_exclude_each_other);
    GROUP(robust);
    return finish();
}
