/* Pseudo-terminals: prints what is seen, for two systems to be compared, and checks little itself. */
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif
#ifndef EXTPROC
#define EXTPROC 0200000
#endif

/* Bytes as C would write them. */
static void show(const char *what, const char *bytes, ssize_t len) {
    printf("%s: ", what);
    if (len < 0) {
        printf("%s\n", strerror(errno));
        return;
    }
    for (ssize_t i = 0; i < len; i++) {
        unsigned char c = bytes[i];
        if (c == '\\' || c < 32 || c >= 127)
            printf("\\x%02x", c);
        else
            putchar(c);
    }
    printf(" (%zd)\n", len);
}

static void say(const char *what, long result) {
    if (result < 0)
        printf("%s: %s\n", what, strerror(errno));
    else
        printf("%s: %ld\n", what, result);
}

static int master, slave;

static int make(void) {
    int fd = posix_openpt(O_RDWR | O_NOCTTY);
    if (fd < 0 || grantpt(fd) || unlockpt(fd)) {
        printf("no pty: %s\n", strerror(errno));
        exit(1);
    }
    return fd;
}

static void pair(void) {
    master = make();
    slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    CHECK(slave >= 0);
    fcntl(master, F_SETFL, O_NONBLOCK);
    fcntl(slave, F_SETFL, O_NONBLOCK);
}

static void unpair(void) {
    close(slave);
    close(master);
}

static struct termios settings(void) {
    struct termios t;
    CHECK(tcgetattr(slave, &t) == 0);
    return t;
}

static void set(const struct termios *t) { CHECK(tcsetattr(slave, TCSANOW, t) == 0); }

/* The other side sees what was written only soon after. */
static ssize_t get(int fd, char *bytes, size_t len) {
    struct pollfd p = {fd, POLLIN, 0};
    poll(&p, 1, 40);
    return read(fd, bytes, len);
}

static void drain(const char *what, int fd) {
    char all[20000];
    ssize_t len = 0;
    for (;;) {
        ssize_t got = get(fd, all + len, sizeof all - len);
        if (got <= 0)
            break;
        len += got;
    }
    show(what, all, len);
}

static void type(const char *bytes, size_t len) {
    if (write(master, bytes, len) != (ssize_t)len)
        printf("typed: %s\n", strerror(errno));
}

#define TYPE(literal) type(literal, sizeof(literal) - 1)

/* Types, and shows echo and what is read, a read at a time. */
static void typed(const char *name, const char *bytes, size_t len) {
    char got[256], label[64];
    for (size_t i = 0; i < len; i++) {
        type(bytes + i, 1);
        usleep(300);
    }
    snprintf(label, sizeof label, "%s, shown", name);
    drain(label, master);
    for (int i = 0; i < 4; i++) {
        ssize_t n = get(slave, got, sizeof got);
        snprintf(label, sizeof label, "%s, read", name);
        show(label, got, n);
        if (n < 0)
            break;
    }
}

#define TYPED(name, literal) typed(name, literal, sizeof(literal) - 1)

static void names(void) {
    struct stat st;
    char path[64], link[64];
    int a = make(), b = make();
    int first, second;
    CHECK(ioctl(a, TIOCGPTN, &first) == 0 && ioctl(b, TIOCGPTN, &second) == 0);
    printf("next: %d\n", second - first);
    CHECK(stat(ptsname(a), &st) == 0);
    printf("slave: %o %d:%d uid %d gid %d ino %d nlink %d size %ld blksize %ld\n", st.st_mode, major(st.st_rdev),
           minor(st.st_rdev) - first, st.st_uid, st.st_gid, (int)st.st_ino - first, (int)st.st_nlink,
           (long)st.st_size, (long)st.st_blksize);
    CHECK(stat("/dev/ptmx", &st) == 0);
    printf("ptmx: %o %d:%d ino %d\n", st.st_mode, major(st.st_rdev), minor(st.st_rdev), (int)st.st_ino);
    CHECK(fstat(a, &st) == 0);
    printf("master: %o %d:%d\n", st.st_mode, major(st.st_rdev), minor(st.st_rdev));
    int fd = open(ptsname(a), O_RDWR | O_NOCTTY);
    printf("ttyname: %d\n", strcmp(ttyname(fd), ptsname(a)));
    say("ttyname of the master", ttyname(a) ? 0 : -1);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(path, link, sizeof link - 1);
    link[n > 0 ? n : 0] = 0;
    printf("link: %d\n", strcmp(link, ptsname(a)));
    snprintf(path, sizeof path, "/proc/self/fd/%d", a);
    n = readlink(path, link, sizeof link - 1);
    link[n > 0 ? n : 0] = 0;
    printf("link of the master: %s\n", link);
    say("lseek", lseek(fd, 0, SEEK_SET));
    say("isatty", isatty(fd) + 2 * isatty(a));
    say("chmod", chmod(ptsname(a), 0622));
    say("chown", chown(ptsname(a), 12, 34));
    CHECK(fstat(fd, &st) == 0);
    printf("changed: %o %d %d\n", st.st_mode, st.st_uid, st.st_gid);
    say("unlink", unlink(ptsname(a)));
    say("mkdir", mkdir("/dev/pts/x", 0777));
    say("create", open("/dev/pts/x", O_CREAT | O_RDWR, 0666));
    say("link of names", symlink("x", "/dev/pts/y"));
    close(fd);
    snprintf(path, sizeof path, "%s", ptsname(a));
    close(a);
    say("after close", stat(path, &st));
    int c = make(), third;
    ioctl(c, TIOCGPTN, &third);
    printf("again: %d\n", third - first);
    fd = open(ptsname(c), O_RDWR | O_NOCTTY);
    close(c);
    /* As long as the slave is open the number is not free. */
    int d = make(), fourth;
    ioctl(d, TIOCGPTN, &fourth);
    printf("taken: %d\n", fourth - first);
    close(fd);
    close(d);
    close(b);
}

static void locks(void) {
    int m = posix_openpt(O_RDWR | O_NOCTTY), on = -1;
    say("locked", ioctl(m, TIOCGPTLCK, &on) ? -1 : on);
    say("open locked", open(ptsname(m), O_RDWR | O_NOCTTY));
    say("peer locked", ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY));
    unlockpt(m);
    say("unlocked", ioctl(m, TIOCGPTLCK, &on) ? -1 : on);
    int peer = ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(peer >= 0);
    printf("peer: %d %x %x\n", strcmp(ttyname(peer), ptsname(m)), fcntl(peer, F_GETFD),
           fcntl(peer, F_GETFL) & ~0100000);
    CHECK(ioctl(peer, TIOCEXCL) == 0);
    int other = open(ptsname(m), O_RDWR | O_NOCTTY);
    say("exclusive", other < 0 ? -1 : 0);
    say("is exclusive", ioctl(peer, TIOCGEXCL, &on) ? -1 : on);
    CHECK(ioctl(peer, TIOCNXCL) == 0);
    other = open(ptsname(m), O_RDWR | O_NOCTTY);
    say("not exclusive", other < 0 ? -1 : 0);
    say("number of the slave", ioctl(peer, TIOCGPTN, &on));
    say("lock by the slave", ioctl(peer, TIOCSPTLCK, &on));
    unsigned dev = 0;
    CHECK(ioctl(m, TIOCGDEV, &dev) == 0);
    printf("dev: %d\n", dev >> 8);
    say("discipline", ioctl(peer, TIOCGETD, &on) ? -1 : on);
    say("modem", ioctl(peer, TIOCMGET, &on));
    say("unknown", ioctl(peer, 0x5499, &on));
    close(other);
    close(peer);
    close(m);
}

static void initial(void) {
    pair();
    struct termios t = settings();
    printf("%x %x %x %x %d %d:", t.c_iflag, t.c_oflag, t.c_cflag, t.c_lflag, cfgetispeed(&t), cfgetospeed(&t));
    for (int i = 0; i < 19; i++)
        printf(" %d", t.c_cc[i]);
    struct winsize w;
    CHECK(ioctl(slave, TIOCGWINSZ, &w) == 0);
    printf("\nsize: %d %d %d %d\n", w.ws_row, w.ws_col, w.ws_xpixel, w.ws_ypixel);
    /* Settings are the pair's, whoever sets them; they outlast the slave. */
    t.c_cflag = B115200 | CS7 | PARENB;
    t.c_lflag = ICANON;
    CHECK(tcsetattr(master, TCSANOW, &t) == 0);
    w.ws_row = 24, w.ws_col = 80;
    CHECK(ioctl(master, TIOCSWINSZ, &w) == 0);
    close(slave);
    slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_NONBLOCK);
    t = settings();
    CHECK(ioctl(slave, TIOCGWINSZ, &w) == 0);
    printf("set: %x %x %d %d\n", t.c_cflag, t.c_lflag, w.ws_row, w.ws_col);
    unpair();
}

static void lines(void) {
    pair();
    TYPED("line", "hello\r");
    TYPED("two lines", "one\ntwo\n");
    TYPED("end of file", "abc\x04");
    TYPED("empty end of file", "\x04");
    TYPED("erase", "abX\x7f" "c\n");
    TYPED("erase control", "a\x01\x7f\n");
    TYPED("erase tab", "ab\tc\x7f\x7f" "d\n");
    TYPED("erase nothing", "\x7f\n");
    TYPED("word", "one two-three  \x17x\n");
    TYPED("words", "a_b c1 ..\x17\x17z\n");
    TYPED("kill", "gone\x15here\n");
    TYPED("literal", "a\x16\x03\x16\x16\x16\n\n");
    TYPED("reprint", "ab\x01\x12" "c\n");
    TYPED("controls", "\x01\x1b[A\x1f\n");
    TYPED("high bytes", "\xe9\xff\n");
    TYPED("nul", "a\0b\n");
    struct termios t = settings(), old = t;
    t.c_iflag |= IUTF8;
    set(&t);
    TYPED("utf8", "a\xc3\xa9\xe2\x82\xac\x7f\x7f" "b\n");
    t = old;
    t.c_lflag |= ECHOPRT;
    set(&t);
    TYPED("echoprt", "abc\x7f\x7fx\n");
    t.c_lflag = old.c_lflag & ~ECHOE;
    set(&t);
    TYPED("no echoe", "ab\x7f" "c\x15" "d\n");
    t.c_lflag = old.c_lflag & ~(ECHOKE);
    set(&t);
    TYPED("no echoke", "ab\x15" "d\n");
    t.c_lflag = old.c_lflag & ~(ECHOKE | ECHOK);
    set(&t);
    TYPED("no echok", "ab\x15" "d\n");
    t.c_lflag = old.c_lflag & ~ECHOCTL;
    set(&t);
    TYPED("no echoctl", "a\x01\x7f\x16\x02\n");
    t.c_lflag = (old.c_lflag & ~ECHO) | ECHONL;
    set(&t);
    TYPED("echonl", "secret\n");
    t.c_lflag = old.c_lflag & ~IEXTEN;
    set(&t);
    TYPED("no iexten", "a b\x17\x16\x12\n");
    t = old;
    t.c_cc[VEOL] = ';', t.c_cc[VEOL2] = '!';
    set(&t);
    TYPED("eol", "a;b!c\n");
    t = old;
    t.c_cc[VERASE] = 'x', t.c_cc[VKILL] = _POSIX_VDISABLE;
    set(&t);
    TYPED("other characters", "abxc\x15\x7f\n");
    unpair();
}

static void long_lines(void) {
    pair();
    char many[5000];
    memset(many, 'x', sizeof many);
    struct termios t = settings();
    t.c_lflag &= ~ECHO;
    set(&t);
    for (int i = 0; i < 10; i++)
        type(many, 500);
    TYPE("y\nz\n");
    char got[6000];
    ssize_t n = get(slave, got, sizeof got);
    printf("line: %zd", n);
    show(", end", got + (n > 4 ? n - 4 : 0), n > 4 ? 4 : n);
    n = get(slave, got, sizeof got);
    show("next", got, n);
    /* Small reads of one line. */
    TYPE("abcdef\nghi\n\x04");
    show("three", got, get(slave, got, 3));
    show("four", got, get(slave, got, 4));
    show("four", got, get(slave, got, 4));
    show("end", got, get(slave, got, 4));
    TYPE("abc\x04" "def\n");
    show("up to the end", got, get(slave, got, 3));
    show("after it", got, get(slave, got, 9));
    unpair();
}

static void raw_input(void) {
    char got[64];
    int n;
    pair();
    struct termios t = settings(), raw = t;
    cfmakeraw(&raw);
    set(&raw);
    TYPED("raw", "a\r\n\x03\x04\x7f\xff");
    raw.c_iflag = INLCR;
    set(&raw);
    TYPED("inlcr", "a\r\nb");
    raw.c_iflag = IGNCR;
    set(&raw);
    TYPED("igncr", "a\r\nb");
    raw.c_iflag = ICRNL;
    set(&raw);
    TYPED("icrnl", "a\r\nb");
    raw.c_iflag = ISTRIP | IUCLC;
    raw.c_lflag = IEXTEN;
    set(&raw);
    TYPED("istrip iuclc", "AZ\xc1\xe1");
    raw.c_iflag = IUCLC;
    set(&raw);
    TYPED("iuclc", "AZ\xc0\xd7\xdf");
    raw.c_iflag = PARMRK;
    raw.c_lflag = 0;
    set(&raw);
    TYPED("parmrk", "a\xff" "b");
    raw.c_iflag = 0;
    raw.c_lflag = ECHO | ECHOCTL;
    set(&raw);
    TYPED("echo without lines", "a\n\r\x01\t\x7f");
    /* Changing to lines and back. */
    raw.c_lflag = 0;
    set(&raw);
    TYPE("ab\ncd");
    usleep(20000);
    CHECK(ioctl(slave, FIONREAD, &n) == 0);
    printf("bytes: %d", n);
    t.c_lflag &= ~ECHO;
    set(&t);
    CHECK(ioctl(slave, FIONREAD, &n) == 0);
    printf(", as lines: %d\n", n);
    show("read", got, get(slave, got, sizeof got));
    TYPE("ef\ngh");
    usleep(20000);
    CHECK(ioctl(slave, FIONREAD, &n) == 0);
    printf("line: %d\n", n);
    set(&raw);
    show("read", got, get(slave, got, sizeof got));
    /* Flushes. */
    TYPE("lost");
    usleep(20000);
    CHECK(tcflush(slave, TCIFLUSH) == 0);
    TYPE("kept");
    usleep(20000);
    show("flushed", got, get(slave, got, sizeof got));
    TYPE("lost");
    usleep(20000);
    CHECK(tcsetattr(slave, TCSAFLUSH, &raw) == 0);
    show("set and flushed", got, get(slave, got, sizeof got));
    say("flush of nothing known", tcflush(slave, 7));
    say("flow of nothing known", tcflow(slave, 7));
    CHECK(ioctl(slave, TIOCOUTQ, &n) == 0);
    say("outq", n);
    unpair();
}

static void output(void) {
    pair();
    struct termios t = settings(), old = t;
    t.c_lflag &= ~ECHO;
    old = t;
    set(&t);
#define PUT(name, flags, literal)                                                            \
    t = old;                                                                                 \
    t.c_oflag = (flags);                                                                     \
    set(&t);                                                                                 \
    CHECK(write(slave, literal, sizeof(literal) - 1) == sizeof(literal) - 1);                \
    drain(name, master)
    PUT("onlcr", OPOST | ONLCR, "a\nb\tc\rd\x01\xe9\n");
    PUT("xtabs", OPOST | TAB3, "\ra\tbc\t\x08\x08\te\n");
    PUT("olcuc", OPOST | OLCUC, "abc\xe9\n");
    PUT("ocrnl", OPOST | OCRNL, "a\rb");
    PUT("onocr", OPOST | ONOCR | ONLCR, "\n\ra\r\rb");
    PUT("onlret", OPOST | ONLRET | ONOCR, "ab\n\rc");
    PUT("no opost", ONLCR | OLCUC, "a\n\t");
    unpair();
}

static void flow(void) {
    char got[64];
    pair();
    TYPE("\x13");
    usleep(20000);
    say("stopped", write(slave, "no", 2));
    struct pollfd p = {slave, POLLOUT, 0};
    say("poll", poll(&p, 1, 0));
    TYPE("ab");
    usleep(20000);
    show("echo", got, read(master, got, sizeof got));
    TYPE("\x11");
    drain("started", master);
    say("write", write(slave, "yes", 3));
    drain("written", master);
    CHECK(tcflow(slave, TCOOFF) == 0);
    TYPE("\x11");
    usleep(20000);
    say("held", write(slave, "no", 2));
    CHECK(tcflow(slave, TCOON) == 0);
    say("let go", write(slave, "yes", 3));
    CHECK(tcflow(slave, TCIOFF) == 0);
    CHECK(tcflow(slave, TCION) == 0);
    drain("asked", master);
    struct termios t = settings();
    t.c_iflag |= IXANY;
    set(&t);
    TYPE("\x13");
    usleep(20000);
    say("stopped", write(slave, "no", 2));
    TYPE("k");
    usleep(20000);
    say("any key", write(slave, "yes", 3));
    drain("any key", master);
    TYPE("\x13");
    usleep(20000);
    t.c_iflag &= ~(IXON | IXANY);
    set(&t);
    say("without flow control", write(slave, "yes", 3));
    drain("shown", master);
    say("tcsendbreak", tcsendbreak(slave, 0));
    unpair();
}

/* How long until a read gives what. */
static void timed(const char *name, int min, int time, const char *first, int pause_ms, const char *second) {
    char got[64];
    struct timespec a, b;
    pair();
    struct termios t = settings();
    cfmakeraw(&t);
    t.c_cc[VMIN] = min, t.c_cc[VTIME] = time;
    set(&t);
    fcntl(slave, F_SETFL, 0);
    pid_t child = fork();
    if (child == 0) {
        type(first, strlen(first));
        usleep(pause_ms * 1000);
        type(second, strlen(second));
        /* So that the pair lives as long as the reads. */
        usleep(900000);
        _exit(0);
    }
    usleep(50000);
    clock_gettime(CLOCK_MONOTONIC, &a);
    ssize_t n = read(slave, got, 8);
    clock_gettime(CLOCK_MONOTONIC, &b);
    int ms = (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000;
    show(name, got, n);
    /* In steps of a fifth of a second, roughly. */
    printf("%s: after %d\n", name, (ms + 80) / 200);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    unpair();
}

static void patience(void) {
    timed("min 1", 1, 0, "a", 0, "");
    timed("min 3", 3, 0, "ab", 250, "c");
    timed("min 3 time 2", 3, 2, "ab", 600, "c");
    timed("min 0 time 4", 0, 4, "", 900, "");
    timed("min 0 time 4, some", 0, 4, "", 250, "x");
    timed("min 0 time 0", 0, 0, "", 900, "");
    timed("min 9 of 8", 9, 0, "12345678", 0, "");
    pair();
    struct termios t = settings();
    cfmakeraw(&t);
    char got[8];
    t.c_cc[VMIN] = 0;
    set(&t);
    show("nonblocking, min 0", got, read(slave, got, 8));
    t.c_cc[VMIN] = 3;
    set(&t);
    TYPE("ab");
    usleep(20000);
    struct pollfd p = {slave, POLLIN, 0};
    say("poll of 2 of 3", poll(&p, 1, 0));
    show("nonblocking, 2 of 3", got, read(slave, got, 8));
    TYPE("abc");
    usleep(20000);
    say("poll of 3 of 3", poll(&p, 1, 0));
    unpair();
}

static void packets(void) {
    char got[64];
    int on = 1;
    pair();
    CHECK(ioctl(master, TIOCPKT, &on) == 0);
    say("by the slave", ioctl(slave, TIOCPKT, &on));
    CHECK(ioctl(master, TIOCGPKT, &on) == 0);
    say("on", on);
    CHECK(write(slave, "data", 4) == 4);
    show("data", got, get(master, got, sizeof got));
    CHECK(write(slave, "data", 4) == 4);
    show("one byte", got, get(master, got, 1));
    show("the rest", got, get(master, got, sizeof got));
    TYPE("\x13");
    struct pollfd p = {master, POLLIN | POLLPRI | POLLOUT, 0};
    usleep(20000);
    poll(&p, 1, 0);
    printf("poll: %x\n", p.revents);
    show("stop", got, get(master, got, sizeof got));
    TYPE("\x11");
    usleep(20000);
    show("start", got, get(master, got, sizeof got));
    struct termios t = settings();
    t.c_iflag &= ~IXON;
    set(&t);
    show("nostop", got, get(master, got, sizeof got));
    t.c_iflag |= IXON;
    set(&t);
    show("dostop", got, get(master, got, sizeof got));
    CHECK(tcflush(slave, TCIFLUSH) == 0);
    show("flushread", got, get(master, got, sizeof got));
    CHECK(tcflush(slave, TCOFLUSH) == 0);
    show("flushwrite", got, get(master, got, sizeof got));
    t.c_lflag |= EXTPROC;
    set(&t);
    show("extproc", got, get(master, got, sizeof got));
    TYPE("a\x7f\x03\n");
    show("no echo", got, get(master, got, sizeof got));
    show("all bytes", got, get(slave, got, sizeof got));
    on = 0;
    CHECK(ioctl(master, TIOCPKT, &on) == 0);
    CHECK(write(slave, "plain", 5) == 5);
    show("off", got, get(master, got, sizeof got));
    unpair();
}

static void ends(void) {
    char got[64];
    pair();
    struct pollfd p[2] = {{master, POLLIN | POLLOUT, 0}, {slave, POLLIN | POLLOUT, 0}};
    poll(p, 2, 0);
    printf("poll: %x %x\n", p[0].revents, p[1].revents);
    CHECK(write(slave, "last", 4) == 4);
    close(slave);
    usleep(20000);
    poll(p, 1, 0);
    printf("slave closed, data: %x\n", p[0].revents);
    show("read", got, read(master, got, sizeof got));
    poll(p, 1, 0);
    printf("slave closed: %x\n", p[0].revents);
    show("read", got, read(master, got, sizeof got));
    say("write", write(master, "x\n", 2));
    slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_NONBLOCK);
    show("read", got, get(slave, got, sizeof got));
    drain("echo", master);
    char path[64];
    snprintf(path, sizeof path, "%s", ptsname(master));
    close(master);
    poll(p + 1, 1, 0);
    printf("master closed: %x\n", p[1].revents);
    show("read", got, read(slave, got, sizeof got));
    say("write", write(slave, "x", 1));
    struct termios t;
    say("tcgetattr", tcgetattr(slave, &t));
    say("tcsetpgrp", tcsetpgrp(slave, getpgrp()));
    say("open", open(path, O_RDWR | O_NOCTTY));
    close(slave);
    /* A read that waits. */
    pair();
    fcntl(slave, F_SETFL, 0);
    pid_t child = fork();
    if (child == 0) {
        close(master);
        ssize_t n = read(slave, got, sizeof got);
        show("waiting slave", got, n);
        fflush(stdout);
        _exit(0);
    }
    usleep(50000);
    unpair();
    waitpid(child, NULL, 0);
    pair();
    fcntl(master, F_SETFL, 0);
    child = fork();
    if (child == 0) {
        close(slave);
        ssize_t n = read(master, got, sizeof got);
        show("waiting master", got, n);
        fflush(stdout);
        _exit(0);
    }
    usleep(50000);
    close(slave);
    waitpid(child, NULL, 0);
    close(master);
}

static void amounts(void) {
    static char many[200000];
    pair();
    struct termios t = settings();
    cfmakeraw(&t);
    set(&t);
    for (size_t i = 0; i < sizeof many; i++)
        many[i] = (char)(i * 7 + i / 256);
    /* A writer that waits for its reader, either way. */
    for (int way = 0; way < 2; way++) {
        int from = way ? master : slave, to = way ? slave : master;
        fcntl(from, F_SETFL, 0);
        fcntl(to, F_SETFL, 0);
        pid_t child = fork();
        if (child == 0) {
            ssize_t n = write(from, many, sizeof many);
            _exit(n == (ssize_t)sizeof many ? 0 : 1);
        }
        size_t done = 0, wrong = 0;
        char got[20000];
        while (done < sizeof many) {
            ssize_t n = read(to, got, sizeof got);
            if (n <= 0)
                break;
            for (ssize_t i = 0; i < n; i++)
                wrong += got[i] != many[done + i];
            done += n;
        }
        int status;
        waitpid(child, &status, 0);
        printf("moved: %zu, wrong %zu, status %d\n", done, wrong, status);
    }
    /* Without a reader it ends. */
    fcntl(slave, F_SETFL, O_NONBLOCK);
    fcntl(master, F_SETFL, O_NONBLOCK);
    ssize_t total = 0, n;
    while ((n = write(slave, many, 1000)) > 0)
        total += n;
    printf("slave filled: %d %s\n", total > 4000 && total < 200000, strerror(errno));
    total = 0;
    while ((n = write(master, many, 1000)) > 0)
        total += n;
    printf("master filled: %d %s\n", total > 4000 && total < 200000, strerror(errno));
    unpair();
}

static void edges(void) {
    pair();
    int ep = epoll_create1(0);
    struct epoll_event e = {EPOLLIN | EPOLLET, {.u32 = 1}};
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, slave, &e) == 0);
    say("nothing", epoll_wait(ep, &e, 1, 0));
    TYPE("ab");
    usleep(20000);
    TYPE("c\n");
    say("a line", epoll_wait(ep, &e, 1, 1000));
    say("told", epoll_wait(ep, &e, 1, 0));
    TYPE("d\n");
    say("another", epoll_wait(ep, &e, 1, 1000));
    close(ep);
    unpair();
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGALRM, SIG_DFL);
    alarm(100);
    const char *only = argc > 1 ? argv[1] : NULL;
#define SECTION(function)                                                                    \
    if (!only || !strcmp(only, #function)) {                                                 \
        printf("== %s\n", #function);                                                        \
        function();                                                                          \
    }
    SECTION(names);
    SECTION(locks);
    SECTION(initial);
    SECTION(lines);
    SECTION(long_lines);
    SECTION(raw_input);
    SECTION(output);
    SECTION(flow);
    SECTION(patience);
    SECTION(packets);
    SECTION(ends);
    SECTION(amounts);
    SECTION(edges);
    return finish();
}
