/* ptrace(2): clone, exec and exit events, group-stops, attaching, waiting, and what becomes of tracees. */
#include "check.h"
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>

#define P(request, addr, data) ptrace(request, child, (void *)(long)(addr), (void *)(long)(data))
#define SEIZE_OPTIONS (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | \
                       PTRACE_O_TRACEEXEC | PTRACE_O_TRACEVFORKDONE | PTRACE_O_TRACEEXIT)

static pid_t child;
static int status;

static void on_child(int signo) { (void)signo; }

static const char *event_name(int event) {
    static const char *names[] = {"signal", "FORK", "VFORK", "CLONE", "EXEC", "VFORK_DONE", "EXIT", "SECCOMP"};
    return event < 8 ? names[event] : event == 128 ? "STOP" : "?";
}

/* What a wait reported. Ids are shown as "child" or "new". */
static void show(const char *what, pid_t pid) {
    printf("%s: %s ", what, pid == child ? "child" : pid > 0 ? "new" : pid == 0 ? "nothing" : strerror(errno));
    if (pid <= 0) printf("\n");
    else if (WIFSTOPPED(status)) {
        siginfo_t info = {0};
        int has = ptrace(PTRACE_GETSIGINFO, pid, 0, &info) == 0;
        printf("%s of %d", event_name(status >> 16), WSTOPSIG(status));
        if (has) printf(" code %x\n", info.si_code);
        else printf(" %s\n", strerror(errno));
    } else if (WIFEXITED(status)) printf("exit %d\n", WEXITSTATUS(status));
    else if (WIFSIGNALED(status)) printf("killed %d\n", WTERMSIG(status));
    else printf("%x\n", status);
}

static pid_t wait_any(const char *what) {
    pid_t pid = waitpid(-1, &status, __WALL);
    show(what, pid);
    return pid;
}

static pid_t wait_for(const char *what, pid_t pid) {
    pid_t got = waitpid(pid, &status, __WALL);
    show(what, got);
    return got;
}

static void fork_off(void (*body)(void)) {
    fflush(stdout);
    child = fork();
    if (child == 0) {
        body();
        _exit(0);
    }
}

static void seize_stopped(void (*body)(void), long options) {
    fork_off(body);
    waitpid(child, &status, WUNTRACED);
    CHECK(WIFSTOPPED(status));
    CHECK_INT(P(PTRACE_SEIZE, 0, options), 0);
    wait_for("seized while stopped", child);
    kill(child, SIGCONT);
    P(PTRACE_CONT, 0, 0);
    /* Told that the stop is over, and then of SIGCONT itself. */
    wait_for("continued", child);
    P(PTRACE_CONT, 0, 0);
    wait_for("continued", child);
    P(PTRACE_CONT, 0, SIGCONT);
}

static void *thread_body(void *arg) { return arg; }

static void makes_children(void) {
    raise(SIGSTOP);
    pid_t pid = fork();
    if (pid == 0) _exit(3);
    waitpid(pid, NULL, 0);
    pid = vfork();
    if (pid == 0) _exit(4);
    waitpid(pid, NULL, 0);
    pthread_t thread = start(thread_body, NULL);
    pthread_join(thread, NULL);
    execl("/proc/self/exe", "ptrace_events", "exits", "5", NULL);
}

static unsigned long message_of(pid_t pid) {
    unsigned long message = 0;
    CHECK_INT(ptrace(PTRACE_GETEVENTMSG, pid, 0, &message), 0);
    return message;
}

/* Steers two tasks until only the first is left; shows each one's events in its own order. */
static void follow(const char *what) {
    pid_t ends[8] = {0};
    int count = 0;
    char log[2][4000] = {"", ""};
    for (;;) {
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0) break;
        char *to = log[pid != child], *end = to + strlen(to);
        int signo = 0;
        if (WIFSTOPPED(status)) {
            int event = status >> 16;
            end += sprintf(end, "  %s %d", event_name(event), WSTOPSIG(status));
            if (event == PTRACE_EVENT_EXIT) end += sprintf(end, " %lx", message_of(pid));
            else if (event >= 1 && event <= 3) end += sprintf(end, " others %d", message_of(pid) > (unsigned long)child);
            else if (event == PTRACE_EVENT_EXEC) end += sprintf(end, " was child %d", message_of(pid) == (unsigned long)child);
            else if (event == 0) signo = WSTOPSIG(status) == SIGSTOP ? 0 : WSTOPSIG(status);
            struct user_regs_struct r;
            ptrace(PTRACE_GETREGS, pid, 0, &r);
            if (event) end += sprintf(end, " in %lld", (long long)r.orig_rax);
            sprintf(end, "\n");
            ptrace(PTRACE_CONT, pid, 0, signo);
        } else {
            sprintf(end, "  ended %x\n", status);
            ends[count++ % 8] = pid;
        }
    }
    printf("%s, the first:\n%sothers:\n%s", what, log[0], log[1]);
    printf("the first ended as number %d\n", 1 + (ends[1] == child) + 2 * (ends[2] == child) + 3 * (ends[3] == child));
}

static void events_seized(void) {
    seize_stopped(makes_children, SEIZE_OPTIONS);
    follow("seized");
}

static void makes_traced_children(void) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    makes_children();
}

static void events_attached(void) {
    fork_off(makes_traced_children);
    wait_for("traceme", child);
    CHECK_INT(P(PTRACE_SETOPTIONS, 0, SEIZE_OPTIONS), 0);
    P(PTRACE_CONT, 0, 0);
    follow("attached");
    fork_off(makes_traced_children);
    wait_for("traceme", child);
    P(PTRACE_CONT, 0, 0);
    wait_any("without options: child exit");
    P(PTRACE_CONT, 0, 0);
    wait_any("without options: child exit");
    P(PTRACE_CONT, 0, 0);
    wait_any("without options: exec");
    P(PTRACE_CONT, 0, 0);
    wait_any("without options");
}

static void spins(void) {
    for (;;) getppid();
}

static void sleeps(void) {
    for (;;) pause();
}

/* Until the child sleeps in its call. */
static void await_sleep(void) {
    char path[64], text[512] = "", *state;
    snprintf(path, sizeof path, "/proc/%d/stat", child);
    do {
        sched_yield();
        int fd = open(path, O_RDONLY);
        ssize_t len = read(fd, text, sizeof text - 1);
        text[len > 0 ? len : 0] = 0;
        close(fd);
        state = strrchr(text, ')');
    } while (!state || state[2] != 'S');
}

static void attaching(void) {
    fork_off(spins);
    CHECK_INT(P(PTRACE_ATTACH, 0, 0), 0);
    wait_for("attached", child);
    siginfo_t info;
    CHECK_INT(P(PTRACE_GETSIGINFO, 0, &info), 0);
    printf("code %x pid %d\n", info.si_code, info.si_pid);
    CHECK_INT(P(PTRACE_DETACH, 0, 0), 0);
    printf("runs: %d\n", waitpid(child, &status, WNOHANG | WUNTRACED));
    CHECK_INT(P(PTRACE_ATTACH, 0, 0), 0);
    wait_for("attached", child);
    CHECK_INT(P(PTRACE_DETACH, 0, SIGTERM), 0);
    wait_for("detached with a signal", child);

    fork_off(spins);
    CHECK_INT(P(PTRACE_SEIZE, 0, 0), 0);
    CHECK_ERRNO(P(PTRACE_CONT, 0, 0), ESRCH);
    CHECK_INT(P(PTRACE_INTERRUPT, 0, 0), 0);
    wait_for("interrupted", child);
    CHECK_INT(P(PTRACE_INTERRUPT, 0, 0), 0);
    P(PTRACE_CONT, 0, 0);
    wait_for("once more", child);
    P(PTRACE_CONT, 0, 0);
    kill(child, SIGUSR1);
    wait_for("a signal", child);
    P(PTRACE_CONT, 0, 0);
    CHECK_INT(P(PTRACE_KILL, 0, 0), 0);
    wait_for("killed", child);

    /* A stopped process. */
    fork_off(sleeps);
    kill(child, SIGSTOP);
    waitpid(child, &status, WUNTRACED);
    CHECK_INT(P(PTRACE_ATTACH, 0, 0), 0);
    wait_for("attached while stopped", child);
    P(PTRACE_CONT, 0, 0);
    wait_for("the signal of attaching", child);
    P(PTRACE_CONT, 0, SIGSTOP);
    wait_for("stopped again", child);
    CHECK_INT(P(PTRACE_DETACH, 0, 0), 0);
    kill(child, SIGCONT);
    int pid = waitpid(child, &status, WCONTINUED);
    printf("continued: %d %x\n", pid == child, status);
    kill(child, SIGKILL);
    wait_for("end", child);
}

static void stops_and_sleeps(void) {
    /* In a group that its parent could continue, or SIGTSTP does nothing. */
    setpgid(0, 0);
    raise(SIGSTOP);
    sleeps();
}

static void group_stops(void) {
    seize_stopped(stops_and_sleeps, 0);
    kill(child, SIGTSTP);
    wait_for("SIGTSTP", child);
    P(PTRACE_CONT, 0, SIGTSTP);
    wait_for("group-stop", child);
    CHECK_INT(P(PTRACE_LISTEN, 0, 0), 0);
    CHECK_ERRNO(P(PTRACE_CONT, 0, 0), ESRCH);
    printf("listening: %d\n", waitpid(child, &status, WNOHANG | __WALL));
    kill(child, SIGCONT);
    wait_for("the stop is over", child);
    P(PTRACE_CONT, 0, 0);
    wait_for("SIGCONT", child);
    P(PTRACE_CONT, 0, SIGCONT);
    kill(child, SIGSTOP);
    wait_for("SIGSTOP", child);
    P(PTRACE_CONT, 0, SIGSTOP);
    wait_for("group-stop", child);
    CHECK_INT(P(PTRACE_LISTEN, 0, 0), 0);
    CHECK_INT(P(PTRACE_INTERRUPT, 0, 0), 0);
    wait_for("interrupted while listening", child);
    CHECK_INT(P(PTRACE_DETACH, 0, 0), 0);
    int pid = waitpid(child, &status, WUNTRACED | WNOHANG);
    printf("stopped for its parent: %d\n", pid == child);
    kill(child, SIGKILL);
    wait_for("end", child);
}

static atomic_int ready;

static void *waits(void *arg) {
    ready++;
    for (;;) pause();
    return arg;
}

static void has_threads(void) {
    setpgid(0, 0);
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    start(waits, NULL);
    start(waits, NULL);
    while (ready < 2) sched_yield();
    kill(getpid(), SIGTSTP);
    sleeps();
}

/* All threads of a traced process stop; `wait` reports each. */
static void threads_stop(void) {
    fork_off(has_threads);
    wait_for("traceme", child);
    CHECK_INT(P(PTRACE_SETOPTIONS, 0, PTRACE_O_TRACECLONE), 0);
    P(PTRACE_CONT, 0, 0);
    int stops = 0, clones = 0, starts = 0;
    pid_t tids[3] = {child};
    int known = 1;
    while (stops < 3) {
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0) break;
        if (status >> 16 == PTRACE_EVENT_CLONE) {
            clones++;
            tids[known++] = message_of(pid);
            ptrace(PTRACE_CONT, pid, 0, 0);
            continue;
        }
        siginfo_t info;
        int group = ptrace(PTRACE_GETSIGINFO, pid, 0, &info) && errno == EINVAL;
        if (group) stops++;
        else {
            if (WSTOPSIG(status) == SIGSTOP) starts++;
            ptrace(PTRACE_CONT, pid, 0, WSTOPSIG(status) == SIGTSTP ? SIGTSTP : 0);
        }
    }
    printf("clones %d, starts %d, stops %d\n", clones, starts, stops);
    /* The whole process dies of a signal to one. */
    kill(child, SIGKILL);
    int ended = 0;
    for (int i = 0; i < 3; i++) {
        pid_t pid = waitpid(tids[2 - i], &status, __WALL);
        if (pid > 0 && WIFSIGNALED(status)) ended += WTERMSIG(status);
    }
    printf("ended: %d\n", ended);
}

static void *execs(void *arg) {
    execl("/proc/self/exe", "ptrace_events", "exits", "6", NULL);
    return arg;
}

static void execs_in_thread(void) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    start(execs, NULL);
    sleeps();
}

static void exec_of_a_thread(void) {
    fork_off(execs_in_thread);
    wait_for("traceme", child);
    CHECK_INT(P(PTRACE_SETOPTIONS, 0, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC), 0);
    P(PTRACE_CONT, 0, 0);
    unsigned long thread = 0;
    for (;;) {
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0 || !WIFSTOPPED(status)) break;
        if (status >> 16 == PTRACE_EVENT_CLONE) thread = message_of(pid);
        if (status >> 16 == PTRACE_EVENT_EXEC)
            printf("exec by %s, which was the thread: %d\n", pid == child ? "child" : "another", message_of(pid) == thread);
        ptrace(PTRACE_CONT, pid, 0, 0);
    }
    show("in the end", child);
}

/* A tracer that is not the parent: both learn of the end, one after the other. */
static void grandparents(void) {
    fork_off(sleeps);
    pid_t traced = child;
    int to_parent[2], to_tracer[2];
    char byte;
    CHECK(pipe(to_parent) == 0 && pipe(to_tracer) == 0);
    fflush(stdout);
    pid_t tracer = fork();
    if (tracer == 0) {
        CHECK_INT(ptrace(PTRACE_SEIZE, traced, 0, 0), 0);
        CHECK_INT(ptrace(PTRACE_INTERRUPT, traced, 0, 0), 0);
        wait_for("tracer", traced);
        ptrace(PTRACE_CONT, traced, 0, 0);
        CHECK_INT(write(to_parent[1], "x", 1), 1);
        CHECK_INT(read(to_tracer[0], &byte, 1), 1);
        siginfo_t info = {0};
        CHECK_INT(waitid(P_PID, traced, &info, WEXITED | WNOWAIT), 0);
        printf("tracer sees code %d status %d\n", info.si_code, info.si_status);
        fflush(stdout);
        CHECK_INT(write(to_parent[1], "x", 1), 1);
        CHECK_INT(read(to_tracer[0], &byte, 1), 1);
        wait_for("tracer", traced);
        CHECK_ERRNO(waitpid(traced, &status, 0), ECHILD);
        fflush(stdout);
        CHECK_INT(write(to_parent[1], "x", 1), 1);
        CHECK_INT(read(to_tracer[0], &byte, 1), 1);
        _exit(0);
    }
    CHECK_INT(read(to_parent[0], &byte, 1), 1);
    kill(traced, SIGKILL);
    CHECK_INT(write(to_tracer[1], "x", 1), 1);
    CHECK_INT(read(to_parent[0], &byte, 1), 1);
    printf("parent, before: %d\n", waitpid(traced, &status, WNOHANG));
    fflush(stdout);
    CHECK_INT(write(to_tracer[1], "x", 1), 1);
    CHECK_INT(read(to_parent[0], &byte, 1), 1);
    child = traced;
    wait_for("parent", traced);
    CHECK_INT(write(to_tracer[1], "x", 1), 1);
    waitpid(tracer, &status, 0);
}

static void tracer_ends(void) {
    for (int kills = 0; kills < 2; kills++) {
        fork_off(sleeps);
        fflush(stdout);
        pid_t tracer = fork();
        if (tracer == 0) {
            CHECK_INT(P(PTRACE_SEIZE, 0, kills ? PTRACE_O_EXITKILL : 0), 0);
            CHECK_INT(P(PTRACE_INTERRUPT, 0, 0), 0);
            waitpid(child, &status, __WALL);
            _exit(0);
        }
        waitpid(tracer, &status, 0);
        if (!kills) {
            printf("still there: %d\n", waitpid(child, &status, WNOHANG));
            kill(child, SIGTERM);
        }
        wait_for("tracee", child);
    }
}

static void waiting(void) {
    fork_off(sleeps);
    await_sleep();
    CHECK_INT(P(PTRACE_SEIZE, 0, PTRACE_O_TRACESYSGOOD), 0);
    CHECK_INT(P(PTRACE_INTERRUPT, 0, 0), 0);
    siginfo_t info = {0};
    CHECK_INT(waitid(P_PID, child, &info, WSTOPPED | WNOWAIT | __WALL), 0);
    printf("signo %d code %d status %x\n", info.si_signo, info.si_code, info.si_status);
    CHECK_INT(waitid(P_ALL, 0, &info, WEXITED | __WALL), 0);
    printf("signo %d code %d status %x\n", info.si_signo, info.si_code, info.si_status);
    printf("once: %d\n", waitpid(child, &status, WNOHANG | __WALL));
    P(PTRACE_SYSCALL, 0, 0);
    /* pause(2), which the interrupt ended, is made again. */
    wait_for("call", child);
    struct user_regs_struct r;
    P(PTRACE_GETREGS, 0, &r);
    printf("nr %lld result %lld\n", (long long)r.orig_rax, (long long)r.rax);
    P(PTRACE_SYSCALL, 0, 0);
    await_sleep();
    kill(child, SIGUSR1);
    wait_for("call", child);
    P(PTRACE_GETREGS, 0, &r);
    printf("nr %lld result %lld\n", (long long)r.orig_rax, (long long)r.rax);
    P(PTRACE_CONT, 0, 0);
    wait_for("signal", child);
    P(PTRACE_GETREGS, 0, &r);
    printf("nr %lld result %lld\n", (long long)r.orig_rax, (long long)r.rax);
    kill(child, SIGKILL);
    wait_for("end", child);
    CHECK_ERRNO(waitpid(child, &status, __WALL), ECHILD);
}

static void hides(void) {
    prctl(PR_SET_DUMPABLE, 0);
    raise(SIGSTOP);
}

/* Ids decide: without CAP_SYS_PTRACE only one's own dumpable processes. */
static void permissions(void) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_INT(setgid(1000), 0);
        CHECK_INT(setuid(1000), 0);
        prctl(PR_SET_DUMPABLE, 1);
        child = getppid();
        CHECK_ERRNO(P(PTRACE_ATTACH, 0, 0), EPERM);
        CHECK_ERRNO(P(PTRACE_SEIZE, 0, 0), EPERM);
        fork_off(sleeps);
        CHECK_INT(P(PTRACE_ATTACH, 0, 0), 0);
        waitpid(child, &status, 0);
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        fork_off(hides);
        waitpid(child, &status, WUNTRACED);
        CHECK_ERRNO(P(PTRACE_ATTACH, 0, 0), EPERM);
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/mem", child);
        CHECK_ERRNO(open(path, O_RDONLY), EACCES);
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        fflush(stdout);
        _exit(failures != 0);
    }
    waitpid(pid, &status, 0);
    printf("as another user: %x\n", status);
}

int main(int argc, char **argv) {
    if (argc > 2) return atoi(argv[2]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct sigaction action = {.sa_handler = on_child, .sa_flags = SA_RESTART};
    sigaction(SIGCHLD, &action, NULL);
    GROUP(events_seized);
    GROUP(events_attached);
    GROUP(attaching);
    GROUP(group_stops);
    GROUP(threads_stop);
    GROUP(exec_of_a_thread);
    GROUP(grandparents);
    GROUP(tracer_ends);
    GROUP(waiting);
    GROUP(permissions);
    return finish();
}
