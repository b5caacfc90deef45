/* ptrace(2): requests, signals, system calls, steps and breakpoints. Prints what a tracer sees. */
#include "check.h"
#include <elf.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

#define P(request, addr, data) ptrace(request, child, (void *)(long)(addr), (void *)(long)(data))

static pid_t child;
static int status;
static volatile long shared_word = 42;
static volatile int handled;

static const char *errno_name(void) {
    switch (errno) {
    case EPERM: return "EPERM";
    case ESRCH: return "ESRCH";
    case EIO: return "EIO";
    case EINVAL: return "EINVAL";
    case EFAULT: return "EFAULT";
    case ECHILD: return "ECHILD";
    default: return strerror(errno);
    }
}

/* A result or the error's name. */
#define SHOW(call)                                                    \
    do {                                                              \
        errno = 0;                                                    \
        long value_ = (long)(call);                                   \
        if (value_ == -1 && errno) printf("%s: %s\n", #call, errno_name()); \
        else printf("%s: %ld\n", #call, value_);                      \
    } while (0)

static int wait_child(void) {
    if (waitpid(child, &status, __WALL) != child) {
        printf("waitpid: %s\n", errno_name());
        exit(1);
    }
    return status;
}

static void show_stop(const char *what) {
    wait_child();
    siginfo_t info = {0};
    int has = ptrace(PTRACE_GETSIGINFO, child, 0, &info) == 0;
    printf("%s: status %x", what, status);
    if (has) printf(" signo %d code %x", info.si_signo, info.si_code);
    else printf(" no siginfo");
    printf("\n");
}

static struct user_regs_struct regs(void) {
    struct user_regs_struct r;
    CHECK_INT(ptrace(PTRACE_GETREGS, child, 0, &r), 0);
    return r;
}

/* Starts `body` in a child that is traced and stands at its first SIGSTOP. */
static void trace(void (*body)(void)) {
    fflush(stdout);
    child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, 0, 0)) _exit(99);
        raise(SIGSTOP);
        body();
        _exit(0);
    }
    wait_child();
    CHECK_INT(status, SIGSTOP << 8 | 0x7f);
}

static void run_out(void) {
    P(PTRACE_CONT, 0, 0);
    wait_child();
    printf("ended: %x\n", status);
}

static void end(void) {
    P(PTRACE_SETOPTIONS, 0, 0);
    kill(child, SIGKILL);
    wait_child();
    CHECK_INT(status, SIGKILL);
}

static void nothing(void) {}

static void requests(void) {
    SHOW(ptrace(PTRACE_PEEKDATA, getpid(), 0, 0));
    SHOW(ptrace(PTRACE_ATTACH, getpid(), 0, 0));
    SHOW(ptrace(PTRACE_ATTACH, 999999, 0, 0));
    SHOW(ptrace(PTRACE_SEIZE, 1, 8, 0));
    trace(nothing);
    SHOW(P(PTRACE_ATTACH, 0, 0));
    SHOW(P(PTRACE_SEIZE, 0, 0));
    SHOW(P(PTRACE_SEIZE, 0, 0x10000));
    SHOW(P(PTRACE_INTERRUPT, 0, 0));
    SHOW(P(PTRACE_LISTEN, 0, 0));
    SHOW(P(PTRACE_PEEKDATA, &shared_word, 0));
    SHOW(P(PTRACE_PEEKDATA, 8, 0));
    SHOW(P(PTRACE_POKEDATA, 8, 0));
    SHOW(P(PTRACE_POKEDATA, &shared_word, 43));
    SHOW(P(PTRACE_PEEKDATA, &shared_word, 0));
    SHOW(P(PTRACE_PEEKTEXT, (long)&shared_word + 1, 0) & 0xff);
    SHOW(P(PTRACE_PEEKUSER, 3, 0));
    SHOW(P(PTRACE_PEEKUSER, 928, 0));
    SHOW(P(PTRACE_PEEKUSER, 920, 0));
    SHOW(P(PTRACE_PEEKUSER, sizeof(struct user_regs_struct), 0));
    SHOW(P(PTRACE_POKEUSER, sizeof(struct user_regs_struct), 0));
    SHOW(P(PTRACE_PEEKUSER, offsetof(struct user, regs.cs), 0));
    SHOW(P(PTRACE_POKEUSER, offsetof(struct user, regs.cs), 0x10));
    SHOW(P(PTRACE_POKEUSER, offsetof(struct user, regs.fs_base), 1ul << 63));
    SHOW(P(PTRACE_POKEUSER, offsetof(struct user, regs.r15), 4711));
    SHOW(P(PTRACE_PEEKUSER, offsetof(struct user, regs.r15), 0));
    SHOW(P(PTRACE_PEEKUSER, offsetof(struct user, u_debugreg[7]), 0));
    SHOW(P(PTRACE_POKEUSER, offsetof(struct user, u_debugreg[7]), 0));
    SHOW(P(PTRACE_POKEUSER, offsetof(struct user, u_debugreg[4]), 0));
    SHOW(P(PTRACE_SETOPTIONS, 0, 0x8000));
    SHOW(P(PTRACE_SETOPTIONS, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXIT));
    SHOW(P(PTRACE_CONT, 0, 65));
    SHOW(P(PTRACE_DETACH, 0, 65));
    SHOW(P(4242, 0, 0));
    SHOW(P(PTRACE_GETSIGMASK, 4, 0));

    unsigned long mask = 0, message = 1;
    SHOW(P(PTRACE_GETSIGMASK, 8, &mask));
    printf("mask %lx\n", mask);
    mask = ~0ul;
    SHOW(P(PTRACE_SETSIGMASK, 8, &mask));
    SHOW(P(PTRACE_GETSIGMASK, 8, &mask));
    printf("mask %lx\n", mask);
    mask = 0;
    SHOW(P(PTRACE_SETSIGMASK, 8, &mask));
    SHOW(P(PTRACE_GETEVENTMSG, 0, &message));
    printf("message %lu\n", message);
    SHOW(P(PTRACE_GETEVENTMSG, 0, 8));

    struct user_regs_struct set;
    struct iovec iov = {&set, sizeof set};
    SHOW(P(PTRACE_GETREGSET, NT_PRSTATUS, &iov));
    printf("bytes %zu, cs %llx\n", iov.iov_len, set.cs);
    iov.iov_len = 100;
    SHOW(P(PTRACE_GETREGSET, NT_PRSTATUS, &iov));
    iov.iov_len = 16;
    SHOW(P(PTRACE_GETREGSET, NT_PRSTATUS, &iov));
    printf("bytes %zu\n", iov.iov_len);
    iov.iov_len = 8;
    set.r15 = 99;
    SHOW(P(PTRACE_SETREGSET, NT_PRSTATUS, &iov));
    SHOW(P(PTRACE_PEEKUSER, offsetof(struct user, regs.r15), 0));
    iov.iov_len = sizeof set;
    SHOW(P(PTRACE_GETREGSET, 4711, &iov));
    SHOW(P(PTRACE_GETREGSET, NT_PRSTATUS, 8));

    struct user_fpregs_struct fp;
    SHOW(P(PTRACE_GETFPREGS, 0, &fp));
    printf("cwd %x mxcsr %x\n", fp.cwd, fp.mxcsr);
    fp.mxcsr |= 1u << 30;
    SHOW(P(PTRACE_SETFPREGS, 0, &fp));
    static char area[8192];
    iov.iov_base = area, iov.iov_len = sizeof area;
    SHOW(P(PTRACE_GETREGSET, NT_X86_XSTATE, &iov));
    printf("xsave has a header: %d, x87 and sse: %lx\n", iov.iov_len >= 576, *(long *)(area + 464) & 3);
    size_t whole = iov.iov_len;
    iov.iov_len = 64;
    SHOW(P(PTRACE_SETREGSET, NT_X86_XSTATE, &iov));
    iov.iov_len = whole;
    SHOW(P(PTRACE_SETREGSET, NT_X86_XSTATE, &iov));

    siginfo_t info;
    SHOW(P(PTRACE_GETSIGINFO, 0, &info));
    printf("signo %d code %d pid is its own: %d\n", info.si_signo, info.si_code, info.si_pid == child);
    SHOW(P(PTRACE_GETSIGINFO, 0, 8));
    end();
    SHOW(P(PTRACE_CONT, 0, 0));
}

static void on_usr(int signo, siginfo_t *info, void *context) {
    (void)context;
    handled++;
    printf("handler %d code %d value %d\n", signo, info->si_code, info->si_value.sival_int);
    fflush(stdout);
}

static void catch(void) {
    struct sigaction action = {.sa_sigaction = on_usr, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
}

static void raises(void) {
    catch();
    signal(SIGURG, SIG_IGN);
    raise(SIGUSR1);
    raise(SIGUSR1);
    raise(SIGUSR1);
    raise(SIGURG);
    raise(SIGWINCH);
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    raise(SIGUSR1);
    sigset_t pending;
    sigpending(&pending);
    printf("pending %d\n", sigismember(&pending, SIGUSR2));
    fflush(stdout);
    sigprocmask(SIG_UNBLOCK, &blocked, NULL);
    union sigval value = {.sival_int = 5};
    sigqueue(getpid(), SIGUSR1, value);
    printf("handled %d\n", handled);
    fflush(stdout);
    raise(SIGTERM);
}

static void signals(void) {
    trace(raises);
    P(PTRACE_CONT, 0, 0);
    show_stop("to be dropped");
    P(PTRACE_CONT, 0, 0);
    show_stop("to be delivered");
    P(PTRACE_CONT, 0, SIGUSR1);
    show_stop("to be replaced");
    P(PTRACE_CONT, 0, SIGUSR2);
    show_stop("ignored");
    P(PTRACE_CONT, 0, SIGURG);
    show_stop("ignored by default");
    P(PTRACE_CONT, 0, SIGWINCH);
    show_stop("to become a blocked one");
    P(PTRACE_CONT, 0, SIGUSR2);
    show_stop("unblocked");
    P(PTRACE_CONT, 0, SIGUSR2);
    show_stop("queued");
    siginfo_t info;
    P(PTRACE_GETSIGINFO, 0, &info);
    printf("value %d\n", info.si_value.sival_int);
    info.si_value.sival_int = 77;
    SHOW(P(PTRACE_SETSIGINFO, 0, &info));
    P(PTRACE_CONT, 0, SIGUSR1);
    show_stop("fatal");
    P(PTRACE_CONT, 0, SIGTERM);
    wait_child();
    printf("ended: %x\n", status);
}

static void pends(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (int i = 0; i < 3; i++) {
        union sigval value = {.sival_int = i};
        sigqueue(getpid(), SIGRTMIN + 1, value);
    }
    syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1);
    raise(SIGSTOP);
}

static void queues(void) {
    trace(pends);
    P(PTRACE_CONT, 0, 0);
    show_stop("stopped");
    siginfo_t infos[4];
    struct __ptrace_peeksiginfo_args args = {.off = 0, .flags = PTRACE_PEEKSIGINFO_SHARED, .nr = 4};
    long count = P(PTRACE_PEEKSIGINFO, &args, infos);
    printf("of the process: %ld\n", count);
    for (long i = 0; i < count; i++)
        printf("  %d value %d\n", infos[i].si_signo, infos[i].si_value.sival_int);
    args.off = 2;
    printf("from the third: %ld\n", P(PTRACE_PEEKSIGINFO, &args, infos));
    args.off = 0, args.flags = 0;
    count = P(PTRACE_PEEKSIGINFO, &args, infos);
    printf("of the thread: %ld, %d\n", count, infos[0].si_signo);
    args.flags = 2;
    SHOW(P(PTRACE_PEEKSIGINFO, &args, infos));
    args.flags = 0, args.nr = -1;
    SHOW(P(PTRACE_PEEKSIGINFO, &args, infos));
    end();
}

struct call_info {
    uint8_t op, pad[3];
    uint32_t arch;
    uint64_t ip, sp;
    union {
        struct { uint64_t nr, args[6]; } entry;
        struct { int64_t rval; uint8_t is_error; } exit;
    };
};
#define GET_SYSCALL_INFO 0x420e

static void show_call(const char *what) {
    wait_child();
    struct user_regs_struct r = regs();
    struct call_info info;
    memset(&info, 0, sizeof info);
    long size = ptrace(GET_SYSCALL_INFO, child, (void *)sizeof info, &info);
    printf("%s: status %x orig_rax %lld op %d size %ld", what, status, (long long)r.orig_rax, info.op, size);
    CHECK_INT(info.ip, r.rip);
    CHECK_INT(info.sp, r.rsp);
    if (info.op == 1) printf(" nr %lu", info.entry.nr);
    if (info.op == 1 && info.entry.nr != SYS_getppid) printf(" argument %d", (int)info.entry.args[0]);
    if (info.op == 2) printf(" result %ld error %d", info.exit.rval, info.exit.is_error);
    printf(" rax %lld rcx-rip %lld\n", (long long)r.rax, (long long)(r.rcx - r.rip));
}

static void calls_made(void) {
    /* Translated before anyone traces, if anything is. */
    syscall(SYS_dup, -1);
    syscall(SYS_close, -2);
    syscall(SYS_dup, 5000);
    syscall(SYS_close, 99);
    long result = syscall(SYS_getppid);
    printf("getppid gave %ld\n", result);
    fflush(stdout);
    result = syscall(SYS_sched_yield);
    printf("sched_yield became dup: %ld %d\n", result, errno);
    fflush(stdout);
    result = syscall(4711);
    printf("no call: %ld %d\n", result, errno);
    fflush(stdout);
    result = syscall(-1);
    printf("-1: %ld %d\n", result, errno);
    fflush(stdout);
}

static void calls_traced(void) {
    for (int i = 0; i < 20; i++) syscall(SYS_getppid);
    calls_made();
}

/* On to the next system call that is no write of the test's own. */
static void next_call(const char *what, int request) {
    for (;;) {
        P(request, 0, 0);
        wait_child();
        struct user_regs_struct r = regs();
        if (r.orig_rax != SYS_write && r.orig_rax != SYS_newfstatat && r.orig_rax != SYS_getppid) break;
        if (r.orig_rax == SYS_getppid && (long long)r.rax == -ENOSYS) { printf("%s: getppid\n", what); return; }
    }
    struct user_regs_struct r = regs();
    printf("%s: %x nr %lld rax %lld\n", what, status, (long long)r.orig_rax, (long long)r.rax);
}

static void calls(void) {
    trace(calls_made);
    P(PTRACE_SYSCALL, 0, 0);
    wait_child();
    struct user_regs_struct r = regs();
    printf("without an option: status %x nr %lld rax %lld\n", status, (long long)r.orig_rax, (long long)r.rax);
    SHOW(P(PTRACE_SETOPTIONS, 0, PTRACE_O_TRACESYSGOOD));
    P(PTRACE_SYSCALL, 0, 0);
    show_call("its end");
    P(PTRACE_SYSCALL, 0, 0);
    show_call("close");
    P(PTRACE_SYSCALL, 0, 0);
    show_call("close");
    P(PTRACE_SYSCALL, 0, 0);
    show_call("arguments");
    r = regs();
    r.rdi = 1;
    ptrace(PTRACE_SETREGS, child, 0, &r);
    P(PTRACE_SYSCALL, 0, 0);
    wait_child();
    r = regs();
    printf("dup of another descriptor: %lld\n", (long long)r.rax);
    r.rax = -EXDEV;
    ptrace(PTRACE_SETREGS, child, 0, &r);
    P(PTRACE_SYSCALL, 0, 0);
    show_call("close");
    P(PTRACE_SYSCALL, 0, 0);
    show_call("close");
    P(PTRACE_SYSCALL, 0, 0);
    wait_child();
    P(PTRACE_SYSCALL, 0, 0);
    wait_child();
    r = regs();
    CHECK_INT(r.orig_rax, SYS_getppid);
    r.rax = 31337;
    ptrace(PTRACE_SETREGS, child, 0, &r);
    next_call("sched_yield", PTRACE_SYSCALL);
    r = regs();
    r.orig_rax = SYS_dup;
    r.rdi = 4000;
    ptrace(PTRACE_SETREGS, child, 0, &r);
    P(PTRACE_SYSCALL, 0, 0);
    show_call("now dup");
    next_call("unknown", PTRACE_SYSCALL);
    r = regs();
    r.orig_rax = -1;
    r.rax = -EOVERFLOW;
    ptrace(PTRACE_SETREGS, child, 0, &r);
    P(PTRACE_SYSCALL, 0, 0);
    show_call("not made");
    next_call("-1", PTRACE_SYSCALL);
    P(PTRACE_SYSCALL, 0, 0);
    show_call("-1's end");
    run_out();

    trace(calls_traced);
    SHOW(P(PTRACE_SETOPTIONS, 0, PTRACE_O_TRACESYSGOOD));
    for (int i = 0; i < 3; i++) {
        P(PTRACE_SYSEMU, 0, 0);
        show_call("emulated");
        r = regs();
        r.rax = 1;
        ptrace(PTRACE_SETREGS, child, 0, &r);
    }
    end();
}

/* `target` begins with one instruction of one byte, so that a step is known. */
__asm__(".text\n.globl target, after_target, site, after_site\n"
        "target: nop\nafter_target: nop\n ret\n"
        "call_site: mov $110, %eax\nsite: syscall\nafter_site: ret\n");
extern char target[], after_target[], call_site[], site[], after_site[];

static void runs_target(void) {
    for (int i = 0; i < 50; i++) ((void (*)(void))call_site)();
    ((void (*)(void))target)();
    ((void (*)(void))call_site)();
    catch();
    ((void (*)(void))target)();
    printf("handled %d\n", handled);
    fflush(stdout);
}

static long insert(void *at) {
    long old = P(PTRACE_PEEKTEXT, at, 0);
    CHECK_INT(P(PTRACE_POKETEXT, at, (old & ~0xffl) | 0xcc), 0);
    CHECK_INT(P(PTRACE_PEEKTEXT, at, 0) & 0xff, 0xcc);
    return old;
}

static void run_to(char *at) {
    long old = insert(at);
    P(PTRACE_CONT, 0, 0);
    show_stop("breakpoint");
    struct user_regs_struct r = regs();
    CHECK_INT(r.rip, (long)at + 1);
    CHECK_INT(P(PTRACE_POKETEXT, at, old), 0);
    r.rip = (long)at;
    ptrace(PTRACE_SETREGS, child, 0, &r);
}

static void step(const char *what, char *expected) {
    CHECK_INT(P(PTRACE_SINGLESTEP, 0, 0), 0);
    show_stop(what);
    struct user_regs_struct r = regs();
    if (expected) CHECK_INT(r.rip, (long)expected);
    CHECK_INT(r.eflags & 0x100, 0);
}

static void steps(void) {
    trace(runs_target);
    printf("original bytes: %lx\n", P(PTRACE_PEEKTEXT, call_site, 0));
    run_to(target);
    CHECK_INT(target[0] & 0xff, 0x90);
    step("a nop", after_target);
    step("a nop", after_target + 1);
    step("ret", NULL);
    run_to(call_site);
    step("mov", site);
    step("syscall", after_site);
    struct user_regs_struct r = regs();
    printf("rax is the parent: %d, rcx %lld\n", (pid_t)r.rax == getpid(), (long long)(r.rcx - (long)after_site));
    step("ret", NULL);
    run_to(target);
    /* Into a handler, and out of it. */
    CHECK_INT(P(PTRACE_SINGLESTEP, 0, SIGUSR1), 0);
    show_stop("handler");
    r = regs();
    printf("at its start: %d, rdi %lld\n", r.rip == (unsigned long)on_usr, (long long)r.rdi);
    CHECK_INT(r.eflags & 0x100, 0);
    long returned = P(PTRACE_PEEKDATA, r.rsp, 0);
    run_to((char *)returned);
    step("restorer's mov", NULL);
    step("sigreturn", target);
    step("a nop again", after_target);
    run_out();
}

static void crashes(void) { int *volatile nowhere = (int *)8; *nowhere = 1; }

static void faults(void) {
    trace(crashes);
    P(PTRACE_CONT, 0, 0);
    show_stop("fault");
    siginfo_t info;
    P(PTRACE_GETSIGINFO, 0, &info);
    printf("address %lx\n", (long)info.si_addr);
    /* Without the signal it faults again. */
    P(PTRACE_CONT, 0, 0);
    show_stop("fault");
    struct user_regs_struct r = regs();
    r.rip = (long)after_target + 1;
    ptrace(PTRACE_SETREGS, child, 0, &r);
    r.rip = 1ul << 63;
    SHOW(ptrace(PTRACE_SETREGS, child, 0, &r));
    P(PTRACE_CONT, 0, 0);
    show_stop("nowhere");
    P(PTRACE_CONT, 0, SIGSEGV);
    wait_child();
    printf("ended: %x\n", status & 0x7f);
}

static void maps_text(void) {}

/* Memory the child itself must not touch. */
static void memory_without_rights(void) {
    char *none = mmap(NULL, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *hidden = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *(long *)hidden = 4711;
    *(long *)shared = 12;
    mprotect(hidden, 4096, PROT_NONE);
    mprotect(shared, 4096, PROT_READ);
    trace(maps_text);
    SHOW(P(PTRACE_PEEKDATA, none, 0));
    SHOW(P(PTRACE_POKEDATA, none, 5));
    SHOW(P(PTRACE_PEEKDATA, none, 0));
    SHOW(P(PTRACE_PEEKDATA, none + 4096, 0));
    SHOW(P(PTRACE_PEEKDATA, hidden, 0));
    SHOW(P(PTRACE_POKEDATA, hidden, 6));
    SHOW(P(PTRACE_PEEKDATA, hidden, 0));
    SHOW(P(PTRACE_PEEKDATA, shared, 0));
    SHOW(P(PTRACE_POKEDATA, shared, 7));
    mprotect(hidden, 4096, PROT_READ);
    CHECK_INT(*(long *)hidden, 4711);
    run_out();
}

static void memory(void) {
    trace(maps_text);
    /* The breakpoint is the child's own. */
    long before = *(long *)target;
    CHECK_INT(P(PTRACE_POKETEXT, target, before ^ 0xff), 0);
    CHECK_INT(*(long *)target, before);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", child);
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0);
    long word = 0;
    CHECK_INT(pread(fd, &word, 8, (long)target), 8);
    CHECK_INT(word, before ^ 0xff);
    CHECK_INT(pwrite(fd, &before, 8, (long)target), 8);
    CHECK_INT(P(PTRACE_PEEKTEXT, target, 0), before);
    SHOW(pread(fd, &word, 8, 8));
    SHOW(pwrite(fd, &word, 8, 8));
    word = 7;
    CHECK_INT(pwrite(fd, &word, 8, (long)&shared_word), 8);
    SHOW(P(PTRACE_PEEKDATA, &shared_word, 0));
    close(fd);
    snprintf(path, sizeof path, "/proc/%d/status", child);
    FILE *file = fopen(path, "r");
    char line[256];
    while (fgets(line, sizeof line, file)) {
        if (!strncmp(line, "State:", 6)) printf("%s", line);
        if (!strncmp(line, "TracerPid:", 10)) printf("traced by the test: %d\n", atoi(line + 10) == getpid());
    }
    fclose(file);
    run_out();
}

static double in_fp;
static void computes(void) {
    double x = 1.5;
    __asm__ volatile("movsd %0, %%xmm7\n int3\n movsd %%xmm7, %0" : "+m"(x) : : "xmm7");
    in_fp = x;
    printf("xmm7 %.2f\n", x);
    fflush(stdout);
}

static void vectors(void) {
    trace(computes);
    P(PTRACE_CONT, 0, 0);
    show_stop("int3");
    struct user_fpregs_struct fp;
    CHECK_INT(P(PTRACE_GETFPREGS, 0, &fp), 0);
    double x;
    memcpy(&x, &fp.xmm_space[7 * 4], 8);
    printf("xmm7 %.2f\n", x);
    x = 2.25;
    memcpy(&fp.xmm_space[7 * 4], &x, 8);
    CHECK_INT(P(PTRACE_SETFPREGS, 0, &fp), 0);
    static char area[8192];
    struct iovec iov = {area, sizeof area};
    CHECK_INT(P(PTRACE_GETREGSET, NT_X86_XSTATE, &iov), 0);
    memcpy(&x, area + 160 + 7 * 16, 8);
    printf("xsave has %.2f\n", x);
    run_out();
}

/* Debug registers: what they watch is met by the child's own loads and stores. */
static volatile long watched[4] = {1, 2, 3, 4};

static void touches_words(void) {
    getppid();
    watched[1] = 7;
    watched[0] = 1;
    long sum = watched[0] + watched[2];
    *(volatile char *)((char *)watched + 3) = 0;
    __asm__ volatile("push %%rax; pop %%rax; nop" ::: "memory");
    ((void (*)(void))target)();
    ((void (*)(void))target)();
    handled = sum;
}

#define DEBUG_REGISTER(index) offsetof(struct user, u_debugreg[index])

static void show_watch(const char *what) {
    P(PTRACE_CONT, 0, 0);
    show_stop(what);
    printf("which: %lx\n", P(PTRACE_PEEKUSER, DEBUG_REGISTER(6), 0) & 15);
    CHECK_INT(P(PTRACE_POKEUSER, DEBUG_REGISTER(6), 0), 0);
}

static void watches(void) {
    trace(touches_words);
    SHOW(P(PTRACE_PEEKUSER, DEBUG_REGISTER(0), 0));
    SHOW(P(PTRACE_PEEKUSER, DEBUG_REGISTER(7), 0));
    /* Enabled at address 0; beyond user memory; unaligned; a port. */
    SHOW(P(PTRACE_POKEUSER, DEBUG_REGISTER(7), 0xd0001));
    SHOW(P(PTRACE_POKEUSER, DEBUG_REGISTER(0), 1ul << 63));
    CHECK_ERRNO(P(PTRACE_POKEUSER, DEBUG_REGISTER(0), (long)watched + 1), EINVAL);
    CHECK_INT(P(PTRACE_POKEUSER, DEBUG_REGISTER(7), 0), 0);
    CHECK_INT(P(PTRACE_POKEUSER, DEBUG_REGISTER(0), (long)watched + 1), 0);
    SHOW(P(PTRACE_POKEUSER, DEBUG_REGISTER(7), 0xd0001));
    SHOW(P(PTRACE_POKEUSER, DEBUG_REGISTER(7), 0x20001));
    CHECK_INT(P(PTRACE_POKEUSER, DEBUG_REGISTER(0), (long)watched), 0);
    CHECK_INT(P(PTRACE_POKEUSER, DEBUG_REGISTER(1), (long)target), 0);
    CHECK_INT(P(PTRACE_POKEUSER, DEBUG_REGISTER(3), (long)&watched[2]), 0);
    /* Writes of 4 bytes, execution, accesses of 8 bytes. */
    SHOW(P(PTRACE_POKEUSER, DEBUG_REGISTER(7), 0xb00d0045));
    SHOW(P(PTRACE_PEEKUSER, DEBUG_REGISTER(7), 0));
    show_watch("a store of the same value");
    show_watch("a load");
    show_watch("a store to a part");
    show_watch("code");
    struct user_regs_struct r = regs();
    CHECK_INT(r.rip, (long)target);
    step("over it", after_target);
    show_watch("code again");
    CHECK_INT(P(PTRACE_POKEUSER, DEBUG_REGISTER(7), 0), 0);
    run_out();
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    GROUP(requests);
    GROUP(signals);
    GROUP(queues);
    GROUP(calls);
    GROUP(steps);
    GROUP(faults);
    GROUP(memory);
    GROUP(memory_without_rights);
    GROUP(vectors);
    GROUP(watches);
    return finish();
}
