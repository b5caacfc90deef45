// flags: -Wno-array-bounds
// Signal semantics: flags, masks, nesting, alternate stacks, registers.
#include "check.h"
#include <setjmp.h>
#include <sys/time.h>
#include <ucontext.h>

static volatile sig_atomic_t count, depth, deepest, last_signal, last_code, last_value;
static volatile pid_t last_pid;
static volatile uintptr_t handler_stack;

static void counting(int signal) {
    last_signal = signal;
    count++;
}

static void informed(int signal, siginfo_t *info, void *context) {
    (void)context;
    char here;
    handler_stack = (uintptr_t)&here;
    last_signal = signal, last_code = info->si_code, last_pid = info->si_pid;
    last_value = info->si_value.sival_int;
    count++;
}

static void set(int signal, void *handler, int flags) {
    struct sigaction action = {.sa_flags = flags};
    if (flags & SA_SIGINFO) action.sa_sigaction = handler;
    else action.sa_handler = handler;
    CHECK(sigaction(signal, &action, NULL) == 0);
    count = 0;
}

static void mask(int how, int signal) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, signal);
    CHECK(sigprocmask(how, &signals, NULL) == 0);
}

static void siginfo_of_each_source(void) {
    set(SIGUSR1, informed, SA_SIGINFO);
    CHECK(kill(getpid(), SIGUSR1) == 0);
    CHECK_INT(last_code, SI_USER);
    CHECK_INT(last_pid, getpid());
    CHECK(raise(SIGUSR1) == 0);
    CHECK_INT(last_code, SI_TKILL);
    CHECK(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 4711}) == 0);
    CHECK_INT(last_code, SI_QUEUE);
    CHECK_INT(last_value, 4711);
    CHECK_INT(count, 3);
}

static void a_blocked_signal_waits(void) {
    set(SIGUSR1, counting, 0);
    mask(SIG_BLOCK, SIGUSR1);
    for (int i = 0; i < 3; i++) kill(getpid(), SIGUSR1);
    sigset_t pending;
    CHECK(sigpending(&pending) == 0);
    CHECK(sigismember(&pending, SIGUSR1) == 1);
    CHECK(sigismember(&pending, SIGUSR2) == 0);
    CHECK_INT(count, 0);
    mask(SIG_UNBLOCK, SIGUSR1);
    CHECK_INT(count, 1); // standard signals coalesce
    sigpending(&pending);
    CHECK(sigismember(&pending, SIGUSR1) == 0);
}

static int order[8], ordered;
static void in_order(int signal, siginfo_t *info, void *context) {
    (void)context;
    order[ordered++] = signal * 10 + info->si_value.sival_int;
}

static void queued_signals_keep_count_and_order(void) {
    set(SIGRTMIN + 1, in_order, SA_SIGINFO);
    set(SIGRTMIN + 2, in_order, SA_SIGINFO);
    mask(SIG_BLOCK, SIGRTMIN + 1);
    mask(SIG_BLOCK, SIGRTMIN + 2);
    sigqueue(getpid(), SIGRTMIN + 2, (union sigval){.sival_int = 1});
    for (int i = 1; i <= 3; i++) sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i});
    sigset_t none;
    sigemptyset(&none);
    CHECK(sigprocmask(SIG_SETMASK, &none, NULL) == 0);
    CHECK_INT(ordered, 4);
    int seen[4] = {0};
    for (int i = 0; i < ordered; i++)
        if (order[i] / 10 == SIGRTMIN + 1) seen[order[i] % 10]++;
    CHECK_INT(seen[1] + seen[2] * 10 + seen[3] * 100, 111);
    int last = 0;
    for (int i = 0; i < ordered; i++)
        if (order[i] / 10 == SIGRTMIN + 1) {
            CHECK(order[i] > last);
            last = order[i];
        }
    // Between the two numbers the order is what the kernel makes of it.
    for (int i = 0; i < ordered; i++) printf("order %d\n", order[i]);
}

static void sigsuspend_waits_with_another_mask(void) {
    set(SIGUSR1, counting, 0);
    mask(SIG_BLOCK, SIGUSR1);
    kill(getpid(), SIGUSR1);
    sigset_t none, now;
    sigemptyset(&none);
    CHECK_ERRNO(sigsuspend(&none), EINTR);
    CHECK_INT(count, 1);
    sigprocmask(SIG_BLOCK, NULL, &now);
    CHECK(sigismember(&now, SIGUSR1) == 1); // the old mask is back
    mask(SIG_UNBLOCK, SIGUSR1);
}

static void sigwait_takes_without_a_handler(void) {
    set(SIGUSR2, counting, 0);
    mask(SIG_BLOCK, SIGUSR2);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR2);
    struct timespec no_time = {0, 1000};
    CHECK_ERRNO(sigtimedwait(&signals, NULL, &no_time), EAGAIN);
    sigqueue(getpid(), SIGUSR2, (union sigval){.sival_int = 9});
    siginfo_t info;
    CHECK_INT(sigwaitinfo(&signals, &info), SIGUSR2);
    CHECK_INT(info.si_value.sival_int, 9);
    CHECK_INT(count, 0);
    mask(SIG_UNBLOCK, SIGUSR2);
}

static void nesting(int signal) {
    if (++depth > deepest) deepest = depth;
    if (++count < 3) raise(signal);
    depth--;
}

static void a_handler_blocks_its_own_signal(void) {
    deepest = 0;
    set(SIGUSR1, nesting, 0);
    raise(SIGUSR1);
    CHECK_INT(count, 3);
    CHECK_INT(deepest, 1);
}

static void nodefer_lets_it_nest(void) {
    deepest = 0;
    set(SIGUSR1, nesting, SA_NODEFER);
    raise(SIGUSR1);
    CHECK_INT(count, 3);
    CHECK_INT(deepest, 3);
}

static void resethand_works_once(void) {
    set(SIGURG, counting, SA_RESETHAND); // its default is to be ignored
    raise(SIGURG);
    raise(SIGURG);
    CHECK_INT(count, 1);
    struct sigaction now;
    CHECK(sigaction(SIGURG, NULL, &now) == 0);
    CHECK(now.sa_handler == SIG_DFL);
}

static void sa_mask_blocks_others(void) {
    struct sigaction action = {.sa_handler = nesting};
    sigaddset(&action.sa_mask, SIGUSR2);
    sigaction(SIGUSR1, &action, NULL);
    struct sigaction now;
    CHECK(sigaction(SIGUSR1, NULL, &now) == 0);
    CHECK(now.sa_handler == nesting);
    CHECK(sigismember(&now.sa_mask, SIGUSR2) == 1);
    CHECK(sigismember(&now.sa_mask, SIGINT) == 0);
}

static void an_alternate_stack_is_used(void) {
    static char stack[32768];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack}, old;
    CHECK(sigaltstack(&alternate, NULL) == 0);
    set(SIGUSR1, informed, SA_SIGINFO | SA_ONSTACK);
    raise(SIGUSR1);
    CHECK(handler_stack > (uintptr_t)stack && handler_stack < (uintptr_t)stack + sizeof stack);
    set(SIGUSR1, informed, SA_SIGINFO);
    raise(SIGUSR1);
    CHECK(handler_stack < (uintptr_t)stack || handler_stack > (uintptr_t)stack + sizeof stack);
    stack_t none = {.ss_flags = SS_DISABLE};
    CHECK(sigaltstack(&none, &old) == 0);
    CHECK(old.ss_sp == stack && old.ss_size == sizeof stack && old.ss_flags == 0);
    stack_t small = {.ss_sp = stack, .ss_size = 100};
    CHECK_ERRNO(sigaltstack(&small, NULL), ENOMEM);
}

struct nudge {
    pthread_t target;
    int signal, pipe;
};

/* Signals until the target's handler ran, then lets its read succeed. */
static void *nudge(void *arg) {
    struct nudge *nudge = arg;
    while (!count) {
        pthread_kill(nudge->target, nudge->signal);
        sched_yield();
    }
    if (write(nudge->pipe, "x", 1) != 1) failures++;
    return NULL;
}

static void interrupted(int flags, int expect_restart) {
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    set(SIGUSR1, counting, flags);
    struct nudge how = {pthread_self(), SIGUSR1, pipes[1]};
    pthread_t thread = start(nudge, &how);
    char byte = 0;
    ssize_t result;
    int first = 0;
    do {
        errno = 0;
        result = read(pipes[0], &byte, 1);
        if (result == -1) {
            CHECK_INT(errno, EINTR);
            first = 1;
        }
    } while (result == -1);
    CHECK_INT(result, 1);
    CHECK_INT(byte, 'x');
    // The signal may come just before the read begins, so without restart both are right.
    if (expect_restart) CHECK_INT(first, 0);
    pthread_join(thread, NULL);
    close(pipes[0]), close(pipes[1]);
}

static void restart_restarts(void) {
    for (int i = 0; i < 20; i++) interrupted(SA_RESTART, 1);
}

static void without_restart_it_is_eintr(void) {
    for (int i = 0; i < 20; i++) interrupted(0, 0);
    // Surely blocked: a timer interrupts it, again and again until it did.
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    set(SIGALRM, counting, 0);
    struct itimerval often = {{0, 2000}, {0, 2000}}, never = {{0, 0}, {0, 0}};
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    char byte;
    CHECK_ERRNO(read(pipes[0], &byte, 1), EINTR);
    CHECK_ERRNO(pause(), EINTR);
    struct timespec long_time = {100, 0}, left;
    CHECK_ERRNO(nanosleep(&long_time, &left), EINTR);
    CHECK(left.tv_sec == 99);
    CHECK(setitimer(ITIMER_REAL, &never, &often) == 0);
    CHECK_INT(often.it_interval.tv_usec, 2000);
    CHECK(count >= 3);
    close(pipes[0]), close(pipes[1]);
}

static sigjmp_buf jump;
static void jumping(int signal) {
    siglongjmp(jump, signal);
}

static void a_handler_may_jump_out(void) {
    set(SIGUSR1, jumping, 0);
    for (volatile int i = 0; i < 100; i++) {
        if (sigsetjmp(jump, 1) == 0) {
            raise(SIGUSR1);
            CHECK(0);
        }
        sigset_t now;
        sigprocmask(SIG_BLOCK, NULL, &now);
        CHECK(sigismember(&now, SIGUSR1) == 0);
    }
    set(SIGSEGV, jumping, 0);
    for (volatile int i = 0; i < 100; i++) {
        if (sigsetjmp(jump, 1) == 0) {
            *(volatile char *)(uintptr_t)8 = 1;
            CHECK(0);
        }
    }
    signal(SIGSEGV, SIG_DFL);
}

/* Overwrites every register it may. */
static void clobbering(int signal) {
    (void)signal;
    __asm__ volatile("pcmpeqd %%xmm0, %%xmm0\n\tpcmpeqd %%xmm1, %%xmm1\n\tpcmpeqd %%xmm15, %%xmm15\n\t"
                     "xor %%eax, %%eax\n\txor %%ecx, %%ecx\n\txor %%edx, %%edx\n\txor %%r8, %%r8\n\t"
                     "xor %%r9, %%r9\n\txor %%r10, %%r10\n\txor %%r11, %%r11\n\tstc\n\t"
                     "fldpi" ::: "xmm0", "xmm1", "xmm15", "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "cc", "st");
    if (__builtin_cpu_supports("avx")) __asm__ volatile("vzeroall" ::: "memory");
    count++;
}

/* Loops with known values in all registers until a signal came, and looks whether they are still there. */
static long registers_once(void) {
    static volatile sig_atomic_t *const flag = &count;
    uint64_t wrong;
    static const uint64_t pattern[4] = {0x1111222233334444, 0x5555666677778888, 0x99990000aaaabbbb, 0xccccddddeeeeffff};
    uint64_t out[4] = {0};
    __asm__ volatile(
        "movdqu (%[p]), %%xmm0\n\tmovdqu 16(%[p]), %%xmm1\n\tmovdqa %%xmm0, %%xmm15\n\t"
        "mov $0x0102030405060708, %%rax\n\tmov $0x1112131415161718, %%rcx\n\tmov $0x2122232425262728, %%rdx\n\t"
        "mov $0x3132333435363738, %%r8\n\tmov %%rax, %%r9\n\tmov %%rcx, %%r10\n\tmov %%rdx, %%r11\n\t"
        "1: cmpl $0, (%[flag])\n\tje 1b\n\t"
        "xor %%r12d, %%r12d\n\t"
        "mov $0x0102030405060708, %%r13\n\tsub %%rax, %%r13\n\tor %%r13, %%r12\n\tmov %%rax, %%r13\n\tsub %%r9, %%r13\n\tor %%r13, %%r12\n\t"
        "mov $0x1112131415161718, %%r13\n\tsub %%rcx, %%r13\n\tor %%r13, %%r12\n\tmov %%rcx, %%r13\n\tsub %%r10, %%r13\n\tor %%r13, %%r12\n\t"
        "mov $0x2122232425262728, %%r13\n\tsub %%rdx, %%r13\n\tor %%r13, %%r12\n\tmov %%rdx, %%r13\n\tsub %%r11, %%r13\n\tor %%r13, %%r12\n\t"
        "mov $0x3132333435363738, %%r13\n\tsub %%r8, %%r13\n\tor %%r13, %%r12\n\t"
        "pxor %%xmm15, %%xmm0\n\tmovdqu %%xmm0, (%[o])\n\tmovdqu %%xmm1, 16(%[o])\n\tmov %%r12, %[wrong]\n\t"
        : [wrong] "=&r"(wrong)
        : [p] "r"(pattern), [o] "r"(out), [flag] "r"(flag)
        : "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "xmm0", "xmm1", "xmm15", "memory", "cc");
    return wrong | out[0] | out[1] | (out[2] != pattern[2]) | (out[3] != pattern[3]);
}

/* The same for the upper halves. */
__attribute__((target("avx"))) static long upper_halves_once(void) {
    static volatile sig_atomic_t *const flag = &count;
    static const uint64_t pattern[4] = {1, 2, 0x99990000aaaabbbb, 0xccccddddeeeeffff};
    uint64_t out[4] = {0};
    __asm__ volatile("vmovdqu (%[p]), %%ymm7\n\t1: cmpl $0, (%[flag])\n\tje 1b\n\tvmovdqu %%ymm7, (%[o])\n\t"
                     :
                     : [p] "r"(pattern), [o] "r"(out), [flag] "r"(flag)
                     : "xmm7", "memory", "cc");
    return memcmp(pattern, out, sizeof out);
}

static void registers_survive_a_handler(void) {
    set(SIGALRM, clobbering, 0);
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (int i = 0; i < 50; i++) {
        count = 0;
        CHECK_INT(registers_once(), 0);
        count = 0;
        if (__builtin_cpu_supports("avx")) CHECK_INT(upper_halves_once(), 0);
    }
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
}

static void redirecting(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    ucontext_t *uc = context;
    uc->uc_mcontext.gregs[REG_RIP] += 2; // over the ud2
    uc->uc_mcontext.gregs[REG_RBX] = 0xabcdef;
}

static void a_handler_may_change_registers(void) {
    set(SIGILL, redirecting, SA_SIGINFO);
    long value = 0;
    for (int i = 0; i < 100; i++) {
        value = 0;
        __asm__ volatile("ud2" : "+b"(value));
        CHECK_INT(value, 0xabcdef);
    }
    signal(SIGILL, SIG_DFL);
}

static void alarms_and_timers(void) {
    set(SIGALRM, counting, 0);
    CHECK_INT(alarm(100), 0);
    CHECK_INT(alarm(0), 100);
    struct itimerval once = {{0, 0}, {0, 1000}};
    CHECK(setitimer(ITIMER_REAL, &once, NULL) == 0);
    while (count == 0) {}
    set(SIGVTALRM, counting, 0);
    CHECK(setitimer(ITIMER_VIRTUAL, &once, NULL) == 0);
    while (count == 0) {}
    set(SIGPROF, counting, 0);
    CHECK(setitimer(ITIMER_PROF, &once, NULL) == 0);
    while (count == 0) {}
}

static void ignored_and_unchangeable(void) {
    set(SIGUSR1, SIG_IGN, 0);
    raise(SIGUSR1);
    struct sigaction action = {.sa_handler = counting};
    CHECK_ERRNO(sigaction(SIGKILL, &action, NULL), EINVAL);
    CHECK_ERRNO(sigaction(SIGSTOP, &action, NULL), EINVAL);
    CHECK_ERRNO(sigaction(65, &action, NULL), EINVAL);
    CHECK_ERRNO(kill(getpid(), 65), EINVAL);
    CHECK_ERRNO(kill(999999, 0), ESRCH);
    mask(SIG_BLOCK, SIGKILL);
    sigset_t now;
    sigprocmask(SIG_BLOCK, NULL, &now);
    CHECK(sigismember(&now, SIGKILL) == 0);
}

static void fork_and_exec_inherit(void) {
    set(SIGUSR1, counting, 0);
    set(SIGUSR2, SIG_IGN, 0);
    mask(SIG_BLOCK, SIGHUP);
    raise(SIGHUP); // pending here, not in the child
    pid_t pid = fork();
    if (pid == 0) {
        sigset_t pending;
        sigpending(&pending);
        if (sigismember(&pending, SIGHUP)) _exit(1);
        execl("/proc/self/exe", "sig", "inherited", NULL);
        _exit(2);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    CHECK_INT(status, 0);
    signal(SIGHUP, SIG_IGN); // drops the pending one
    mask(SIG_UNBLOCK, SIGHUP);
}

static int inherited(void) {
    struct sigaction action;
    sigset_t now;
    sigaction(SIGUSR1, NULL, &action);
    CHECK(action.sa_handler == SIG_DFL);
    sigaction(SIGUSR2, NULL, &action);
    CHECK(action.sa_handler == SIG_IGN);
    sigprocmask(SIG_BLOCK, NULL, &now);
    CHECK(sigismember(&now, SIGHUP) == 1);
    return failures;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "inherited") == 0) return inherited();
    GROUP(siginfo_of_each_source);
    GROUP(a_blocked_signal_waits);
    GROUP(queued_signals_keep_count_and_order);
    GROUP(sigsuspend_waits_with_another_mask);
    GROUP(sigwait_takes_without_a_handler);
    GROUP(a_handler_blocks_its_own_signal);
    GROUP(nodefer_lets_it_nest);
    GROUP(resethand_works_once);
    GROUP(sa_mask_blocks_others);
    GROUP(an_alternate_stack_is_used);
    GROUP(restart_restarts);
    GROUP(without_restart_it_is_eintr);
    GROUP(a_handler_may_jump_out);
    GROUP(registers_survive_a_handler);
    GROUP(a_handler_may_change_registers);
    GROUP(alarms_and_timers);
    GROUP(ignored_and_unchangeable);
    GROUP(fork_and_exec_inherit);
    return finish();
}
