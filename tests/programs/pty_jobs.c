/* Controlling terminals, process groups and hangups: prints what is seen, for two systems to be compared. */
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <termios.h>

static int master;
static char name[64];

static void say(const char *what, long result) {
    if (result < 0)
        printf("%s: %s\n", what, strerror(errno));
    else
        printf("%s: %ld\n", what, result);
    fflush(stdout);
}

static void make(void) {
    master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) || unlockpt(master)) {
        printf("no pty: %s\n", strerror(errno));
        exit(1);
    }
    snprintf(name, sizeof name, "%s", ptsname(master));
}

/* A process that did not stop by itself by then never will. */
static void later(void) { usleep(60000); }

/* How a process is or ended. */
static void state(const char *what, pid_t pid) {
    int status = 0;
    pid_t got = 0;
    for (int i = 0; i < 200 && !got; i++) {
        got = waitpid(pid, &status, WNOHANG | WUNTRACED);
        if (!got)
            usleep(10000);
    }
    if (got == 0)
        printf("%s: still running\n", what);
    else if (got < 0)
        printf("%s: %s\n", what, strerror(errno));
    else if (WIFSTOPPED(status))
        printf("%s: stopped by %d\n", what, WSTOPSIG(status));
    else if (WIFSIGNALED(status))
        printf("%s: killed by %d\n", what, WTERMSIG(status));
    else
        printf("%s: status %d\n", what, WEXITSTATUS(status));
    fflush(stdout);
}

/* Fields 7 and 8 of /proc/self/stat: terminal and its foreground group. */
static void stat_fields(const char *what) {
    char line[512], state_letter;
    int ppid, pgid, sid, tty = -9, tpgid = -9;
    FILE *f = fopen("/proc/self/stat", "r");
    CHECK(f && fgets(line, sizeof line, f));
    fclose(f);
    sscanf(strrchr(line, ')') + 1, " %c %d %d %d %d %d", &state_letter, &ppid, &pgid, &sid, &tty, &tpgid);
    printf("%s: tty major %d, foreground %s\n", what, tty >> 8, tpgid == pgid ? "own" : tpgid == -1 ? "none" : tpgid == 0 ? "nobody" : "other");
    fflush(stdout);
}

/* Runs `body` as the leader of a new session; says how it ended. */
static void session(const char *what, void (*body)(void)) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        setsid();
        body();
        fflush(stdout);
        _exit(7);
    }
    int status;
    waitpid(pid, &status, 0);
    if (WIFEXITED(status))
        printf("%s: status %d\n", what, WEXITSTATUS(status));
    else
        printf("%s: killed by %d\n", what, WTERMSIG(status));
    fflush(stdout);
}

static void acquire(void) {
    make();
    int fd = open("/dev/tty", O_RDWR);
    say("/dev/tty without terminal", fd);
    stat_fields("none");
    int slave = open(name, O_RDWR | O_NOCTTY);
    say("with O_NOCTTY", tcgetpgrp(slave));
    say("sid of nobody's", ioctl(master, TIOCGSID, &fd));
    close(slave);
    slave = open(name, O_WRONLY);
    say("for writing only", tcgetpgrp(slave));
    say("TIOCSCTTY for writing only", ioctl(slave, TIOCSCTTY, 0));
    close(slave);
    slave = open(name, O_RDWR);
    printf("opened: %d %d %d\n", tcgetpgrp(slave) == getpgrp(), tcgetsid(slave) == getsid(0), tcgetpgrp(master) == getpgrp());
    stat_fields("opened");
    fd = open("/dev/tty", O_RDWR);
    printf("/dev/tty: %d %s\n", fd >= 0, ttyname(fd));
    say("again", ioctl(slave, TIOCSCTTY, 0));
    /* Another cannot be had. */
    int first = master;
    make();
    int second = open(name, O_RDWR);
    say("second", tcgetpgrp(second));
    say("TIOCSCTTY of the second", ioctl(second, TIOCSCTTY, 0));
    say("TIOCNOTTY of the second", ioctl(second, TIOCNOTTY));
    say("TIOCNOTTY of the master", ioctl(first, TIOCNOTTY));
    /* A child has it too; in a session of its own it has not, and cannot take it. */
    pid_t child = fork();
    if (child == 0) {
        stat_fields("child");
        say("TIOCSCTTY by the child", ioctl(second, TIOCSCTTY, 0));
        setsid();
        stat_fields("setsid");
        say("TIOCSCTTY of another session's", ioctl(slave, TIOCSCTTY, 0));
        say("forced", ioctl(slave, TIOCSCTTY, 1));
        say("TIOCGPGRP of another session's", tcgetpgrp(slave));
        say("TIOCSPGRP of another session's", tcsetpgrp(slave, getpgrp()));
        say("TIOCSCTTY of nobody's", ioctl(second, TIOCSCTTY, 0));
        stat_fields("TIOCSCTTY");
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    signal(SIGHUP, SIG_IGN);
    say("TIOCNOTTY", ioctl(slave, TIOCNOTTY));
    stat_fields("given up");
    say("/dev/tty", open("/dev/tty", O_RDWR));
    say("TIOCSCTTY", ioctl(slave, TIOCSCTTY, 0));
    stat_fields("taken again");
}

static void groups(void) {
    make();
    int slave = open(name, O_RDWR);
    say("group -1", tcsetpgrp(slave, -1));
    say("group without members", tcsetpgrp(slave, 99999));
    say("group of another session", tcsetpgrp(slave, getpgid(getppid())));
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        char c;
        stat_fields("background");
        signal(SIGTTIN, SIG_IGN);
        say("read, SIGTTIN ignored", read(slave, &c, 1));
        signal(SIGTTOU, SIG_IGN);
        struct termios t;
        say("tcgetattr", tcgetattr(slave, &t));
        say("tcsetattr, SIGTTOU ignored", tcsetattr(slave, TCSANOW, &t));
        signal(SIGTTIN, SIG_DFL);
        signal(SIGTTOU, SIG_DFL);
        say("read", read(slave, &c, 1));
        say("write", write(slave, "x", 1));
        t.c_lflag |= TOSTOP;
        say("tcsetattr", tcsetattr(slave, TCSANOW, &t));
        say("write, TOSTOP", write(slave, "x", 1));
        say("size", ioctl(slave, TIOCSWINSZ, &(struct winsize){3, 4, 0, 0}));
        say("tcflush", tcflush(slave, TCIFLUSH));
        say("tcsetpgrp", tcsetpgrp(slave, getpgrp()));
        stat_fields("foreground");
        fflush(stdout);
        _exit(0);
    }
    signal(SIGTTOU, SIG_IGN);
    state("reader", child);
    if (write(master, "a\n", 2) != 2)
        printf("typed: %s\n", strerror(errno));
    /* Still in the background: it stops again. */
    kill(child, SIGCONT);
    state("still in the background", child);
    tcsetpgrp(slave, child);
    kill(child, SIGCONT);
    later();
    tcsetpgrp(slave, getpgrp());
    for (int i = 0; i < 10; i++) {
        int status;
        kill(child, SIGCONT);
        later();
        pid_t got = waitpid(child, &status, WNOHANG | WUNTRACED);
        if (got == child && WIFSTOPPED(status)) {
            printf("stopped by %d\n", WSTOPSIG(status));
            fflush(stdout);
            tcsetpgrp(slave, child);
            kill(child, SIGCONT);
            later();
            tcsetpgrp(slave, getpgrp());
        } else if (got == child)
            break;
    }
    /* Writers to a terminal with TOSTOP. */
    struct termios t;
    tcgetattr(slave, &t);
    printf("tostop: %d\n", !!(t.c_lflag & TOSTOP));
    child = fork();
    if (child == 0) {
        setpgid(0, 0);
        signal(SIGTTOU, SIG_DFL);
        say("written", write(slave, "x", 1));
        fflush(stdout);
        _exit(0);
    }
    state("writer", child);
    tcsetpgrp(slave, child);
    kill(child, SIGCONT);
    state("writer", child);
}

static volatile sig_atomic_t got_signal;
static void note(int signo) { got_signal = signo; }

static void keys(void) {
    make();
    int slave = open(name, O_RDWR);
    struct termios t;
    tcgetattr(slave, &t);
    t.c_lflag &= ~ECHO;
    tcsetattr(slave, TCSANOW, &t);
    signal(SIGTTOU, SIG_IGN);
    for (int key = 0; key < 4; key++) {
        pid_t child = fork();
        if (child == 0) {
            setpgid(0, 0);
            tcsetpgrp(slave, getpgrp());
            char c;
            struct sigaction action = {.sa_handler = note};
            sigaction(SIGWINCH, &action, NULL);
            if (write(slave, "r", 1) != 1)
                _exit(9);
            say("interrupted read", read(slave, &c, 1));
            fflush(stdout);
            _exit(got_signal);
        }
        char ready;
        CHECK(read(master, &ready, 1) == 1);
        later();
        const char keys_[] = "\x03\x1c\x1a";
        if (key < 3 && write(master, keys_ + key, 1) != 1)
            printf("typed: %s\n", strerror(errno));
        if (key == 3)
            ioctl(master, TIOCSWINSZ, &(struct winsize){30, 40, 0, 0});
        state("key", child);
        if (key == 2) {
            tcsetpgrp(slave, getpgrp());
            say("TIOCSIG", ioctl(master, TIOCSIG, 0));
            kill(child, SIGKILL);
            state("killed", child);
        }
        tcsetpgrp(slave, getpgrp());
    }
    signal(SIGWINCH, note);
    ioctl(master, TIOCSWINSZ, &(struct winsize){30, 40, 0, 0});
    printf("same size: %d\n", got_signal);
    ioctl(slave, TIOCSWINSZ, &(struct winsize){31, 40, 0, 0});
    printf("another size: %d\n", got_signal);
    signal(SIGINT, note);
    say("TIOCSIG of what no key sends", ioctl(master, TIOCSIG, SIGUSR1));
    say("TIOCSIG", ioctl(master, TIOCSIG, SIGINT));
    printf("got: %d\n", got_signal);
    say("TIOCSIG by the slave", ioctl(slave, TIOCSIG, SIGINT));
    say("TIOCSTI", ioctl(slave, TIOCSTI, "q"));
    say("TIOCSTI by the master", ioctl(master, TIOCSTI, "q"));
    say("TIOCSTI", ioctl(slave, TIOCSTI, "\n"));
    char line[8];
    say("pushed", read(slave, line, sizeof line));
}

static void orphans(void) {
    make();
    int slave = open(name, O_RDWR);
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    signal(SIGTTOU, SIG_IGN);
    pid_t middle = fork();
    if (middle == 0) {
        setpgid(0, 0);
        pid_t inner = fork();
        if (inner == 0) {
            signal(SIGHUP, note);
            kill(getpid(), SIGSTOP);
            /* Its parent has ended: nobody could continue it. */
            printf("orphan: signal %d\n", got_signal);
            char c;
            signal(SIGTTIN, SIG_DFL);
            say("read", read(slave, &c, 1));
            signal(SIGTTOU, SIG_DFL);
            struct termios t;
            tcgetattr(slave, &t);
            say("tcsetattr", tcsetattr(slave, TCSANOW, &t));
            say("tcsetpgrp", tcsetpgrp(slave, getpgrp()));
            raise(SIGTSTP);
            printf("not stopped\n");
            fflush(stdout);
            if (write(pipes[1], "x", 1) != 1)
                _exit(1);
            _exit(0);
        }
        int status;
        waitpid(inner, &status, WUNTRACED);
        _exit(0);
    }
    waitpid(middle, NULL, 0);
    char c;
    struct pollfd p = {pipes[0], POLLIN, 0};
    poll(&p, 1, 3000);
    CHECK(p.revents && read(pipes[0], &c, 1) == 1);
}

static int up[2];

/* The master is closed: the session's leader hears of it. */
static void hangup_of_master(void) {
    make();
    int slave = open(name, O_RDWR), m = master;
    pid_t child = fork();
    if (child == 0) {
        close(m);
        signal(SIGHUP, note);
        usleep(300000);
        printf("member: signal %d\n", got_signal);
        stat_fields("member");
        fflush(stdout);
        _exit(0);
    }
    signal(SIGHUP, note);
    signal(SIGCONT, SIG_DFL);
    close(m);
    later();
    char c;
    printf("leader: signal %d\n", got_signal);
    stat_fields("leader");
    say("read", read(slave, &c, 1));
    say("/dev/tty", open("/dev/tty", O_RDWR));
    waitpid(child, NULL, 0);
}

/* The leader ends: those in the foreground hear of it. */
static void leader_with_foreground(void) {
    int slave = open(name, O_RDWR);
    signal(SIGTTOU, SIG_IGN);
    pid_t front = fork();
    if (front == 0) {
        setpgid(0, 0);
        tcsetpgrp(slave, getpgrp());
        struct sigaction action = {.sa_handler = note};
        sigaction(SIGHUP, &action, NULL);
        if (write(up[1], "r", 1) != 1)
            _exit(1);
        while (!got_signal)
            usleep(10000);
        char c;
        printf("foreground: signal %d\n", got_signal);
        later();
        stat_fields("foreground");
        /* It can still be used. */
        fcntl(slave, F_SETFL, O_NONBLOCK);
        say("read", read(slave, &c, 1));
        say("write", write(slave, "x", 1));
        struct termios t;
        say("tcgetattr", tcgetattr(slave, &t));
        int again = open(name, O_RDWR | O_NOCTTY);
        say("opened again", again < 0 ? -1 : 0);
        say("write", write(again, "y", 1));
        fflush(stdout);
        if (write(up[1], "d", 1) != 1)
            _exit(1);
        _exit(0);
    }
    char c;
    CHECK(read(up[0], &c, 1) == 1);
    _exit(3);
}

static void hangup_of_leader(void) {
    make();
    CHECK(pipe(up) == 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t leader = fork();
    if (leader == 0) {
        setsid();
        leader_with_foreground();
    }
    state("leader", leader);
    char c, got[16];
    struct pollfd p = {up[0], POLLIN, 0};
    poll(&p, 1, 3000);
    CHECK(p.revents && read(up[0], &c, 1) == 1);
    later();
    ssize_t n = read(master, got, sizeof got);
    printf("shown: %zd %c\n", n, n > 0 ? got[0] : '-');
    say("read", read(master, got, sizeof got));
    while (waitpid(-1, NULL, 0) > 0)
        ;
    /* The terminal is free for another session. */
    leader = fork();
    if (leader == 0) {
        setsid();
        int slave = open(name, O_RDWR);
        struct termios t;
        tcgetattr(slave, &t);
        printf("new owner: %d %x\n", tcgetpgrp(slave) == getpgrp(), t.c_lflag);
        fflush(stdout);
        _exit(0);
    }
    state("next leader", leader);
}

int main(int argc, char **argv) {
    alarm(60);
    const char *only = argc > 1 ? argv[1] : NULL;
#define SESSION(body)                                                                        \
    if (!only || !strcmp(only, #body)) {                                                     \
        printf("== %s\n", #body);                                                            \
        session(#body, body);                                                                \
    }
    SESSION(acquire);
    SESSION(groups);
    SESSION(keys);
    SESSION(orphans);
    SESSION(hangup_of_master);
    SESSION(hangup_of_leader);
    return finish();
}
