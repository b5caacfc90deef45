// Ancillary data of AF_UNIX sockets: descriptors, credentials, and sockets that only reach each other.
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static void pair(int type, int *sv) { CHECK(socketpair(AF_UNIX, type, 0, sv) == 0); }

/* Sends `bytes` with descriptors. */
static ssize_t send_fds(int socket, const char *bytes, size_t len, const int *fds, int count) {
    char control[CMSG_SPACE(300 * sizeof(int))] = {0};
    struct iovec piece = {(void *)bytes, len};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    if (count > 0) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL);
}

/* Receives up to 64 bytes; how many descriptors came is in *count. */
static ssize_t receive_fds(int socket, char *bytes, size_t len, int *fds, int room, int *count, int flags, int *got_flags) {
    char control[CMSG_SPACE(300 * sizeof(int))] = {0};
    struct iovec piece = {bytes, len};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    message.msg_control = control;
    message.msg_controllen = room > 0 ? CMSG_LEN(room * sizeof(int)) : 0;
    ssize_t got = recvmsg(socket, &message, flags);
    *count = 0;
    if (got < 0) return got;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header))
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
            *count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(fds, CMSG_DATA(header), *count * sizeof(int));
        }
    if (got_flags) *got_flags = message.msg_flags;
    return got;
}

static int open_descriptors(void) {
    int count = 0;
    for (int fd = 0; fd < 200; fd++) count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void passing(void) {
    int sv[2], fds[300], count, flags, p[2];
    char buf[64];
    pair(SOCK_STREAM, sv);
    CHECK(pipe(p) == 0);
    CHECK_INT(send_fds(sv[0], "x", 1, p, 2), 1);
    CHECK_INT(receive_fds(sv[1], buf, 64, fds, 10, &count, 0, &flags), 1);
    CHECK_INT(count, 2);
    CHECK_INT(flags, 0);
    CHECK_INT(fcntl(fds[0], F_GETFD), 0);
    CHECK_INT(write(fds[1], "through", 7), 7);
    CHECK_INT(read(p[0], buf, 64), 7);
    close(fds[0]);
    close(fds[1]);
    // MSG_CMSG_CLOEXEC, also told back.
    CHECK_INT(send_fds(sv[0], "x", 1, p, 1), 1);
    CHECK_INT(receive_fds(sv[1], buf, 64, fds, 10, &count, MSG_CMSG_CLOEXEC, &flags), 1);
    CHECK_INT(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
    CHECK_INT(flags, MSG_CMSG_CLOEXEC);
    close(fds[0]);
    // Too little room: the rest is closed, and that is told.
    int before = open_descriptors();
    CHECK_INT(send_fds(sv[0], "x", 1, p, 2), 1);
    CHECK_INT(receive_fds(sv[1], buf, 64, fds, 1, &count, 0, &flags), 1);
    CHECK_INT(count, 1);
    CHECK_INT(flags, MSG_CTRUNC);
    close(fds[0]);
    CHECK_INT(send_fds(sv[0], "x", 1, p, 2), 1);
    CHECK_INT(receive_fds(sv[1], buf, 64, fds, 0, &count, 0, &flags), 1);
    CHECK_INT(count, 0);
    CHECK_INT(flags, MSG_CTRUNC);
    CHECK_INT(send_fds(sv[0], "x", 1, p, 2), 1);
    CHECK_INT(read(sv[1], buf, 64), 1);
    CHECK_INT(open_descriptors(), before);
    // Peeking gives them too, and again.
    CHECK_INT(send_fds(sv[0], "peek", 4, p, 1), 4);
    CHECK_INT(receive_fds(sv[1], buf, 2, fds, 10, &count, MSG_PEEK, &flags), 2);
    CHECK_INT(count, 1);
    close(fds[0]);
    CHECK_INT(receive_fds(sv[1], buf, 2, fds, 10, &count, 0, &flags), 2);
    CHECK_INT(count, 1);
    close(fds[0]);
    CHECK_INT(receive_fds(sv[1], buf, 64, fds, 10, &count, 0, &flags), 2);
    CHECK_INT(count, 0);
    // A read does not go past bytes with descriptors; those before them are read along.
    CHECK_INT(write(sv[0], "plain", 5), 5);
    CHECK_INT(send_fds(sv[0], "with", 4, p, 1), 4);
    CHECK_INT(write(sv[0], "after", 5), 5);
    CHECK_INT(send_fds(sv[0], "more", 4, p, 1), 4);
    CHECK_INT(receive_fds(sv[1], buf, 64, fds, 10, &count, 0, &flags), 9);
    CHECK_INT(count, 1);
    close(fds[0]);
    CHECK_INT(receive_fds(sv[1], buf, 64, fds, 10, &count, 0, &flags), 9);
    CHECK_INT(count, 1);
    close(fds[0]);
    // No bytes carry no descriptors in a stream.
    CHECK_INT(send_fds(sv[0], "", 0, p, 1), 0);
    CHECK_ERRNO(receive_fds(sv[1], buf, 64, fds, 10, &count, MSG_DONTWAIT, &flags), EAGAIN);
    CHECK_INT(open_descriptors(), before);
    close(sv[0]);
    close(sv[1]);
    pair(SOCK_DGRAM, sv);
    CHECK_INT(send_fds(sv[0], "", 0, p, 2), 0);
    CHECK_INT(receive_fds(sv[1], buf, 64, fds, 10, &count, 0, &flags), 0);
    CHECK_INT(count, 2);
    close(fds[0]);
    close(fds[1]);
    // A file in a message stays open.
    close(p[0]);
    CHECK_INT(send_fds(sv[0], "w", 1, p + 1, 1), 1);
    close(p[1]);
    CHECK_INT(receive_fds(sv[1], buf, 64, fds, 10, &count, 0, &flags), 1);
    CHECK(fcntl(fds[0], F_GETFL) == O_WRONLY);
    close(fds[0]);
    // Descriptors opened with O_PATH pass as well.
    int path = open("/", O_PATH);
    CHECK_INT(send_fds(sv[0], "p", 1, &path, 1), 1);
    CHECK_INT(receive_fds(sv[1], buf, 64, fds, 10, &count, 0, &flags), 1);
    struct stat st;
    CHECK(count == 1 && fstat(fds[0], &st) == 0 && S_ISDIR(st.st_mode));
    close(fds[0]);
    close(path);
    close(sv[0]);
    close(sv[1]);
}

static void refused(void) {
    int sv[2], fds[300], count, flags;
    char buf[64];
    pair(SOCK_STREAM, sv);
    int bad[2] = {sv[0], 150};
    CHECK_ERRNO(send_fds(sv[0], "x", 1, bad, 2), EBADF);
    for (int i = 0; i < 300; i++) fds[i] = 0;
    CHECK_ERRNO(send_fds(sv[0], "x", 1, fds, 254), EINVAL);
    CHECK_INT(send_fds(sv[0], "x", 1, fds, 253), 1);
    struct rlimit limit, low;
    getrlimit(RLIMIT_NOFILE, &limit);
    low = limit;
    low.rlim_cur = open_descriptors() + 5;
    setrlimit(RLIMIT_NOFILE, &low);
    CHECK_INT(receive_fds(sv[1], buf, 64, fds, 300, &count, 0, &flags), 1);
    CHECK_INT(flags, MSG_CTRUNC);
    CHECK_INT(count, 5);
    for (int i = 0; i < count; i++) close(fds[i]);
    setrlimit(RLIMIT_NOFILE, &limit);
    // Malformed control messages.
    char control[64] = {0};
    struct iovec piece = {"x", 1};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = 24};
    struct cmsghdr *header = (void *)control;
    *header = (struct cmsghdr){8, SOL_SOCKET, SCM_RIGHTS};
    CHECK_ERRNO(sendmsg(sv[0], &message, 0), EINVAL);
    *header = (struct cmsghdr){100, SOL_SOCKET, SCM_RIGHTS};
    CHECK_ERRNO(sendmsg(sv[0], &message, 0), EINVAL);
    *header = (struct cmsghdr){20, SOL_SOCKET, 99};
    CHECK_ERRNO(sendmsg(sv[0], &message, 0), EINVAL);
    *header = (struct cmsghdr){20, SOL_SOCKET, SCM_CREDENTIALS};
    CHECK_ERRNO(sendmsg(sv[0], &message, 0), EINVAL);
    *header = (struct cmsghdr){20, 41, 99};
    CHECK_INT(sendmsg(sv[0], &message, 0), 1);
    message.msg_controllen = 10;
    CHECK_INT(sendmsg(sv[0], &message, 0), 1);
    message.msg_controllen = 1 << 20;
    CHECK_ERRNO(sendmsg(sv[0], &message, 0), ENOBUFS);
    message.msg_controllen = 24;
    message.msg_control = NULL;
    CHECK_ERRNO(sendmsg(sv[0], &message, 0), EFAULT);
    close(sv[0]);
    close(sv[1]);
}

static ssize_t receive_creds(int socket, struct ucred *creds, int *flags) {
    char control[CMSG_SPACE(sizeof *creds)] = {0}, buf[64];
    struct iovec piece = {buf, 64};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(socket, &message, MSG_DONTWAIT);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *creds = (struct ucred){-7, -7, -7};
    if (got >= 0 && header && header->cmsg_type == SCM_CREDENTIALS) memcpy(creds, CMSG_DATA(header), sizeof *creds);
    if (flags) *flags = message.msg_flags;
    return got;
}

static ssize_t send_creds(int socket, struct ucred creds) {
    char control[CMSG_SPACE(sizeof creds)] = {0};
    struct iovec piece = {"c", 1};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){CMSG_LEN(sizeof creds), SOL_SOCKET, SCM_CREDENTIALS};
    memcpy(CMSG_DATA(header), &creds, sizeof creds);
    return sendmsg(socket, &message, 0);
}

static void credentials(void) {
    for (int type = SOCK_STREAM; type <= SOCK_DGRAM; type++) {
        int sv[2], one = 1, flags;
        struct ucred got;
        pair(type, sv);
        CHECK_INT(write(sv[0], "before", 6), 6);
        CHECK(setsockopt(sv[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof one) == 0);
        CHECK_INT(write(sv[0], "own", 3), 3);
        // Sent before anybody asked: nobody's. A stream does not mix it with the rest.
        CHECK_INT(receive_creds(sv[1], &got, &flags), 6);
        CHECK(got.pid == 0 && got.uid == 65534 && got.gid == 65534);
        CHECK_INT(receive_creds(sv[1], &got, &flags), 3);
        CHECK(got.pid == getpid() && got.uid == 0 && got.gid == 0);
        CHECK_INT(send_creds(sv[0], (struct ucred){getpid(), 5, 6}), 1);
        CHECK_INT(receive_creds(sv[1], &got, &flags), 1);
        CHECK(got.pid == getpid() && got.uid == 5 && got.gid == 6);
        CHECK_ERRNO(send_creds(sv[0], (struct ucred){getpid() + 100, 0, 0}), EPERM);
        pid_t pid = fork();
        if (pid == 0) {
            if (setgid(1000) || setuid(1000)) _exit(9);
            CHECK_ERRNO(send_creds(sv[0], (struct ucred){getpid(), 0, 1000}), EPERM);
            CHECK_ERRNO(send_creds(sv[0], (struct ucred){getpid(), 1000, 0}), EPERM);
            CHECK_INT(send_creds(sv[0], (struct ucred){getpid(), 1000, 1000}), 1);
            CHECK_INT(write(sv[0], "x", 1), 1);
            _exit(failures != 0);
        }
        int status;
        waitpid(pid, &status, 0);
        CHECK_INT(status, 0);
        CHECK_INT(receive_creds(sv[1], &got, &flags), type == SOCK_STREAM ? 2 : 1);
        CHECK(got.pid == pid || got.pid == 0);
        CHECK(got.uid == 1000 && got.gid == 1000);
        char byte;
        if (type == SOCK_DGRAM) CHECK_INT(read(sv[1], &byte, 1), 1);
        // No room for them.
        CHECK_INT(write(sv[0], "x", 1), 1);
        struct iovec piece = {&byte, 1};
        struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
        CHECK_INT(recvmsg(sv[1], &message, 0), 1);
        CHECK_INT(message.msg_flags, MSG_CTRUNC);
        close(sv[0]);
        close(sv[1]);
    }
    // A datagram socket that shows who it is gets a name.
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0), one = 1, sv[2];
    CHECK(setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof one) == 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, "/tmp/creds");
    sv[0] = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK(bind(sv[0], (void *)&address, sizeof address) == 0);
    CHECK_INT(sendto(fd, "x", 1, 0, (void *)&address, sizeof address), 1);
    socklen_t len = sizeof address;
    CHECK(getsockname(fd, (void *)&address, &len) == 0);
    CHECK_INT(len, 8);
    close(fd);
    close(sv[0]);
    unlink("/tmp/creds");
}

// Linux collects unreachable sockets when it thinks of it: closing one reminds it.
static int hang_up(struct pollfd *entry) {
    int ready = 0;
    for (int tries = 0; tries < 200 && ready == 0; tries++) {
        close(socket(AF_UNIX, SOCK_STREAM, 0));
        ready = poll(entry, 1, 100);
    }
    return ready;
}

static void cycles(void) {
    // A pipe whose only writers are in messages of sockets nobody has: the reader sees the end.
    int p[2], a[2], b[2];
    CHECK(pipe(p) == 0);
    pair(SOCK_STREAM, a);
    pair(SOCK_DGRAM, b);
    int first[3] = {p[1], b[0], b[1]}, second[2] = {a[0], a[1]};
    CHECK_INT(send_fds(a[0], "x", 1, first, 3), 1);
    CHECK_INT(send_fds(b[0], "y", 1, second, 2), 1);
    int own[2] = {a[1], p[1]};
    CHECK_INT(send_fds(a[0], "z", 1, own, 2), 1);
    CHECK_INT(send_fds(a[1], "z", 1, own, 2), 1);
    close(p[1]);
    close(b[0]);
    close(b[1]);
    close(a[0]);
    struct pollfd entry = {.fd = p[0], .events = POLLIN};
    CHECK_INT(poll(&entry, 1, 0), 0);
    close(a[1]);
    // Linux collects them a little later, when it thinks of it: closing a socket reminds it.
    int ready = hang_up(&entry);
    CHECK_INT(ready, 1);
    CHECK_INT(entry.revents, POLLHUP);
    close(p[0]);
    // Sockets in flight that somebody can still receive stay.
    int c[2], d[2], fds[8], count;
    char buf[8];
    pair(SOCK_STREAM, c);
    pair(SOCK_STREAM, d);
    CHECK_INT(send_fds(c[0], "x", 1, d, 2), 1);
    CHECK_INT(write(d[0], "inside", 6), 6);
    close(d[0]);
    close(d[1]);
    for (int i = 0; i < 3; i++) close(socket(AF_UNIX, SOCK_STREAM, 0));
    CHECK_INT(receive_fds(c[1], buf, 8, fds, 8, &count, 0, NULL), 1);
    CHECK_INT(count, 2);
    CHECK_INT(read(fds[1], buf, 8), 6);
    close(fds[0]);
    close(fds[1]);
    close(c[0]);
    close(c[1]);
    // A connection waits in a listener that is in a message of that connection.
    CHECK(pipe(p) == 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path + 1, "cycle");
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(bind(listener, (void *)&address, 8) == 0 && listen(listener, 5) == 0);
    CHECK(connect(client, (void *)&address, 8) == 0);
    int held[3] = {listener, p[1], client};
    CHECK_INT(send_fds(client, "x", 1, held, 3), 1);
    close(p[1]);
    close(listener);
    close(client);
    entry.fd = p[0];
    CHECK_INT(hang_up(&entry), 1);
    CHECK_INT(entry.revents, POLLHUP);
    close(p[0]);
    // A chain of sockets in each other, long enough to overflow a stack that took one step for each.
    CHECK(pipe(p) == 0);
    int inner = p[1];
    for (int i = 0; i < 20000; i++) {
        int sv[2];
        pair(SOCK_STREAM, sv);
        if (send_fds(sv[0], "x", 1, &inner, 1) != 1) {
            CHECK_INT(errno, ETOOMANYREFS);
            close(sv[0]);
            close(sv[1]);
            break;
        }
        close(inner);
        close(sv[0]);
        inner = sv[1];
    }
    close(inner);
    entry.fd = p[0];
    CHECK_INT(poll(&entry, 1, 20000), 1);
    CHECK_INT(entry.revents, POLLHUP);
    close(p[0]);
}

int main(void) {
    mkdir("/tmp", 01777);
    GROUP(passing);
    GROUP(refused);
    GROUP(credentials);
    GROUP(cycles);
    CHECK_INT(open_descriptors(), 3);
    return finish();
}
