// flags: -fnon-call-exceptions -fasynchronous-unwind-tables
// Unwinding from signal handlers: through a blocked call, and at every instruction around a call's site. Each frame is shown
// by the function it is in.
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <execinfo.h>
#include <pthread.h>
#include <sched.h>
#include <stdexcept>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

#define NOINLINE extern "C" __attribute__((noinline, noclone))

// A function whose call of getppid(2) is `mov $110, %eax; syscall`, as the C library has it, with frames described at
// every instruction.
asm(".text\n"
    ".globl plain_call, plain_call_end\n.type plain_call, @function\n"
    "plain_call:\n.cfi_startproc\n"
    "push %rbx\n.cfi_adjust_cfa_offset 8\n.cfi_rel_offset %rbx, 0\n"
    "mov $110, %eax\nsyscall\n"
    "cmp $-4095, %rax\njae 1f\n"
    "1: pop %rbx\n.cfi_adjust_cfa_offset -8\n.cfi_restore %rbx\n"
    "ret\n.cfi_endproc\nplain_call_end:\n.size plain_call, . - plain_call\n"
    // The number comes from elsewhere.
    ".globl other_call, other_call_end\n.type other_call, @function\n"
    "other_call:\n.cfi_startproc\n"
    "mov %rdi, %rax\nsyscall\n"
    "cmp $-4095, %rax\njae 1f\n"
    "1: ret\n.cfi_endproc\nother_call_end:\n.size other_call, . - other_call\n");
extern "C" void plain_call(), plain_call_end(), other_call(long), other_call_end();

NOINLINE int blocks(int fd);
NOINLINE int calls_blocks(int fd);
NOINLINE void on_signal(int);
NOINLINE void steps();
NOINLINE void body();
int main();

static int fds[2];
static volatile int seen;

struct Known {
    const char *name;
    void *start;
};

static const Known known[] = {
    {"blocks", (void *)blocks},         {"calls_blocks", (void *)calls_blocks}, {"on_signal", (void *)on_signal},
    {"plain_call", (void *)plain_call}, {"other_call", (void *)other_call},     {"steps", (void *)steps},
    {"body", (void *)body},             {"main", (void *)main},
};

static char trace[400];

// Names the functions of the program; what is the C library's shows as one dot, however many frames it has.
static _Unwind_Reason_Code frame(_Unwind_Context *context, void *arg) {
    (void)arg;
    int before = 0;
    unsigned long ip = _Unwind_GetIPInfo(context, &before);
    void *start = _Unwind_FindEnclosingFunction((void *)(before ? ip + 1 : ip));
    const char *name = ".";
    for (const Known &one : known)
        if (one.start == start) name = one.name;
    size_t len = strlen(trace);
    bool again = !strcmp(name, ".") && len >= 2 && !strcmp(trace + len - 2, " .");
    if (!again) snprintf(trace + len, sizeof trace - len, " %s", name);
    return start == (void *)main ? _URC_END_OF_STACK : _URC_NO_REASON;
}

NOINLINE void backtrace_here() {
    trace[0] = 0;
    _Unwind_Backtrace(frame, nullptr);
}

enum What { SHOW, THROW };
static volatile What what;

NOINLINE void on_signal(int) {
    seen = seen + 1;
    if (what == THROW) throw std::runtime_error("from the handler");
    backtrace_here();
    printf("blocked:%s\n", trace);
    // The same addresses by backtrace(3).
    void *addresses[32];
    int count = backtrace(addresses, 32);
    int of_ours = 0;
    for (int i = 0; i < count; i++)
        for (const Known &one : known)
            if (_Unwind_FindEnclosingFunction(addresses[i]) == one.start) of_ours++;
    printf("backtrace finds %d of ours\n", of_ours);
    fflush(stdout);
    if (write(fds[1], "x", 1) != 1) abort();
}

NOINLINE int blocks(int fd) {
    char byte;
    int got = read(fd, &byte, 1);
    asm volatile("" ::: "memory");
    return got;
}

struct Noisy {
    const char *name;
    ~Noisy() { printf("unwound %s\n", name); }
};

NOINLINE int calls_blocks(int fd) {
    Noisy noisy{"calls_blocks"};
    int got = blocks(fd);
    asm volatile("" ::: "memory");
    return got;
}

static pthread_t first;

// Kills the first thread once it sleeps in its read.
static void *kicks(void *) {
    char path[64], text[512], *state;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
    do {
        sched_yield();
        FILE *file = fopen(path, "r");
        if (!file || !fgets(text, sizeof text, file)) abort();
        fclose(file);
        state = strrchr(text, ')');
    } while (!state || state[2] != 'S');
    pthread_kill(first, SIGUSR1);
    return nullptr;
}

static void blocked_in_read() {
    // So that its site is translated, if sites are.
    for (int i = 0; i < 3; i++) {
        if (write(fds[1], "x", 1) != 1) abort();
        blocks(fds[0]);
    }
    for (int round = 0; round < 4; round++) {
        what = round & 1 ? THROW : SHOW;
        pthread_t thread;
        if (pthread_create(&thread, nullptr, kicks, nullptr)) abort();
        try {
            printf("read %d\n", calls_blocks(fds[0]));
        } catch (const std::runtime_error &error) {
            printf("caught: %s\n", error.what());
            sigset_t set;
            sigemptyset(&set);
            sigaddset(&set, SIGUSR1);
            pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
        }
        pthread_join(thread, nullptr);
    }
    printf("handled %d\n", seen);
}

static volatile bool throws_at_step;
static volatile unsigned long throw_at;

// Shows where the program stands, in plain_call and other_call only.
static void on_step(int, siginfo_t *, void *context) {
    unsigned long ip = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    unsigned long plain = (unsigned long)plain_call, other = (unsigned long)other_call;
    bool in_plain = ip >= plain && ip < (unsigned long)plain_call_end;
    bool in_other = ip >= other && ip < (unsigned long)other_call_end;
    if (!in_plain && !in_other) return;
    if (throws_at_step) {
        if (ip != throw_at) return;
        ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~0x100l;
        throw std::runtime_error("from a step");
    }
    backtrace_here();
    printf("at %s+%lu:%s\n", in_plain ? "plain" : "other", ip - (in_plain ? plain : other), trace);
}

NOINLINE void steps() {
    asm volatile("pushf; orl $0x100, (%%rsp); popf" ::: "memory", "cc");
    plain_call();
    other_call(SYS_getppid);
    asm volatile("pushf; andl $~0x100, (%%rsp); popf" ::: "memory", "cc");
}

static void around_the_site() {
    for (int i = 0; i < 20; i++) {
        plain_call();
        other_call(SYS_getppid);
    }
    struct sigaction action = {};
    action.sa_sigaction = on_step;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGTRAP, &action, nullptr);
    steps();
    throws_at_step = true;
    unsigned long site = (unsigned long)plain_call + 6;
    for (unsigned long at : {site - 5, site, site + 8}) {
        throw_at = at;
        try {
            steps();
            printf("nothing thrown at +%lu\n", at - (unsigned long)plain_call);
        } catch (const std::runtime_error &error) {
            printf("at +%lu caught: %s\n", at - (unsigned long)plain_call, error.what());
        }
    }
}

// The unwinder runs when a thread that is blocked in a call is cancelled.
static void *cancelled(void *) {
    Noisy noisy{"the cancelled thread"};
    calls_blocks(fds[0]);
    return nullptr;
}

static void cancelling() {
    pthread_t thread;
    if (pthread_create(&thread, nullptr, cancelled, nullptr)) abort();
    pthread_cancel(thread);
    void *result;
    pthread_join(thread, &result);
    printf("cancelled: %d\n", result == PTHREAD_CANCELED);
}

NOINLINE void body() {
    blocked_in_read();
    around_the_site();
    cancelling();
}

int main() {
    first = pthread_self();
    if (pipe(fds)) abort();
    struct sigaction action = {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, nullptr);
    body();
    printf("all ok\n");
    return 0;
}
