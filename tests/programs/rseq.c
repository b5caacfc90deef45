// Restartable sequences: registration, and a counter for each CPU that only they make exact.
#include "check.h"
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/time.h>

#define SIGNATURE 0x53053053

struct area {
    uint32_t cpu_id_start, cpu_id;
    uint64_t cs;
    uint32_t flags, node_id, mm_cid, end;
} __attribute__((aligned(32)));

struct section {
    uint32_t version, flags;
    uint64_t start, bytes, abort;
} __attribute__((aligned(32)));

static long rseq(void *area, unsigned bytes, int flags, unsigned signature) {
    return syscall(SYS_rseq, area, bytes, flags, signature);
}

static __thread struct area mine;

// glibc registers one for each thread; this program runs with it told not to (GLIBC_TUNABLES), or takes its place.
static void registration(void) {
    CHECK_ERRNO(rseq(&mine, 31, 0, SIGNATURE), EINVAL);
    CHECK_ERRNO(rseq((char *)&mine + 8, 32, 0, SIGNATURE), EINVAL);
    CHECK_ERRNO(rseq(&mine, 32, 2, SIGNATURE), EINVAL);
    CHECK_ERRNO(rseq(&mine, 32, 1, SIGNATURE), EINVAL);
    mine.cpu_id = -1;
    CHECK_INT(rseq(&mine, 32, 0, SIGNATURE), 0);
    CHECK(mine.cpu_id == (uint32_t)sched_getcpu() || sched_getcpu() < 0);
    CHECK(mine.cpu_id == mine.cpu_id_start);
    CHECK_ERRNO(rseq(&mine, 32, 0, SIGNATURE), EBUSY);
    CHECK_ERRNO(rseq(&mine, 32, 0, SIGNATURE + 1), EPERM);
    struct area other;
    CHECK_ERRNO(rseq(&other, 32, 0, SIGNATURE), EINVAL);
    CHECK_ERRNO(rseq(&mine, 32, 1, SIGNATURE + 1), EPERM);
    pid_t child = fork();
    if (child == 0) _exit(rseq(&mine, 32, 0, SIGNATURE) == -1 && errno == EBUSY ? 0 : 1);
    int status;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
    CHECK_INT(rseq(&mine, 32, 1, SIGNATURE), 0);
    CHECK_INT((int)mine.cpu_id, -1);
}

static volatile long counters[4096];
static long rounds;

// Loads, dawdles, stores: whoever comes between makes the store wrong, unless the section starts again.
static int count_one(uint32_t cpu) {
    int result;
    __asm__ volatile(
        ".pushsection .data.rseq, \"aw\"\n"
        ".balign 32\n"
        "3: .long 0, 0\n"
        ".quad 1f, 2f - 1f, 4f\n"
        ".popsection\n"
        "lea 3b(%%rip), %%rax\n"
        "mov %%rax, %[cs]\n"
        "1: cmp %[cpu], %[id]\n"
        "jne 5f\n"
        "mov (%[counter]), %%rcx\n"
        "mov $300, %%edx\n"
        "6: dec %%edx\n"
        "jnz 6b\n"
        "inc %%rcx\n"
        "mov %%rcx, (%[counter])\n"
        "2: xor %[result], %[result]\n"
        "jmp 7f\n"
        ".pushsection .text.rseq_abort, \"ax\"\n"
        ".byte 0x0f, 0xb9, 0x3d\n"
        ".long 0x53053053\n"
        "4: jmp 5f\n"
        ".popsection\n"
        "5: mov $1, %[result]\n"
        "7:\n"
        : [result] "=&r"(result), [cs] "=m"(mine.cs)
        : [cpu] "r"(cpu), [id] "m"(mine.cpu_id), [counter] "r"(&counters[cpu])
        : "rax", "rcx", "rdx", "memory", "cc");
    return result;
}

static volatile sig_atomic_t handled;
static void on_alarm(int sig) {
    // The handler counts too: in the middle of a section, unless that is aborted first.
    (void)sig;
    handled++;
    uint32_t cpu = mine.cpu_id_start;
    counters[cpu & 4095]++;
}

static void *worker(void *arg) {
    CHECK_INT(rseq(&mine, 32, 0, SIGNATURE), 0);
    for (long i = 0; i < rounds; i++)
        while (count_one(mine.cpu_id_start)) {}
    rseq(&mine, 32, 1, SIGNATURE);
    return arg;
}

int main(int argc, char **argv) {
    if (!getenv("GLIBC_TUNABLES")) {
        setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
        execv("/proc/self/exe", argv);
    }
    rounds = argc > 1 ? atol(argv[1]) : 200000;
    GROUP(registration);
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval every = {{0, 3000}, {0, 3000}};
    setitimer(ITIMER_REAL, &every, NULL);
    // Only the main thread takes the signals, and it counts as well.
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, worker, NULL) == 0);
    CHECK_INT(rseq(&mine, 32, 0, SIGNATURE), 0);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    for (long i = 0; i < rounds; i++)
        while (count_one(mine.cpu_id_start)) {}
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    struct itimerval off = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &off, NULL);
    long sum = 0;
    for (int i = 0; i < 4096; i++) sum += counters[i];
    // The handler is not atomic against the others' sections on its CPU, but they are against it.
    CHECK(handled > 0);
    CHECK_INT(sum, 4 * rounds + handled);
    return finish();
}
