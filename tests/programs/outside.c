// Meets others through a directory both have: outside DIRECTORY CASE. One runs in a container and one on the host, or in
// another container; each case has two halves.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what) {
    printf("%s: %s\n", what, strerrorname_np(errno));
    exit(1);
}

static void say(const char *what, long value) {
    if (value < 0) printf("%s: %s\n", what, strerrorname_np(errno));
    else printf("%s: %ld\n", what, value);
    fflush(stdout);
}

/* Waits until the other half has made `name`, and takes it away. */
static void await(const char *name) {
    while (unlink(name) != 0) usleep(1000);
}

static void tell(const char *name) {
    int fd = open(name, O_CREAT | O_WRONLY, 0600);
    if (fd < 0) fail(name);
    close(fd);
}

static int address(struct sockaddr_un *to, const char *path) {
    memset(to, 0, sizeof *to);
    to->sun_family = AF_UNIX;
    strcpy(to->sun_path, path);
    return (int)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1);
}

static void server(void) {
    struct sockaddr_un name;
    static char bytes[300000];
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), packets = socket(AF_UNIX, SOCK_SEQPACKET, 0),
        datagrams = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (bind(listener, (void *)&name, (socklen_t)address(&name, "stream")) || listen(listener, 5)) fail("stream");
    if (bind(packets, (void *)&name, (socklen_t)address(&name, "packets")) || listen(packets, 5)) fail("packets");
    if (bind(datagrams, (void *)&name, (socklen_t)address(&name, "datagrams"))) fail("datagrams");
    tell("ready");
    int peer = accept(listener, NULL, NULL);
    ssize_t got;
    /* An echo, until the other half is shut; then all that came at once. */
    size_t total = 0;
    do {
        got = read(peer, bytes, 1000);
        if (got <= 0 || write(peer, bytes, (size_t)got) != got) fail("echo");
    } while (memchr(bytes, '.', (size_t)got) == NULL);
    while ((got = read(peer, bytes, sizeof bytes)) > 0) total += (size_t)got;
    say("server has read", (long)total);
    for (size_t at = 0; at < sizeof bytes; at++) bytes[at] = (char)(at * 7);
    for (size_t at = 0; at < sizeof bytes; at += (size_t)got)
        if ((got = write(peer, bytes + at, sizeof bytes - at)) <= 0) fail("write");
    close(peer);
    peer = accept(packets, NULL, NULL);
    while ((got = recv(peer, bytes, sizeof bytes, 0)) > 0) say("packet", got);
    close(peer);
    for (int i = 0; i < 3; i++) say("datagram", recv(datagrams, bytes, sizeof bytes, 0));
    close(datagrams);
    tell("closed");
    await("done");
}

static void client(void) {
    static char bytes[300000], back[300000];
    struct sockaddr_un name;
    socklen_t len;
    await("ready");
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    say("connect to what is not there", connect(fd, (void *)&name, (socklen_t)address(&name, "none")));
    say("connect a stream to packets", connect(fd, (void *)&name, (socklen_t)address(&name, "packets")));
    say("connect", connect(fd, (void *)&name, (socklen_t)address(&name, "stream")));
    say("connect again", connect(fd, (void *)&name, (socklen_t)address(&name, "stream")));
    len = sizeof name;
    say("getpeername", getpeername(fd, (void *)&name, &len));
    printf("%s %d\n", name.sun_path, (int)len);
    struct ucred peer;
    len = sizeof peer;
    say("SO_PEERCRED", getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len));
    printf("uid %d\n", (int)peer.uid);
    say("nothing yet", recv(fd, back, 10, MSG_DONTWAIT));
    struct pollfd poller = {fd, POLLIN | POLLOUT, 0};
    say("poll", poll(&poller, 1, 0));
    printf("%x\n", poller.revents);
    int epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLIN, {0}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    say("epoll before", epoll_wait(epoll, &event, 1, 0));
    for (int i = 0; i < 50; i++) {
        char line[40];
        int wanted = sprintf(line, "message %d", i);
        if (write(fd, line, (size_t)wanted) != wanted) fail("write");
        if (i % 3 == 0 && epoll_wait(epoll, &event, 1, 5000) != 1) fail("epoll");
        if (i % 3 == 1) {
            poller.events = POLLIN;
            if (poll(&poller, 1, 5000) != 1) fail("poll");
        }
        if (i == 7 && (recv(fd, back, 3, MSG_PEEK) != 3 || memcmp(back, line, 3))) fail("peek");
        if (recv(fd, back, (size_t)wanted, MSG_WAITALL) != wanted || memcmp(line, back, (size_t)wanted)) fail("echo");
    }
    if (write(fd, ".", 1) != 1 || read(fd, back, 10) != 1) fail("write");
    long written = 0;
    while (written < (long)sizeof bytes) {
        ssize_t put = write(fd, bytes, sizeof bytes - (size_t)written);
        if (put <= 0) fail("long write");
        written += put;
    }
    say("shutdown", shutdown(fd, SHUT_WR));
    signal(SIGPIPE, SIG_IGN);
    say("write after shutdown", write(fd, "x", 1));
    long got = 0;
    for (ssize_t now; (now = read(fd, back + got, sizeof back - (size_t)got)) > 0;) got += now;
    say("read", got);
    for (long at = 0; at < got; at++)
        if (back[at] != (char)(at * 7)) fail("contents");
    poller.events = POLLIN | POLLRDHUP;
    say("poll at the end", poll(&poller, 1, 1000));
    close(fd);

    fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    say("connect packets", connect(fd, (void *)&name, (socklen_t)address(&name, "packets")));
    for (int i = 1; i < 4; i++) say("send packet", send(fd, bytes, (size_t)i * 1111, 0));
    close(fd);
    fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    say("connect datagrams", connect(fd, (void *)&name, (socklen_t)address(&name, "datagrams")));
    for (int i = 1; i < 4; i++) say("send datagram", send(fd, bytes, (size_t)i * 2222, 0));
    await("closed");
    say("send to nobody", send(fd, bytes, 1, 0));
    close(fd);
    fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    say("connect to a closed one", connect(fd, (void *)&name, (socklen_t)address(&name, "datagrams")));
    tell("done");
}

static void writer(void) {
    if (mkfifo("fifo", 0600)) fail("mkfifo");
    say("open a FIFO without a reader", open("fifo", O_WRONLY | O_NONBLOCK));
    tell("made");
    int fd = open("fifo", O_WRONLY);
    static char bytes[200000];
    for (size_t at = 0; at < sizeof bytes; at++) bytes[at] = (char)(at * 11);
    for (size_t at = 0; at < sizeof bytes;) {
        ssize_t put = write(fd, bytes + at, sizeof bytes - at);
        if (put <= 0) fail("write");
        at += (size_t)put;
    }
    close(fd);
    await("next");
    fd = open("fifo", O_WRONLY);
    tell("opened");
    await("closed");
    signal(SIGPIPE, SIG_IGN);
    say("write without a reader", write(fd, "x", 1));
    struct stat info;
    say("stat", fstat(fd, &info));
    printf("%o\n", info.st_mode);
    say("seek", lseek(fd, 0, SEEK_CUR));
}

static void reader(void) {
    await("made");
    static char bytes[200001];
    int fd = open("fifo", O_RDONLY);
    size_t got = 0;
    for (ssize_t now; (now = read(fd, bytes + got, sizeof bytes - got)) > 0;) got += (size_t)now;
    say("read", (long)got);
    for (size_t at = 0; at < got; at++)
        if (bytes[at] != (char)(at * 11)) fail("contents");
    struct pollfd poller = {fd, POLLIN, 0};
    say("poll", poll(&poller, 1, 0));
    printf("%x\n", poller.revents);
    close(fd);
    tell("next");
    fd = open("fifo", O_RDONLY);
    await("opened");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    say("nothing", read(fd, bytes, 1));
    close(fd);
    tell("closed");
}

static int record(int fd, int command, int kind, long start, long len) {
    struct flock lock = {.l_type = (short)kind, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    int got = fcntl(fd, command, &lock);
    if (command == F_GETLK && got == 0)
        printf("in the way: %d %ld %ld\n", lock.l_type, (long)lock.l_start, (long)lock.l_len);
    return got;
}

static void holder(void) {
    int fd = open("locked", O_RDWR | O_CREAT, 0600), other = open("locked", O_RDWR);
    say("exclusive", record(fd, F_SETLK, F_WRLCK, 100, 50));
    say("shared", record(fd, F_SETLK, F_RDLCK, 200, 100));
    say("of the file", record(other, F_OFD_SETLK, F_RDLCK, 250, 100));
    say("whole", flock(fd, LOCK_EX));
    tell("held");
    await("seen");
    say("unlock", record(fd, F_SETLK, F_UNLCK, 0, 0));
    say("whole shared", flock(fd, LOCK_SH));
    tell("less");
    await("seen");
    say("again", record(fd, F_SETLK, F_WRLCK, 0, 10));
    tell("waited for");
    usleep(50000);
    close(other);
    close(fd);
    await("done");
}

static void contender(void) {
    await("held");
    int fd = open("locked", O_RDWR);
    record(fd, F_GETLK, F_WRLCK, 0, 0);
    say("a free range", record(fd, F_SETLK, F_WRLCK, 0, 100));
    say("one byte too many", record(fd, F_SETLK, F_RDLCK, 0, 101));
    say("shared with shared", record(fd, F_SETLK, F_RDLCK, 200, 100));
    say("exclusive over shared", record(fd, F_SETLK, F_WRLCK, 299, 2));
    say("whole", flock(fd, LOCK_SH | LOCK_NB));
    record(fd, F_SETLK, F_UNLCK, 0, 0);
    tell("seen");
    await("less");
    say("what was unlocked", record(fd, F_SETLK, F_WRLCK, 100, 150));
    say("what the other descriptor holds", record(fd, F_SETLK, F_WRLCK, 250, 1));
    say("whole shared", flock(fd, LOCK_SH | LOCK_NB));
    say("whole exclusive", flock(fd, LOCK_EX | LOCK_NB));
    record(fd, F_SETLK, F_UNLCK, 0, 0);
    flock(fd, LOCK_UN);
    tell("seen");
    await("waited for");
    say("wait for a record", record(fd, F_SETLKW, F_WRLCK, 0, 10));
    say("wait for the whole", flock(fd, LOCK_EX));
    tell("done");
}

/* Adds to a number in a file, under a lock, a thousand times. */
static void adder(int whole) {
    int fd = open("number", O_RDWR | O_CREAT, 0600);
    for (int i = 0; i < 1000; i++) {
        if (whole ? flock(fd, LOCK_EX) : record(fd, F_SETLKW, F_WRLCK, 0, 8)) fail("lock");
        char text[32] = "";
        if (pread(fd, text, 19, 0) < 0) fail("read");
        int len = sprintf(text, "%ld\n", atol(text) + 1);
        if (pwrite(fd, text, (size_t)len, 0) != len) fail("write");
        if (whole ? flock(fd, LOCK_UN) : record(fd, F_SETLK, F_UNLCK, 0, 8)) fail("unlock");
    }
}

int main(int argc, char **argv) {
    if (argc != 3 || chdir(argv[1]) != 0) return 2;
    static const struct {
        const char *name;
        void (*run)(void);
    } halves[] = {{"server", server}, {"client", client},       {"writer", writer},
                  {"reader", reader}, {"holder", holder}, {"contender", contender}};
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++) {
        if (strcmp(halves[i].name, argv[2]) == 0) {
            halves[i].run();
            return 0;
        }
    }
    adder(strcmp(argv[2], "whole") == 0);
    return 0;
}
