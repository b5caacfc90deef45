/*
 * Descriptors that are passed on into a container.
 *
 *   handed give DIR RUNTIME...     outside: makes them, runs RUNTIME with 3 to 9 open, is the other side of each, and prints
 *                                  what it saw
 *   handed activate RUNTIME...     outside: a listening socket, as sd_listen_fds(3) says, and one descriptor more
 *   handed take                    in the container
 *   handed activated               in the container, of `activate`
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { READ = 3, WRITE, FILE_BOTH, FILE_APPEND, TCP, UNIX_STREAM, UNIX_PACKETS, COUNT = 7 };

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int check(int result, const char *what) {
    if (result < 0)
        die(what);
    return result;
}

/* Reads until the end, or one message. */
static const char *text(int fd, int to_the_end) {
    static char buffer[4096];
    size_t have = 0;
    for (;;) {
        ssize_t got = read(fd, buffer + have, sizeof buffer - 1 - have);
        if (got < 0) {
            snprintf(buffer, sizeof buffer, "(%s)", strerror(errno));
            return buffer;
        }
        have += got;
        if (got == 0 || !to_the_end)
            break;
    }
    buffer[have] = 0;
    return buffer;
}

static void say(int fd, const char *format, ...) {
    char line[4096];
    va_list list;
    va_start(list, format);
    int length = vsnprintf(line, sizeof line, format, list);
    va_end(list);
    if (write(fd, line, length) != length)
        die("write");
}

static void tell_socket(int fd) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    int kind, listens, is = sizeof kind;
    check(getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, (socklen_t *)&is), "SO_TYPE");
    check(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, (socklen_t *)&is), "SO_ACCEPTCONN");
    check(getsockname(fd, (struct sockaddr *)&address, &length), "getsockname");
    printf("%d: type %d listens %d family %d", fd, kind, listens, address.ss_family);
    length = sizeof address;
    if (getpeername(fd, (struct sockaddr *)&address, &length) < 0)
        printf(" %s", strerror(errno));
    puts("");
}

static void accept_one(int fd) {
    /* By epoll: word of a connection has to come from the host. */
    int queue = check(epoll_create1(0), "epoll_create1");
    struct epoll_event event = {.events = EPOLLIN};
    check(epoll_ctl(queue, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
    check(epoll_wait(queue, &event, 1, -1), "epoll_wait");
    int one = check(accept(fd, NULL, NULL), "accept");
    printf("%d: accepted: %s", fd, text(one, 0));
    say(one, "answer from %d\n", fd);
    close(one);
    close(queue);
}

static void take(void) {
    struct stat stat;
    for (int fd = READ; fd < READ + COUNT; fd++) {
        check(fstat(fd, &stat), "fstat");
        printf("%d: type %o access %d append %d\n", fd, stat.st_mode & S_IFMT, fcntl(fd, F_GETFL) & O_ACCMODE,
               !!(fcntl(fd, F_GETFL) & O_APPEND));
    }
    printf("more: %s\n", fcntl(READ + COUNT, F_GETFD) < 0 ? strerror(errno) : "open");
    for (int fd = TCP; fd <= UNIX_PACKETS; fd++)
        tell_socket(fd);

    printf("pipe: %s", text(READ, 1));
    printf("pipe: %s\n", write(READ, "x", 1) < 0 ? strerror(errno) : "written");
    /* A whole pipe's worth and more, so that it has to wait. */
    char block[1000];
    memset(block, 'p', sizeof block);
    for (int i = 0; i < 200; i++)
        if (write(WRITE, block, sizeof block) != sizeof block)
            die("write to the pipe");
    close(WRITE);

    check(fstat(FILE_BOTH, &stat), "fstat");
    printf("file: at %ld of %ld\n", (long)lseek(FILE_BOTH, 0, SEEK_CUR), (long)stat.st_size);
    char bytes[64] = "";
    printf("file: pread %zd", pread(FILE_BOTH, bytes, 5, 0));
    printf(" %s at %ld\n", bytes, (long)lseek(FILE_BOTH, 0, SEEK_CUR));
    if (read(FILE_BOTH, bytes, 5) != 5 || write(FILE_BOTH, "WRITTEN", 7) != 7)
        die("file");
    printf("file: read %s at %ld\n", bytes, (long)lseek(FILE_BOTH, 0, SEEK_CUR));
    int copy = dup(FILE_BOTH);
    check(lseek(copy, 2, SEEK_SET), "lseek");
    printf("file: a copy moves it to %ld, end %ld\n", (long)lseek(FILE_BOTH, 0, SEEK_CUR), (long)lseek(copy, 0, SEEK_END));
    check(ftruncate(FILE_BOTH, 20), "ftruncate");
    check(fsync(FILE_BOTH), "fsync");
    check(lseek(FILE_BOTH, 3, SEEK_SET), "lseek");
    int anew = check(open("/proc/self/fd/5", O_RDONLY), "open anew");
    printf("file: anew %s", text(anew, 1));
    printf(" at %ld, the first at %ld\n", (long)lseek(anew, 0, SEEK_CUR), (long)lseek(FILE_BOTH, 0, SEEK_CUR));
    say(FILE_APPEND, "appended\n");
    printf("file: %s\n", read(FILE_APPEND, bytes, 1) < 0 ? strerror(errno) : "read");

    accept_one(TCP);
    accept_one(UNIX_STREAM);
    printf("packets: %s\n", text(UNIX_PACKETS, 0));
    say(UNIX_PACKETS, "packet answer");
    struct pollfd poll_for = {.fd = UNIX_PACKETS, .events = POLLIN | POLLOUT};
    printf("packets: %x\n", check(poll(&poll_for, 1, 0), "poll") ? poll_for.revents : 0);
}

static void place(int fd, int number) {
    if (fd == number)
        return;
    check(dup2(fd, number), "dup2");
    close(fd);
}

/* Runs the command with what `fds` has at 3 and on. */
static pid_t start(int *fds, int count, char **command, int activated) {
    fflush(NULL);
    pid_t pid = check(fork(), "fork");
    if (pid > 0) {
        for (int i = 0; i < count; i++)
            close(fds[i]);
        return pid;
    }
    for (int i = 0; i < count; i++)
        fds[i] = check(fcntl(fds[i], F_DUPFD, 100), "F_DUPFD");
    for (int fd = 3; fd < 100; fd++)
        close(fd);
    for (int i = 0; i < count; i++)
        place(fds[i], 3 + i);
    if (activated) {
        char number[32];
        snprintf(number, sizeof number, "%d", getpid());
        setenv("LISTEN_PID", number, 1);
        setenv("LISTEN_FDS", "1", 1);
    }
    execvp(command[0], command);
    die("execvp");
    return -1;
}

static int listening(struct sockaddr *address, socklen_t length) {
    int fd = check(socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    check(bind(fd, address, length), "bind");
    check(listen(fd, 5), "listen");
    check(getsockname(fd, address, &length), "getsockname");
    return fd;
}

static void talk(struct sockaddr *address, socklen_t length, const char *what) {
    int fd = check(socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    check(connect(fd, address, length), "connect");
    say(fd, "hello %s\n", what);
    printf("outside: %s: %s", what, text(fd, 1));
    close(fd);
}

static void end(pid_t pid) {
    int status;
    check(waitpid(pid, &status, 0), "waitpid");
    printf("status %d\n", status);
}

static void give(const char *dir, char **command) {
    int in[2], out[2], packets[2], keep;
    char path[256];
    check(pipe2(in, O_CLOEXEC), "pipe");
    check(pipe2(out, O_CLOEXEC), "pipe");
    check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, packets), "socketpair");
    snprintf(path, sizeof path, "%s/both", dir);
    int both = check(open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), "open");
    say(both, "first second third\n");
    check(lseek(both, 6, SEEK_SET), "lseek");
    keep = check(fcntl(both, F_DUPFD_CLOEXEC, 50), "F_DUPFD");
    snprintf(path, sizeof path, "%s/append", dir);
    int append = check(open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600), "open");
    say(append, "was here\n");
    struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    snprintf(local.sun_path, sizeof local.sun_path, "%s/socket", dir);
    int tcp_fd = listening((struct sockaddr *)&tcp, sizeof tcp);
    int local_fd = listening((struct sockaddr *)&local, sizeof local);
    int fds[COUNT] = {in[0], out[1], both, append, tcp_fd, local_fd, packets[0]};
    pid_t pid = start(fds, COUNT, command, 0);

    /* Not a word before all is over: the container writes to the same place. */
    say(in[1], "one\ntwo\n");
    close(in[1]);
    char block[4096];
    long total = 0;
    /* Not until the end: runc itself keeps them open. */
    while (total < 200 * 1000)
        total += check(read(out[0], block, sizeof block), "read");
    char kept[4096];
    setvbuf(stdout, kept, _IOFBF, sizeof kept);
    printf("outside: %ld bytes\n", total);
    talk((struct sockaddr *)&tcp, sizeof tcp, "tcp");
    talk((struct sockaddr *)&local, sizeof local, "unix");
    say(packets[1], "packet");
    printf("outside: %s\n", text(packets[1], 0));
    printf("outside: the file is at %ld\n", (long)lseek(keep, 0, SEEK_CUR));
    end(pid);
}

static void activate(char **command) {
    struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int ends[2];
    check(pipe2(ends, O_CLOEXEC), "pipe");
    int fds[2] = {listening((struct sockaddr *)&tcp, sizeof tcp), ends[1]};
    pid_t pid = start(fds, 2, command, 1);
    char kept[4096];
    setvbuf(stdout, kept, _IOFBF, sizeof kept);
    talk((struct sockaddr *)&tcp, sizeof tcp, "tcp");
    printf("outside: %s|\n", text(ends[0], 0));
    end(pid);
}

static void activated(void) {
    printf("LISTEN_FDS=%s LISTEN_PID=%s\n", getenv("LISTEN_FDS"), getenv("LISTEN_PID"));
    tell_socket(3);
    accept_one(3);
    say(4, "the one after");
    printf("5: %s\n", fcntl(5, F_GETFD) < 0 ? strerror(errno) : "open");
}

int main(int argc, char **argv) {
    alarm(100);
    if (argc == 2 && !strcmp(argv[1], "take"))
        take();
    else if (argc == 2 && !strcmp(argv[1], "activated"))
        activated();
    else if (argc > 3 && !strcmp(argv[1], "give"))
        give(argv[2], argv + 3);
    else if (argc > 2 && !strcmp(argv[1], "activate"))
        activate(argv + 2);
    else
        return 2;
    return 0;
}
