// Random but replayable work on processes, memory, signals and futexes: stress SEED OPERATIONS [WORKERS]
//
// Every operation checks itself against what it knows must come out; what a worker saw is hashed. The hashes depend
// on the seed only, never on timing, so that two kernels can be compared.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u

static uint64_t state, hash, seed;
static unsigned worker, operation;
static const char *doing = "starting";
extern char **environ;

static uint64_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}
static unsigned below(unsigned n) { return (next() >> 33) % n; }
static void see(uint64_t value) { hash = (hash ^ value) * 0x100000001b3u; }

static void fail(const char *what, long got, long want) {
    fprintf(stderr, "seed %lu worker %u operation %u (%s): %s: got %ld, want %ld, errno %d\n", seed, worker, operation,
            doing, what, got, want, errno);
    _exit(99);
}
#define WANT(what, got, want) do { long g_ = (long)(got), w_ = (long)(want); if (g_ != w_) fail(what, g_, w_); } while (0)
#define GOOD(what, condition) do { if (!(condition)) fail(what, 0, 1); } while (0)

static int reap(pid_t pid) {
    int status;
    pid_t got;
    do got = waitpid(pid, &status, 0); while (got < 0 && errno == EINTR);
    WANT("waitpid", got, pid);
    return status;
}

static void fork_exit(void) {
    unsigned children = 1 + below(4), codes[4];
    pid_t pids[4];
    for (unsigned i = 0; i < children; i++) {
        codes[i] = below(256);
        pids[i] = fork();
        GOOD("fork", pids[i] >= 0);
        if (!pids[i]) {
            if (codes[i] % 5 == 0) raise(SIGKILL);
            _exit(codes[i]);
        }
    }
    for (unsigned i = children; i-- > 0;) {
        int status = reap(pids[i]);
        if (codes[i] % 5 == 0) GOOD("killed", WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        else WANT("exit status", status, codes[i] << 8);
        see(status);
    }
    errno = 0;
    WANT("no child left", waitpid(-1, NULL, WNOHANG), -1);
    WANT("ECHILD", errno, ECHILD);
}

// What an executed copy of this program does: says yes to the arguments it expects.
static int executed(int argc, char **argv) {
    unsigned length = atoi(argv[2]), sum = 0;
    for (char *c = argv[3]; *c; c++) sum = sum * 31 + (unsigned char)*c;
    if (argc != 5 || strlen(argv[3]) != length || sum != (unsigned)strtoul(argv[4], NULL, 10)) return 1;
    return getenv("STRESS") && !strcmp(getenv("STRESS"), argv[2]) ? 42 : 2;
}

static void exec_one(void) {
    unsigned length = below(9000), way = below(3);
    volatile unsigned sum = 0;
    char *text = malloc(length + 1), length_text[16], sum_text[16], variable[32];
    for (unsigned i = 0; i < length; i++) text[i] = 'a' + below(26);
    text[length] = 0;
    for (char *c = text; *c; c++) sum = sum * 31 + (unsigned char)*c;
    snprintf(length_text, 16, "%u", length);
    snprintf(sum_text, 16, "%u", sum);
    snprintf(variable, 32, "STRESS=%u", length);
    char *argv[] = {"stress", "executed", length_text, text, sum_text, NULL}, *envp[] = {variable, NULL};
    pid_t pid;
    if (way == 2) WANT("posix_spawn", posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, envp), 0);
    else {
        pid = way ? vfork() : fork();
        GOOD("fork", pid >= 0);
        if (!pid) {
            execve("/proc/self/exe", argv, envp);
            _exit(98);
        }
    }
    WANT("executed", reap(pid), 42 << 8);
    see(sum);
    free(text);
}

// A mapping and what each of its pages holds: 0 unmapped, else protection and contents.
static void map_model(void) {
    enum { PAGES = 600 };
    unsigned pages = 1 + below(PAGES);
    static uint32_t held[PAGES];
    static uint8_t prot[PAGES];
    uint8_t *at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    GOOD("mmap", at != MAP_FAILED);
    for (unsigned i = 0; i < pages; i++) prot[i] = 3, held[i] = 0;
    for (unsigned step = 4 + below(30); step-- > 0;) {
        unsigned first = below(pages), count = 1 + below(pages - first), kind = below(7);
        void *start = at + first * PAGE;
        switch (kind) {
        case 0: case 1:
            for (unsigned i = first; i < first + count; i++)
                if (prot[i] == 3) *(uint32_t *)(at + i * PAGE + i % 1000 * 4) = held[i] = next();
            break;
        case 2: {
            unsigned p = below(3);
            int wanted = p == 0 ? PROT_NONE : p == 1 ? PROT_READ : PROT_READ | PROT_WRITE;
            int known = 1;
            for (unsigned i = first; i < first + count; i++) known &= prot[i] != 0xff;
            errno = 0;
            WANT("mprotect", mprotect(start, count * PAGE, wanted), known ? 0 : -1);
            for (unsigned i = first; i < first + count; i++) {
                if (prot[i] == 0xff) break;
                prot[i] = wanted == PROT_NONE ? 0 : wanted;
            }
            break;
        }
        case 3:
            WANT("munmap", munmap(start, count * PAGE), 0);
            for (unsigned i = first; i < first + count; i++) prot[i] = 0xff, held[i] = 0;
            break;
        case 4:
            GOOD("mmap fixed", mmap(start, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == start);
            for (unsigned i = first; i < first + count; i++) prot[i] = 3, held[i] = 0;
            break;
        case 5: {
            int known = 1;
            for (unsigned i = first; i < first + count; i++) known &= prot[i] != 0xff;
            WANT("madvise", madvise(start, count * PAGE, MADV_DONTNEED), known ? 0 : -1);
            for (unsigned i = first; i < first + count; i++) held[i] = 0;
            break;
        }
        case 6: {
            // A child sees all of it, and what it writes stays its own.
            pid_t pid = fork();
            GOOD("fork", pid >= 0);
            if (!pid) {
                for (unsigned i = 0; i < pages; i++) {
                    if (prot[i] == 0 || prot[i] == 0xff) continue;
                    uint32_t *word = (uint32_t *)(at + i * PAGE + i % 1000 * 4);
                    if (*word != held[i]) _exit(1);
                    if (prot[i] == 3) *word = ~held[i];
                }
                _exit(0);
            }
            if (below(2)) for (unsigned i = 0; i < pages; i += 3)
                if (prot[i] == 3) *(uint32_t *)(at + i * PAGE + i % 1000 * 4) = held[i] = next();
            WANT("the child's view", reap(pid), 0);
            break;
        }
        }
        for (unsigned i = 0; i < pages; i++) {
            if (prot[i] == 0 || prot[i] == 0xff) continue;
            WANT("contents", *(uint32_t *)(at + i * PAGE + i % 1000 * 4), held[i]);
        }
    }
    for (unsigned i = 0; i < pages; i++) see(held[i] + prot[i]);
    if (prot[0] == 3 && below(2)) {
        unsigned more = below(2 * pages) + 1;
        uint8_t *moved = mremap(at, PAGE, more * PAGE, MREMAP_MAYMOVE);
        GOOD("mremap", moved != MAP_FAILED);
        WANT("moved", *(uint32_t *)moved, held[0]);
        for (unsigned i = 1; i < more; i++) WANT("new", moved[i * PAGE + 5], 0);
        munmap(moved, more * PAGE);
        if (moved != at) munmap(at + PAGE, (pages - 1) * PAGE);
        else if (pages > more) munmap(at + more * PAGE, (pages - more) * PAGE);
    } else munmap(at, pages * PAGE);
}

static void shared_memory(void) {
    unsigned children = 1 + below(4), rounds = 1 + below(500);
    atomic_uint *word = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    GOOD("mmap", word != MAP_FAILED);
    pid_t pids[4];
    for (unsigned i = 0; i < children; i++) {
        pids[i] = fork();
        GOOD("fork", pids[i] >= 0);
        if (!pids[i]) {
            for (unsigned j = 0; j < rounds; j++) {
                atomic_fetch_add(word, 1);
                if (j % 64 == 0) sched_yield();
            }
            _exit(0);
        }
    }
    for (unsigned i = 0; i < children; i++) WANT("child", reap(pids[i]), 0);
    WANT("sum", *word, children * rounds);
    see(*word);
    munmap(word, PAGE);
}

static struct { pthread_mutex_t mutex; pthread_cond_t more; unsigned count, taken; } shop;

static void *seller(void *rounds) {
    for (uintptr_t i = 0; i < (uintptr_t)rounds; i++) {
        pthread_mutex_lock(&shop.mutex);
        shop.count++;
        if (i % 3) pthread_cond_signal(&shop.more); else pthread_cond_broadcast(&shop.more);
        pthread_mutex_unlock(&shop.mutex);
    }
    return NULL;
}
static void *buyer(void *rounds) {
    for (uintptr_t i = 0; i < (uintptr_t)rounds; i++) {
        pthread_mutex_lock(&shop.mutex);
        while (!shop.count) pthread_cond_wait(&shop.more, &shop.mutex);
        shop.count--;
        shop.taken++;
        pthread_mutex_unlock(&shop.mutex);
    }
    return rounds;
}
static void threads(void) {
    uintptr_t rounds = 1 + below(150);
    unsigned pairs = 1 + below(5), protocol = below(3);
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    if (protocol == 1) pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    if (protocol == 2) pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&shop.mutex, &attributes);
    pthread_cond_init(&shop.more, NULL);
    shop.count = shop.taken = 0;
    pthread_t all[10];
    for (unsigned i = 0; i < pairs; i++) {
        WANT("create", pthread_create(&all[2 * i], NULL, buyer, (void *)rounds), 0);
        WANT("create", pthread_create(&all[2 * i + 1], NULL, seller, (void *)rounds), 0);
    }
    for (unsigned i = 0; i < 2 * pairs; i++) WANT("join", pthread_join(all[i], NULL), 0);
    WANT("taken", shop.taken, pairs * rounds);
    WANT("left", shop.count, 0);
    see(shop.taken);
    pthread_mutex_destroy(&shop.mutex);
}

static void *dies_with_the_lock(void *mutex) {
    pthread_mutex_lock(mutex);
    return NULL;
}
static void robust(void) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutex_t *mutex = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutex_init(mutex, &attributes);
    if (below(2)) {
        pthread_t thread;
        WANT("create", pthread_create(&thread, NULL, dies_with_the_lock, mutex), 0);
        pthread_join(thread, NULL);
    } else {
        pid_t pid = fork();
        if (!pid) {
            pthread_mutex_lock(mutex);
            raise(SIGKILL);
        }
        reap(pid);
    }
    WANT("owner died", pthread_mutex_lock(mutex), EOWNERDEAD);
    WANT("consistent", pthread_mutex_consistent(mutex), 0);
    WANT("unlock", pthread_mutex_unlock(mutex), 0);
    munmap(mutex, PAGE);
    see(EOWNERDEAD);
}

static volatile unsigned signals, values;
static void on_signal(int signo, siginfo_t *info, void *context) {
    (void)context;
    signals++;
    values += info->si_code == SI_QUEUE ? info->si_value.sival_int : signo;
}
static void queued_signals(void) {
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | (below(2) ? SA_RESTART : 0)};
    unsigned count = 1 + below(60), sum = 0;
    int signo = SIGRTMIN + below(SIGRTMAX - SIGRTMIN + 1);
    sigaction(signo, &action, NULL);
    sigset_t set, old, pending;
    sigemptyset(&set);
    sigaddset(&set, signo);
    signals = values = 0;
    int blocked = below(2);
    if (blocked) sigprocmask(SIG_BLOCK, &set, &old);
    for (unsigned i = 0; i < count; i++) {
        unsigned value = below(1000);
        sum += value;
        WANT("sigqueue", sigqueue(getpid(), signo, (union sigval){.sival_int = value}), 0);
    }
    if (blocked) {
        WANT("none yet", signals, 0);
        sigpending(&pending);
        WANT("pending", sigismember(&pending, signo), 1);
        if (below(2)) {
            siginfo_t info;
            for (unsigned i = 0; i < count; i++) {
                WANT("sigwaitinfo", sigwaitinfo(&set, &info), signo);
                values += info.si_value.sival_int;
                signals++;
            }
            struct timespec none = {0};
            WANT("none left", sigtimedwait(&set, &info, &none), -1);
        }
        sigprocmask(SIG_SETMASK, &old, NULL);
    }
    WANT("signals", signals, count);
    WANT("values", values, sum);
    see(sum);
    signal(signo, SIG_DFL);
}

static void interrupted_read(void) {
    int restart = below(2), ends[2];
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | (restart ? SA_RESTART : 0)};
    sigaction(SIGUSR1, &action, NULL);
    GOOD("pipe", !pipe(ends));
    signals = 0;
    pid_t parent = getpid(), pid = fork();
    if (!pid) {
        // Only when it sleeps in the read.
        char path[64], text[256];
        snprintf(path, 64, "/proc/%d/stat", parent);
        for (;;) {
            int fd = open(path, O_RDONLY);
            ssize_t length = read(fd, text, 255);
            close(fd);
            if (length <= 0) _exit(1);
            text[length] = 0;
            char *after = strrchr(text, ')');
            if (after && after[2] == 'S') break;
            sched_yield();
        }
        kill(parent, SIGUSR1);
        struct timespec pause = {0, 1000000};
        nanosleep(&pause, NULL);
        WANT("write", write(ends[1], "x", 1), 1);
        _exit(0);
    }
    char byte = 0;
    ssize_t got = read(ends[0], &byte, 1);
    if (got < 0) {
        WANT("EINTR", errno, EINTR);
        WANT("not restarted", restart, 0);
        do got = read(ends[0], &byte, 1); while (got < 0 && errno == EINTR);
    }
    WANT("read", got, 1);
    WANT("byte", byte, 'x');
    WANT("signal", signals, 1);
    WANT("child", reap(pid), 0);
    close(ends[0]);
    close(ends[1]);
    see(restart);
}

static sigjmp_buf back;
static void on_fault(int signo, siginfo_t *info, void *context) {
    (void)signo;
    (void)context;
    values = (uintptr_t)info->si_addr % 1000003;
    siglongjmp(back, info->si_code + 10);
}
static void faults(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | (below(2) ? SA_NODEFER : 0)}, old;
    sigaction(SIGSEGV, &action, &old);
    for (unsigned i = 1 + below(5); i-- > 0;) {
        int readable = below(2);
        volatile uint8_t *at = mmap(NULL, 3 * PAGE, readable ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        unsigned offset = below(3 * PAGE);
        volatile unsigned unmapped = below(2);
        if (unmapped) munmap((void *)at, 3 * PAGE);
        int code = sigsetjmp(back, 1);
        if (!code) {
            at[offset] = 1;
            fail("no fault", 0, 1);
        }
        WANT("code", code, (unmapped ? SEGV_MAPERR : SEGV_ACCERR) + 10);
        WANT("address", values, (uintptr_t)(at + offset) % 1000003);
        see(code);
        if (!unmapped) munmap((void *)at, 3 * PAGE);
    }
    sigaction(SIGSEGV, &old, NULL);
}

static void pipes(void) {
    unsigned bytes = 1 + below(300000);
    uint64_t saved = state;
    int ends[2];
    GOOD("pipe", !pipe(ends));
    pid_t pid = fork();
    if (!pid) {
        static uint8_t chunk[9000];
        close(ends[0]);
        for (unsigned left = bytes; left;) {
            unsigned length = 1 + below(9000);
            if (length > left) length = left;
            for (unsigned i = 0; i < length; i++) chunk[i] = left - i;
            for (unsigned done = 0; done < length;) {
                ssize_t wrote = write(ends[1], chunk + done, length - done);
                if (wrote <= 0) _exit(1);
                done += wrote;
            }
            left -= length;
        }
        _exit(0);
    }
    state = saved;
    close(ends[1]);
    static uint8_t chunk[7000];
    unsigned left = bytes;
    for (ssize_t got; (got = read(ends[0], chunk, 1 + below(7000))) > 0;) {
        for (ssize_t i = 0; i < got; i++) WANT("byte", chunk[i], (uint8_t)(left - i));
        left -= got;
    }
    WANT("rest", left, 0);
    WANT("writer", reap(pid), 0);
    close(ends[0]);
    // How often was read depends on timing.
    state = saved;
    next();
    see(bytes);
}

static atomic_int gate, through;
static void *waits_at_the_gate(void *unused) {
    (void)unused;
    while (!atomic_load(&gate)) syscall(SYS_futex, &gate, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    atomic_fetch_add(&through, 1);
    return NULL;
}
static void futex_gate(void) {
    unsigned count = 1 + below(12);
    pthread_t all[12];
    gate = through = 0;
    for (unsigned i = 0; i < count; i++) WANT("create", pthread_create(&all[i], NULL, waits_at_the_gate, NULL), 0);
    if (below(2)) sched_yield();
    atomic_store(&gate, 1);
    long woken = 0;
    if (below(2)) woken = syscall(SYS_futex, &gate, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    else {
        static atomic_int elsewhere;
        syscall(SYS_futex, &gate, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)(long)INT_MAX, &elsewhere, 1);
        syscall(SYS_futex, &elsewhere, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    }
    GOOD("woken", woken >= 0 && woken <= (long)count);
    for (unsigned i = 0; i < count; i++) pthread_join(all[i], NULL);
    WANT("through", through, count);
    struct timespec soon = {0, 200000};
    WANT("timeout", syscall(SYS_futex, &gate, FUTEX_WAIT_PRIVATE, 1, &soon, NULL, 0), -1);
    WANT("ETIMEDOUT", errno, ETIMEDOUT);
    see(count);
}

// A fork out of a process with threads: the child has one.
static void *spins(void *stop) {
    while (!atomic_load((atomic_int *)stop)) sched_yield();
    return NULL;
}
static void fork_among_threads(void) {
    atomic_int stop = 0;
    pthread_t all[3];
    unsigned count = 1 + below(3);
    for (unsigned i = 0; i < count; i++) WANT("create", pthread_create(&all[i], NULL, spins, &stop), 0);
    for (unsigned i = 1 + below(4); i-- > 0;) {
        pid_t pid = fork();
        GOOD("fork", pid >= 0);
        if (!pid) {
            if (i % 2) {
                char *argv[] = {"stress", "executed", "1", "a", "97", NULL}, *envp[] = {"STRESS=1", NULL};
                execve("/proc/self/exe", argv, envp);
                _exit(98);
            }
            char *memory = malloc(100000);
            memset(memory, i, 100000);
            _exit(memory[77777] == (char)i ? 42 : 1);
        }
        WANT("child", reap(pid), 42 << 8);
    }
    atomic_store(&stop, 1);
    for (unsigned i = 0; i < count; i++) pthread_join(all[i], NULL);
    see(count);
}

static void timers(void) {
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    sigaction(SIGALRM, &action, NULL);
    signals = 0;
    struct itimerspec period = {.it_value = {0, 300000}, .it_interval = {0, 300000}};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    timer_t timer;
    // All processes of the user share RLIMIT_SIGPENDING.
    int created;
    do created = timer_create(CLOCK_MONOTONIC, &event, &timer); while (created && errno == EAGAIN);
    WANT("timer_create", created, 0);
    timer_settime(timer, 0, &period, NULL);
    unsigned wanted = 1 + below(5);
    uint64_t work = 1;
    while (signals < wanted) work = work * 6364136223846793005u + 1;
    timer_delete(timer);
    signal(SIGALRM, SIG_IGN);
    see(wanted);
}

static const struct { const char *name; void (*run)(void); } OPERATIONS[] = {
    {"fork_exit", fork_exit}, {"exec", exec_one}, {"map_model", map_model}, {"map_model", map_model},
    {"shared_memory", shared_memory}, {"threads", threads}, {"robust", robust}, {"queued_signals", queued_signals},
    {"interrupted_read", interrupted_read}, {"faults", faults}, {"pipes", pipes}, {"futex_gate", futex_gate},
    {"fork_among_threads", fork_among_threads}, {"timers", timers},
};
#define KINDS (sizeof OPERATIONS / sizeof *OPERATIONS)

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "executed")) return executed(argc, argv);
    if (argc < 3) return fprintf(stderr, "usage: stress SEED OPERATIONS [WORKERS [KIND]]\n"), 2;
    seed = strtoull(argv[1], NULL, 10);
    unsigned operations = atoi(argv[2]), workers = argc > 3 ? atoi(argv[3]) : 4;
    int only = argc > 4 ? atoi(argv[4]) : -1;
    pid_t pids[64];
    int ends[64][2];
    if (workers > 64) return 2;
    for (worker = 0; worker < workers; worker++) {
        GOOD("pipe", !pipe(ends[worker]));
        pids[worker] = fork();
        if (pids[worker]) continue;
        state = seed * 0x9e3779b97f4a7c15u + worker + 1;
        for (int i = 0; i < 10; i++) next();
        hash = 0xcbf29ce484222325u;
        for (operation = 0; operation < operations; operation++) {
            // Each operation starts from its own number: what one draws depends on no other's timing.
            uint64_t own = next();
            unsigned kind = only >= 0 ? (unsigned)only : below(KINDS);
            uint64_t after = state;
            state = own | 1;
            doing = OPERATIONS[kind].name;
            OPERATIONS[kind].run();
            see(kind);
            state = after;
        }
        WANT("report", write(ends[worker][1], &hash, 8), 8);
        _exit(0);
    }
    int bad = 0;
    for (worker = 0; worker < workers; worker++) {
        int status = reap(pids[worker]);
        hash = 0;
        if (status) printf("worker %u: status %#x\n", worker, status), bad = 1;
        else if (read(ends[worker][0], &hash, 8) == 8) printf("worker %u: %016lx\n", worker, hash);
    }
    return bad;
}
