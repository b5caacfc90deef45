// seccomp(2): the strict mode, filters and what each action does, threads, and what a program under filters is told.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define SAY(call)                                                         \
    do {                                                                  \
        errno = 0;                                                        \
        long got = (long)(call);                                          \
        if (got == -1) printf("%s: %s\n", #call, strerrorname_np(errno)); \
        else printf("%s: %ld\n", #call, got);                             \
        fflush(stdout);                                                   \
    } while (0)

#define NR offsetof(struct seccomp_data, nr)
#define LOW(n) (offsetof(struct seccomp_data, args) + 8 * (n))

static void how_it_ended(pid_t child) {
    int status;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) printf("killed by %d\n", WTERMSIG(status));
    else printf("status %d\n", WEXITSTATUS(status));
    fflush(stdout);
}

#define CHILD(...)             \
    do {                       \
        fflush(stdout);        \
        pid_t child = fork();  \
        if (child == 0) {      \
            __VA_ARGS__;       \
            _exit(0);          \
        }                      \
        how_it_ended(child);   \
    } while (0)

static long install(unsigned flags, struct sock_filter *code, unsigned short len) {
    struct sock_fprog program = {len, code};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

/* Call `nr` with `arg` as its first argument gives `action`; all others are allowed. */
static long forbid(unsigned nr, unsigned arg, unsigned action, unsigned flags) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, NR),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, LOW(0)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, arg, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    return install(flags, code, sizeof code / sizeof *code);
}

static void no_new(void) {
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) exit(9);
}

static void status(void) {
    char line[200];
    FILE *from = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, from))
        if (!strncmp(line, "NoNew", 5) || !strncmp(line, "Seccomp", 7)) fputs(line, stdout);
    fclose(from);
    fflush(stdout);
}

static void on_sys(int signo, siginfo_t *info, void *context) {
    ucontext_t *frame = context;
    char text[200];
    int len = snprintf(text, sizeof text, "signal %d code %d errno %d call %d arch %x rax %lld here %d\n", signo, info->si_code,
                       info->si_errno, info->si_syscall, info->si_arch, frame->uc_mcontext.gregs[REG_RAX],
                       info->si_call_addr == (void *)frame->uc_mcontext.gregs[REG_RIP]);
    write(1, text, (size_t)len);
    frame->uc_mcontext.gregs[REG_RAX] = 4242;
}

static volatile int go;
static void *other(void *result) {
    while (!go) usleep(1000);
    *(long *)result = syscall(SYS_getpriority, 77) == -1 ? errno : 0;
    return NULL;
}

static void *dies(void *unused) {
    (void)unused;
    forbid(SYS_getpriority, 77, SECCOMP_RET_KILL_THREAD, 0);
    syscall(SYS_getpriority, 77);
    puts("not reached");
    return NULL;
}

static void *filters_itself(void *unused) {
    (void)unused;
    forbid(SYS_getpriority, 78, SECCOMP_RET_ERRNO | EDOM, 0);
    go = 1;
    while (go) pause();
    return NULL;
}

static void modes(void) {
    unsigned action;
    SAY(prctl(PR_GET_SECCOMP));
    SAY(syscall(SYS_seccomp, 99, 0, NULL));
    SAY(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, NULL));
    SAY(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL));
    SAY(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0x8000, NULL));
    SAY(prctl(PR_SET_SECCOMP, 7, 0));
    action = SECCOMP_RET_TRAP;
    SAY(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action));
    action = 0x12345678;
    SAY(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action));
    SAY(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 1, &action));
    /* Without no_new_privs, and without CAP_SYS_ADMIN. */
    SAY(forbid(SYS_getpriority, 77, SECCOMP_RET_ERRNO | EDOM, 0));
    CHILD(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); write(1, "strict\n", 7); syscall(SYS_exit, 3));
    CHILD(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); getppid());
    CHILD(no_new(); forbid(SYS_getpriority, 77, SECCOMP_RET_ERRNO | EDOM, 0); SAY(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)));
}

static void bad_programs(void) {
    struct sock_filter end = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_filter odd[][2] = {
        {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 64), end},   {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 2), end},
        {BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 0), end},    {BPF_STMT(BPF_LD | BPF_W | BPF_IND, 0), end},
        {BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), end},   {BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 3), end},
        {BPF_STMT(BPF_LD | BPF_MEM, 3), end},            {BPF_STMT(BPF_ST, 16), end},
        {BPF_STMT(BPF_JMP | BPF_JA, 1), end},            {BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 32), end},
        {BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0), end},    {BPF_STMT(BPF_ST, 15), end},
        {BPF_STMT(BPF_MISC | BPF_TAX, 0), end},          {end, BPF_STMT(BPF_LD | BPF_IMM, 0)},
    };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        printf("%zu ", i);
        SAY(install(0, odd[i], 2));
    }
    SAY(install(0, &end, 0));
    SAY(install(0, &end, 4097));
    SAY(install(0, NULL, 1));
}

static void tracing(void) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        no_new();
        forbid(SYS_getpriority, 77, SECCOMP_RET_TRACE | 99, 0);
        SAY(syscall(SYS_getpriority, 77));
        SAY(syscall(SYS_getpriority, 77));
        SAY(syscall(SYS_getpriority, 77) == getppid());
        _exit(0);
    }
    int state, seen = 0;
    waitpid(child, &state, 0);
    ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESECCOMP);
    ptrace(PTRACE_CONT, child, 0, 0);
    while (waitpid(child, &state, 0) == child && WIFSTOPPED(state)) {
        unsigned long message = 0;
        struct user_regs_struct registers;
        ptrace(PTRACE_GETEVENTMSG, child, 0, &message);
        ptrace(PTRACE_GETREGS, child, 0, &registers);
        printf("stop %x message %lu call %lld\n", state >> 8, message, registers.orig_rax);
        fflush(stdout);
        seen++;
        if (seen == 2) {
            registers.orig_rax = (unsigned long long)-1;
            registers.rax = 1234;
        } else if (seen == 3) {
            registers.orig_rax = SYS_getppid;
        }
        ptrace(PTRACE_SETREGS, child, 0, &registers);
        ptrace(PTRACE_CONT, child, 0, 0);
    }
    printf("ended %x\n", state);
}

int main(int argc, char **argv) {
    if (argc > 1) {
        /* Filters outlive exec. */
        SAY(syscall(SYS_getpriority, 77));
        status();
        (void)argv;
        return 0;
    }
    modes();
    no_new();
    bad_programs();
    CHILD(SAY(forbid(SYS_getpriority, 77, SECCOMP_RET_ERRNO | EDOM, 0)); SAY(syscall(SYS_getpriority, 77));
          SAY(syscall(SYS_getpriority, 0, 0)); SAY(prctl(PR_GET_SECCOMP)); status();
          SAY(forbid(SYS_getpriority, 77, SECCOMP_RET_ERRNO | ENFILE, 0)); SAY(syscall(SYS_getpriority, 77)); status();
          SAY(forbid(SYS_getpriority, 77, SECCOMP_RET_LOG, 0)); SAY(syscall(SYS_getpriority, 77));
          CHILD(SAY(syscall(SYS_getpriority, 77))); execl("/proc/self/exe", "seccomp", "again", NULL));
    CHILD(forbid(SYS_getpriority, 77, SECCOMP_RET_ERRNO, 0); SAY(syscall(SYS_getpriority, 77)));
    CHILD(forbid(SYS_getpriority, 77, SECCOMP_RET_ERRNO | 5000, 0); SAY(syscall(SYS_getpriority, 77) == -1 ? errno : 0));
    CHILD(forbid(SYS_getpriority, 77, SECCOMP_RET_TRACE, 0); SAY(syscall(SYS_getpriority, 77)));
    CHILD(forbid(SYS_getpriority, 77, SECCOMP_RET_USER_NOTIF, 0); SAY(syscall(SYS_getpriority, 77)));
    CHILD(forbid(SYS_getpriority, 77, SECCOMP_RET_KILL_PROCESS, 0); syscall(SYS_getpriority, 77));
    CHILD(forbid(SYS_getpriority, 77, 0x12340000, 0); syscall(SYS_getpriority, 77));
    CHILD(forbid(1000, 0, SECCOMP_RET_ERRNO | EDOM, 0); SAY(syscall(1000, 0)); SAY(syscall(1001, 0)));
    CHILD(struct sigaction action = {.sa_sigaction = on_sys, .sa_flags = SA_SIGINFO}; sigaction(SIGSYS, &action, NULL);
          forbid(SYS_getpriority, 77, SECCOMP_RET_TRAP | 55, 0); SAY(syscall(SYS_getpriority, 77)));
    CHILD(forbid(SYS_getpriority, 77, SECCOMP_RET_TRAP, 0); syscall(SYS_getpriority, 77));
    CHILD(long result = 0; pthread_t thread; pthread_create(&thread, NULL, other, &result);
          SAY(forbid(SYS_getpriority, 77, SECCOMP_RET_ERRNO | EDOM, SECCOMP_FILTER_FLAG_TSYNC)); go = 1;
          pthread_join(thread, NULL); printf("the other: %ld\n", result); fflush(stdout));
    CHILD(pthread_t thread; pthread_create(&thread, NULL, filters_itself, NULL); while (!go) usleep(1000);
          SAY(forbid(SYS_getpriority, 77, SECCOMP_RET_ERRNO | EDOM, SECCOMP_FILTER_FLAG_TSYNC) > 1);
          SAY(forbid(SYS_getpriority, 77, SECCOMP_RET_ERRNO | EDOM, SECCOMP_FILTER_FLAG_TSYNC | 16));
          SAY(syscall(SYS_getpriority, 77)));
    CHILD(pthread_t thread; pthread_create(&thread, NULL, dies, NULL); pthread_join(thread, NULL); puts("alone"); fflush(stdout));
    CHILD(long count = 0; for (; count < 10000; count++) if (forbid(1000, (unsigned)count, SECCOMP_RET_ALLOW, 0)) break;
          printf("at last %s\n", strerrorname_np(errno)); fflush(stdout));
    tracing();
    return 0;
}
