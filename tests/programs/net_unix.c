// AF_UNIX sockets: creation, names, connections, messages, ancillary data, readiness.
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <linux/sockios.h>

static void *volatile bad_address = (void *)8;

static socklen_t path_address(struct sockaddr_un *address, const char *path) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    strcpy(address->sun_path, path);
    return offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1;
}

static socklen_t abstract_address(struct sockaddr_un *address, const char *name) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    strcpy(address->sun_path + 1, name);
    return offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name);
}

static int bound(int type, const char *path) {
    struct sockaddr_un address;
    int fd = socket(AF_UNIX, type, 0);
    CHECK(bind(fd, (void *)&address, path_address(&address, path)) == 0);
    return fd;
}

static int listener(int type, const char *path, int backlog) {
    int fd = bound(type, path);
    CHECK(listen(fd, backlog) == 0);
    return fd;
}

static int connected(int type, const char *path) {
    struct sockaddr_un address;
    int fd = socket(AF_UNIX, type, 0);
    CHECK(connect(fd, (void *)&address, path_address(&address, path)) == 0);
    return fd;
}

static short ready(int fd) {
    struct pollfd entry = {.fd = fd, .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP};
    poll(&entry, 1, 0);
    return entry.revents;
}

static int nonblocking(int fd) { return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

static void creation(void) {
    CHECK_ERRNO(socket(-1, SOCK_STREAM, 0), EAFNOSUPPORT);
    CHECK_ERRNO(socket(99, SOCK_STREAM, 0), EAFNOSUPPORT);
    CHECK_ERRNO(socket(AF_UNIX, 11, 0), EINVAL);
    CHECK_ERRNO(socket(AF_UNIX, 0, 0), ESOCKTNOSUPPORT);
    CHECK_ERRNO(socket(AF_UNIX, SOCK_RDM, 0), ESOCKTNOSUPPORT);
    CHECK_ERRNO(socket(AF_UNIX, SOCK_STREAM, 7), EPROTONOSUPPORT);
    CHECK_ERRNO(socket(AF_UNIX, SOCK_STREAM | 0x100, 0), EINVAL);
    CHECK_ERRNO(socket(AF_UNSPEC, SOCK_STREAM, 0), EAFNOSUPPORT);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 1);
    CHECK(fd >= 0);
    CHECK_INT(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_INT(fcntl(fd, F_GETFL), O_RDWR | O_NONBLOCK);
    struct stat st;
    CHECK(fstat(fd, &st) == 0);
    CHECK_INT(st.st_mode, S_IFSOCK | 0777);
    CHECK_INT(st.st_size, 0);
    char link[64], name[64], expected[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, name, sizeof name - 1);
    name[len > 0 ? len : 0] = 0;
    snprintf(expected, sizeof expected, "socket:[%lu]", (unsigned long)st.st_ino);
    CHECK(strcmp(name, expected) == 0);
    CHECK_ERRNO(open(link, O_RDWR), ENXIO);
    CHECK_ERRNO(lseek(fd, 0, SEEK_SET), ESPIPE);
    char byte;
    CHECK_ERRNO(pread(fd, &byte, 1, 0), ESPIPE);
    CHECK_ERRNO(ftruncate(fd, 0), EINVAL);
    CHECK_ERRNO(fsync(fd), EINVAL);
    CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED);
    CHECK_INT(errno, ENODEV);
    CHECK_INT(ready(fd), POLLOUT | POLLHUP);
    CHECK_ERRNO(read(fd, &byte, 1), EINVAL);
    CHECK_ERRNO(send(fd, "x", 1, MSG_NOSIGNAL), ENOTCONN);
    int type = 0, domain = 0, protocol = 7;
    socklen_t size = sizeof(int);
    CHECK(getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM);
    CHECK(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX);
    CHECK(getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 && protocol == 0);
    close(fd);
    fd = socket(AF_UNIX, SOCK_RAW, 0);
    CHECK(getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_DGRAM);
    CHECK_INT(ready(fd), POLLOUT);
    close(fd);
    CHECK_ERRNO(listen(0x7000, 1), EBADF);
    int file = open("/etc/passwd", O_RDONLY);
    CHECK_ERRNO(listen(file, 1), ENOTSOCK);
    CHECK_ERRNO(accept(file, NULL, NULL), ENOTSOCK);
    CHECK_ERRNO(send(file, "x", 1, 0), ENOTSOCK);
    close(file);
    fd = open("/etc/passwd", O_PATH);
    CHECK_ERRNO(listen(fd, 1), EBADF);
    close(fd);
    int sv[2];
    CHECK_ERRNO(socketpair(AF_UNIX, SOCK_STREAM, 0, bad_address), EFAULT);
    CHECK_ERRNO(socketpair(AF_UNIX, SOCK_STREAM, 9, sv), EPROTONOSUPPORT);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) == 0);
    CHECK_INT(fcntl(sv[1], F_GETFD), FD_CLOEXEC);
    close(sv[0]);
    close(sv[1]);
}

static void names(void) {
    struct sockaddr_un address, other;
    socklen_t len;
    umask(022);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    len = sizeof other;
    CHECK(getsockname(fd, (void *)&other, &len) == 0);
    CHECK_INT(len, 2);
    CHECK_INT(other.sun_family, AF_UNIX);
    CHECK_ERRNO(getpeername(fd, (void *)&other, &len), ENOTCONN);
    len = path_address(&address, "/tmp/no/such");
    CHECK_ERRNO(bind(fd, (void *)&address, len), ENOENT);
    CHECK_ERRNO(connect(fd, (void *)&address, len), ENOENT);
    len = path_address(&address, "/etc/passwd");
    CHECK_ERRNO(bind(fd, (void *)&address, len), EADDRINUSE);
    CHECK_ERRNO(connect(fd, (void *)&address, len), ECONNREFUSED);
    len = path_address(&address, "/tmp/name");
    CHECK_ERRNO(bind(fd, (void *)&address, 1), EINVAL);
    CHECK_ERRNO(bind(fd, (void *)&address, 0), EINVAL);
    CHECK_ERRNO(bind(fd, (void *)&address, 129), EINVAL);
    CHECK_ERRNO(bind(fd, (void *)&address, 111), EINVAL);
    CHECK_ERRNO(bind(fd, (void *)&address, -1), EINVAL);
    CHECK_ERRNO(bind(fd, NULL, len), EFAULT);
    address.sun_family = AF_INET;
    CHECK_ERRNO(bind(fd, (void *)&address, len), EINVAL);
    CHECK_ERRNO(connect(fd, (void *)&address, len), EINVAL);
    address.sun_family = AF_UNIX;
    CHECK_ERRNO(listen(fd, 1), EINVAL);
    CHECK(bind(fd, (void *)&address, len) == 0);
    struct stat st;
    CHECK(lstat("/tmp/name", &st) == 0);
    CHECK_INT(st.st_mode, S_IFSOCK | 0755);
    CHECK_ERRNO(open("/tmp/name", O_RDWR), ENXIO);
    CHECK_ERRNO(open("/tmp/name", O_RDONLY | O_NONBLOCK), ENXIO);
    memset(&other, 7, sizeof other);
    len = sizeof other;
    CHECK(getsockname(fd, (void *)&other, &len) == 0);
    CHECK_INT(len, 2 + strlen("/tmp/name") + 1);
    CHECK(strcmp(other.sun_path, "/tmp/name") == 0);
    memset(&other, 7, sizeof other);
    len = 5;
    CHECK(getsockname(fd, (void *)&other, &len) == 0);
    CHECK_INT(len, 2 + strlen("/tmp/name") + 1);
    CHECK_INT(other.sun_path[3], 7);
    len = -1;
    CHECK_ERRNO(getsockname(fd, (void *)&other, &len), EINVAL);
    CHECK_ERRNO(getsockname(fd, (void *)&other, NULL), EFAULT);
    int second = socket(AF_UNIX, SOCK_STREAM, 0);
    len = path_address(&address, "/tmp/name");
    CHECK_ERRNO(bind(second, (void *)&address, len), EADDRINUSE);
    CHECK_ERRNO(connect(second, (void *)&address, len), ECONNREFUSED);
    len = path_address(&address, "/tmp/name2");
    CHECK_ERRNO(bind(fd, (void *)&address, len), EINVAL);
    CHECK_ERRNO(lstat("/tmp/name2", &st), ENOENT);
    // The name without its NUL, and one that fills the struct.
    CHECK(bind(second, (void *)&address, len - 1) == 0);
    len = sizeof other;
    CHECK(getsockname(second, (void *)&other, &len) == 0);
    CHECK_INT(len, 2 + strlen("/tmp/name2") + 1);
    close(second);
    second = socket(AF_UNIX, SOCK_STREAM, 0);
    memset(address.sun_path, 'x', sizeof address.sun_path);
    memcpy(address.sun_path, "/tmp/", 5);
    CHECK(bind(second, (void *)&address, sizeof address) == 0);
    len = 200;
    char long_name[200];
    CHECK(getsockname(second, (void *)long_name, &len) == 0);
    CHECK_INT(len, 111);
    close(second);
    // A datagram socket does not reach a stream's name.
    second = socket(AF_UNIX, SOCK_DGRAM, 0);
    len = path_address(&address, "/tmp/name");
    CHECK_ERRNO(connect(second, (void *)&address, len), EPROTOTYPE);
    close(second);
    // The name stays after the socket; the next one cannot use it.
    close(fd);
    CHECK(lstat("/tmp/name", &st) == 0);
    second = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK_ERRNO(connect(second, (void *)&address, len), ECONNREFUSED);
    CHECK_ERRNO(bind(second, (void *)&address, len), EADDRINUSE);
    CHECK(unlink("/tmp/name") == 0);
    CHECK(bind(second, (void *)&address, len) == 0);
    // A renamed socket is found by its new name.
    CHECK(listen(second, 3) == 0);
    CHECK(rename("/tmp/name", "/tmp/moved") == 0);
    int client = connected(SOCK_STREAM, "/tmp/moved");
    len = sizeof other;
    CHECK(getpeername(client, (void *)&other, &len) == 0);
    CHECK(strcmp(other.sun_path, "/tmp/name") == 0);
    symlink("/tmp/moved", "/tmp/link");
    int through_link = connected(SOCK_STREAM, "/tmp/link");
    close(through_link);
    close(client);
    close(second);
    unlink("/tmp/moved");
    // mknod makes one nobody has bound.
    CHECK(mknod("/tmp/node", S_IFSOCK | 0600, 0) == 0);
    client = socket(AF_UNIX, SOCK_STREAM, 0);
    len = path_address(&address, "/tmp/node");
    CHECK_ERRNO(connect(client, (void *)&address, len), ECONNREFUSED);
    unlink("/tmp/node");
    // The mode of the socket before it is bound is the mode of the name.
    CHECK(fchmod(client, 0600) == 0);
    CHECK(bind(client, (void *)&address, len) == 0);
    CHECK(lstat("/tmp/node", &st) == 0);
    CHECK_INT(st.st_mode, S_IFSOCK | 0600);
    unlink("/tmp/node");
    close(client);
}

static void abstract_names(void) {
    struct sockaddr_un address, other;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t len = abstract_address(&address, "husk test");
    CHECK(bind(fd, (void *)&address, len) == 0);
    CHECK_ERRNO(bind(fd, (void *)&address, len), EINVAL);
    int second = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK_ERRNO(bind(second, (void *)&address, len), EADDRINUSE);
    CHECK_ERRNO(connect(second, (void *)&address, len), ECONNREFUSED);
    CHECK_ERRNO(connect(second, (void *)&address, len + 1), ECONNREFUSED);
    int datagrams = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK_ERRNO(connect(datagrams, (void *)&address, len), ECONNREFUSED);
    CHECK(bind(datagrams, (void *)&address, len) == 0);
    close(datagrams);
    CHECK(listen(fd, 1) == 0);
    CHECK(connect(second, (void *)&address, len) == 0);
    memset(&other, 0, sizeof other);
    socklen_t got = sizeof other;
    CHECK(getpeername(second, (void *)&other, &got) == 0);
    CHECK_INT(got, len);
    CHECK(memcmp(&other, &address, len) == 0);
    close(fd);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(bind(fd, (void *)&address, len) == 0);
    close(fd);
    close(second);
    // Names the kernel picks: NUL and five digits.
    fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK(bind(fd, (void *)&address, 2) == 0);
    CHECK(bind(fd, (void *)&address, 2) == 0);
    got = sizeof other;
    CHECK(getsockname(fd, (void *)&other, &got) == 0);
    CHECK_INT(got, 2 + 6);
    CHECK_INT(other.sun_path[0], 0);
    int digits = 0;
    for (int i = 1; i < 6; i++) digits += strchr("0123456789abcdef", other.sun_path[i]) != NULL;
    CHECK_INT(digits, 5);
    close(fd);
}

static void permissions(void) {
    struct sockaddr_un address;
    int fd = listener(SOCK_STREAM, "/tmp/guarded", 5);
    chmod("/tmp/guarded", 0600);
    pid_t pid = fork();
    if (pid == 0) {
        if (setgid(1000) || setuid(1000)) _exit(9);
        socklen_t len = path_address(&address, "/tmp/guarded");
        int client = socket(AF_UNIX, SOCK_STREAM, 0);
        CHECK_ERRNO(connect(client, (void *)&address, len), EACCES);
        len = path_address(&address, "/root.sock");
        CHECK_ERRNO(bind(client, (void *)&address, len), EACCES);
        _exit(failures != 0);
    }
    int status;
    waitpid(pid, &status, 0);
    CHECK_INT(status, 0);
    chmod("/tmp/guarded", 0602);
    pid = fork();
    if (pid == 0) {
        if (setgid(1000) || setuid(1000)) _exit(9);
        int client = connected(SOCK_STREAM, "/tmp/guarded");
        struct ucred peer;
        socklen_t len = sizeof peer;
        CHECK(getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0);
        CHECK_INT(peer.uid, 0);
        CHECK_INT(peer.pid, getppid());
        _exit(failures != 0);
    }
    int server = accept(fd, NULL, NULL);
    struct ucred peer;
    socklen_t len = sizeof peer;
    CHECK(getsockopt(server, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0);
    CHECK_INT(peer.pid, pid);
    CHECK_INT(peer.uid, 1000);
    CHECK_INT(peer.gid, 1000);
    waitpid(pid, &status, 0);
    CHECK_INT(status, 0);
    close(server);
    close(fd);
    unlink("/tmp/guarded");
    // A socket without peer.
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0);
    CHECK(peer.pid == 0 && peer.uid == (uid_t)-1 && peer.gid == (gid_t)-1);
    gid_t groups[8];
    len = sizeof groups;
    CHECK_ERRNO(getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len), ENODATA);
    close(fd);
}

static void connecting(void) {
    struct sockaddr_un address, other;
    char buf[64];
    int fd = listener(SOCK_STREAM, "/tmp/server", 1);
    int one = 0;
    socklen_t len = sizeof one;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &one, &len) == 0 && one == 1);
    CHECK_INT(ready(fd), 0);
    CHECK_ERRNO(read(fd, buf, 1), EINVAL);
    CHECK_ERRNO(send(fd, buf, 1, MSG_NOSIGNAL), ENOTCONN);
    len = path_address(&address, "/tmp/server");
    CHECK_ERRNO(connect(fd, (void *)&address, len), EINVAL);
    nonblocking(fd);
    CHECK_ERRNO(accept(fd, NULL, NULL), EAGAIN);
    CHECK_ERRNO(accept4(fd, NULL, NULL, 1), EINVAL);
    int a = connected(SOCK_STREAM, "/tmp/server"), b = connected(SOCK_STREAM, "/tmp/server");
    int c = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK_ERRNO(connect(c, (void *)&address, len), EAGAIN);
    struct timeval soon = {0, 10000};
    int d = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(setsockopt(d, SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof soon) == 0);
    CHECK_ERRNO(connect(d, (void *)&address, len), EAGAIN);
    close(d);
    CHECK_INT(ready(fd), POLLIN);
    CHECK_INT(ready(a), POLLOUT);
    // What is sent before the connection is accepted arrives.
    CHECK_INT(write(a, "early", 5), 5);
    memset(&other, 7, sizeof other);
    socklen_t got = sizeof other;
    int server = accept4(fd, (void *)&other, &got, SOCK_CLOEXEC | SOCK_NONBLOCK);
    CHECK_INT(got, 2);
    CHECK_INT(other.sun_family, AF_UNIX);
    CHECK_ERRNO(connect(a, (void *)&address, len), EISCONN);
    CHECK_INT(fcntl(server, F_GETFD), FD_CLOEXEC);
    CHECK(fcntl(server, F_GETFL) & O_NONBLOCK);
    CHECK_INT(read(server, buf, sizeof buf), 5);
    CHECK_ERRNO(read(server, buf, sizeof buf), EAGAIN);
    got = sizeof other;
    CHECK(getsockname(server, (void *)&other, &got) == 0);
    CHECK(strcmp(other.sun_path, "/tmp/server") == 0);
    CHECK(connect(c, (void *)&address, len) == 0);
    // Connections that nobody accepts are reset when the listener goes.
    CHECK_INT(write(b, "lost", 4), 4);
    close(fd);
    CHECK_INT(ready(b), POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP);
    CHECK_ERRNO(read(b, buf, 1), ECONNRESET);
    CHECK_INT(read(b, buf, 1), 0);
    CHECK_ERRNO(send(b, "x", 1, MSG_NOSIGNAL), EPIPE);
    close(a);
    CHECK_INT(ready(server), POLLIN | POLLOUT | POLLHUP | POLLRDHUP);
    CHECK_INT(read(server, buf, 1), 0);
    got = sizeof other;
    CHECK(getpeername(server, (void *)&other, &got) == 0);
    close(server);
    close(b);
    close(c);
    unlink("/tmp/server");
    // A listener that is shut down refuses, and accept ends.
    fd = listener(SOCK_SEQPACKET, "/tmp/server", 5);
    CHECK(shutdown(fd, SHUT_RD) == 0);
    c = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    CHECK_ERRNO(connect(c, (void *)&address, len), ECONNREFUSED);
    CHECK_ERRNO(accept(fd, NULL, NULL), EINVAL);
    close(c);
    close(fd);
    unlink("/tmp/server");
    fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK_ERRNO(listen(fd, 1), EOPNOTSUPP);
    CHECK_ERRNO(accept(fd, NULL, NULL), EOPNOTSUPP);
    close(fd);
}

static void halves(void) {
    int sv[2];
    char buf[64];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
    CHECK_ERRNO(shutdown(sv[0], 3), EINVAL);
    CHECK_ERRNO(shutdown(sv[0], -1), EINVAL);
    CHECK_INT(write(sv[0], "abc", 3), 3);
    CHECK(shutdown(sv[0], SHUT_WR) == 0);
    CHECK_INT(ready(sv[1]), POLLIN | POLLOUT | POLLRDHUP);
    CHECK_INT(ready(sv[0]), POLLOUT);
    CHECK_ERRNO(send(sv[0], "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_INT(read(sv[1], buf, sizeof buf), 3);
    CHECK_INT(read(sv[1], buf, sizeof buf), 0);
    CHECK_INT(write(sv[1], "back", 4), 4);
    CHECK_INT(read(sv[0], buf, sizeof buf), 4);
    CHECK(shutdown(sv[0], SHUT_RD) == 0);
    CHECK_ERRNO(send(sv[1], "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_INT(ready(sv[0]), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
    close(sv[0]);
    // Unread bytes: the peer is reset.
    close(sv[1]);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
    CHECK_INT(write(sv[0], "abc", 3), 3);
    close(sv[1]);
    CHECK_INT(ready(sv[0]), POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP);
    int error = 0;
    socklen_t len = sizeof error;
    CHECK(getsockopt(sv[0], SOL_SOCKET, SO_ERROR, &error, &len) == 0);
    CHECK_INT(error, ECONNRESET);
    CHECK(getsockopt(sv[0], SOL_SOCKET, SO_ERROR, &error, &len) == 0);
    CHECK_INT(error, 0);
    CHECK_INT(read(sv[0], buf, 1), 0);
    close(sv[0]);
    // SIGPIPE, unless it is not wanted.
    signal(SIGPIPE, SIG_IGN);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
    close(sv[1]);
    CHECK_ERRNO(write(sv[0], "x", 1), EPIPE);
    CHECK_ERRNO(write(sv[0], "", 0), EPIPE);
    signal(SIGPIPE, SIG_DFL);
    pid_t pid = fork();
    if (pid == 0) {
        if (send(sv[0], "x", 1, MSG_NOSIGNAL) != -1) _exit(1);
        write(sv[0], "x", 1);
        _exit(2);
    }
    int status;
    waitpid(pid, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
    close(sv[0]);
    // Packets do not raise it.
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv) == 0);
    close(sv[1]);
    CHECK_ERRNO(write(sv[0], "x", 1), EPIPE);
    CHECK_INT(read(sv[0], buf, 1), 0);
    close(sv[0]);
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv) == 0);
    CHECK(shutdown(sv[0], SHUT_RD) == 0);
    CHECK_ERRNO(write(sv[1], "x", 1), EPIPE);
    CHECK_INT(read(sv[0], buf, 1), 0);
    CHECK_ERRNO(recv(sv[0], buf, 1, MSG_DONTWAIT), EAGAIN);
    close(sv[0]);
    CHECK_ERRNO(write(sv[1], "x", 1), ECONNREFUSED);
    CHECK_ERRNO(write(sv[1], "x", 1), ENOTCONN);
    close(sv[1]);
}

static void stream_bytes(void) {
    int sv[2];
    char buf[64] = {0};
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
    int count = -1;
    CHECK_INT(write(sv[0], "hello", 5), 5);
    CHECK_INT(write(sv[0], "world", 5), 5);
    CHECK(ioctl(sv[1], FIONREAD, &count) == 0 && count == 10);
    CHECK_INT(recv(sv[1], buf, 3, MSG_PEEK), 3);
    CHECK_INT(recv(sv[1], buf, sizeof buf, MSG_PEEK), 10);
    CHECK(memcmp(buf, "helloworld", 10) == 0);
    CHECK_INT(recv(sv[1], buf, 7, 0), 7);
    CHECK(memcmp(buf, "hellowo", 7) == 0);
    CHECK_INT(recv(sv[1], buf, 2, MSG_TRUNC), 2);
    CHECK_INT(recv(sv[1], buf, sizeof buf, 0), 1);
    CHECK_ERRNO(recv(sv[1], buf, 1, MSG_DONTWAIT), EAGAIN);
    CHECK_ERRNO(recv(sv[1], buf, 1, MSG_DONTWAIT | MSG_PEEK), EAGAIN);
    CHECK_INT(send(sv[0], "", 0, 0), 0);
    CHECK_ERRNO(recv(sv[1], buf, 1, MSG_DONTWAIT), EAGAIN);
    struct sockaddr_un address;
    CHECK_ERRNO(sendto(sv[0], "x", 1, 0, (void *)&address, path_address(&address, "/tmp/x")), EISCONN);
    struct iovec out[3] = {{"ab", 2}, {NULL, 0}, {"cde", 3}}, in[2] = {{buf, 1}, {buf + 8, 10}};
    CHECK_INT(writev(sv[0], out, 3), 5);
    CHECK_INT(readv(sv[1], in, 2), 5);
    CHECK(buf[0] == 'a' && memcmp(buf + 8, "bcde", 4) == 0);
    CHECK_ERRNO(write(sv[0], bad_address, 5), EFAULT);
    CHECK_INT(write(sv[0], "x", 1), 1);
    CHECK_ERRNO(read(sv[1], bad_address, 5), EFAULT);
    CHECK_INT(read(sv[1], buf, 5), 1);
    // MSG_WAITALL waits for the rest, or for the end.
    pid_t pid = fork();
    if (pid == 0) {
        close(sv[1]);
        for (int i = 0; i < 10; i++) {
            usleep(1000);
            write(sv[0], "12345", 5);
        }
        _exit(0);
    }
    close(sv[0]);
    CHECK_INT(recv(sv[1], buf, 45, MSG_WAITALL), 45);
    CHECK_INT(recv(sv[1], buf, 45, MSG_WAITALL), 5);
    waitpid(pid, NULL, 0);
    close(sv[1]);
    // A megabyte through, in odd pieces.
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
    pid = fork();
    if (pid == 0) {
        close(sv[1]);
        char *data = malloc(1 << 20);
        for (int i = 0; i < 1 << 20; i++) data[i] = (char)(i * 7 + i / 1000);
        int at = 0;
        for (int step = 1; at < 1 << 20; step = step * 3 % 100003 + 1) {
            int want = step < (1 << 20) - at ? step : (1 << 20) - at;
            ssize_t put = write(sv[0], data + at, want);
            if (put != want) _exit(1);
            at += put;
        }
        _exit(0);
    }
    close(sv[0]);
    char *data = malloc(1 << 20);
    int at = 0, bad = 0;
    ssize_t got;
    for (int step = 1; (got = read(sv[1], data, step)) > 0; step = step * 5 % 70001 + 1)
        for (int i = 0; i < got; i++, at++) bad += data[i] != (char)(at * 7 + at / 1000);
    CHECK_INT(at, 1 << 20);
    CHECK_INT(bad, 0);
    int status;
    waitpid(pid, &status, 0);
    CHECK_INT(status, 0);
    free(data);
    close(sv[1]);
    // Files and pipes.
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
    int file = open("/tmp/file", O_RDWR | O_CREAT | O_TRUNC, 0600), p[2];
    CHECK_INT(write(file, "contents", 8), 8);
    off_t offset = 3;
    CHECK_INT(sendfile(sv[0], file, &offset, 100), 5);
    CHECK_INT(read(sv[1], buf, sizeof buf), 5);
    CHECK(memcmp(buf, "tents", 5) == 0);
    CHECK(pipe(p) == 0);
    CHECK_INT(write(p[1], "pipe", 4), 4);
    CHECK_INT(splice(p[0], NULL, sv[0], NULL, 100, 0), 4);
    CHECK_INT(splice(sv[1], NULL, p[1], NULL, 100, 0), 4);
    CHECK_INT(read(p[0], buf, sizeof buf), 4);
    close(p[0]);
    close(p[1]);
    close(file);
    close(sv[0]);
    close(sv[1]);
}

static void urgent_bytes(void) {
    int sv[2];
    char buf[16] = {0};
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
    CHECK_ERRNO(recv(sv[1], buf, 1, MSG_OOB), EINVAL);
    CHECK_ERRNO(send(sv[0], "", 0, MSG_OOB), EOPNOTSUPP);
    CHECK_INT(send(sv[0], "abC", 3, MSG_OOB), 3);
    CHECK_INT(send(sv[0], "de", 2, 0), 2);
    CHECK_INT(ready(sv[1]), POLLIN | POLLOUT | POLLPRI);
    CHECK_INT(recv(sv[1], buf, 16, MSG_PEEK), 2);
    CHECK_INT(recv(sv[1], buf, 16, 0), 2);
    int mark = -1;
    CHECK(ioctl(sv[1], SIOCATMARK, &mark) == 0);
    CHECK_INT(mark, 1);
    CHECK_INT(recv(sv[1], buf, 16, MSG_OOB), 1);
    CHECK_INT(buf[0], 'C');
    CHECK_INT(recv(sv[1], buf, 16, 0), 2);
    CHECK(memcmp(buf, "de", 2) == 0);
    CHECK_INT(ready(sv[1]), POLLOUT);
    int one = 1;
    CHECK(setsockopt(sv[1], SOL_SOCKET, SO_OOBINLINE, &one, sizeof one) == 0);
    CHECK_INT(send(sv[0], "xyZ", 3, MSG_OOB), 3);
    CHECK_INT(recv(sv[1], buf, 16, 0), 2);
    CHECK_INT(recv(sv[1], buf, 16, 0), 1);
    CHECK_INT(buf[0], 'Z');
    close(sv[0]);
    close(sv[1]);
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv) == 0);
    CHECK_ERRNO(send(sv[0], "x", 1, MSG_OOB), EOPNOTSUPP);
    CHECK_ERRNO(recv(sv[1], buf, 1, MSG_OOB), EOPNOTSUPP);
    close(sv[0]);
    close(sv[1]);
}

static void datagrams(void) {
    struct sockaddr_un to, from;
    char buf[64] = {0};
    int server = bound(SOCK_DGRAM, "/tmp/dgram"), client = socket(AF_UNIX, SOCK_DGRAM, 0);
    socklen_t len = path_address(&to, "/tmp/dgram"), got = sizeof from;
    CHECK_INT(ready(client), POLLOUT);
    CHECK_ERRNO(write(client, "x", 1), ENOTCONN);
    CHECK_INT(sendto(client, "anonymous", 9, 0, (void *)&to, len), 9);
    memset(&from, 7, sizeof from);
    CHECK_INT(recvfrom(server, buf, sizeof buf, 0, (void *)&from, &got), 9);
    CHECK_INT(got, 0);
    CHECK_INT(from.sun_path[0], 7);
    struct sockaddr_un own;
    CHECK(bind(client, (void *)&own, path_address(&own, "/tmp/client")) == 0);
    CHECK_INT(sendto(client, "named", 5, 0, (void *)&to, len), 5);
    got = sizeof from;
    CHECK_INT(recvfrom(server, buf, 2, MSG_PEEK, (void *)&from, &got), 2);
    CHECK_INT(recvfrom(server, buf, 2, MSG_PEEK | MSG_TRUNC, (void *)&from, &got), 5);
    CHECK_INT(recvfrom(server, buf, 2, 0, (void *)&from, &got), 2);
    CHECK(strcmp(from.sun_path, "/tmp/client") == 0);
    CHECK_ERRNO(recv(server, buf, 2, MSG_DONTWAIT), EAGAIN);
    // Empty messages count.
    CHECK_INT(sendto(client, NULL, 0, 0, (void *)&to, len), 0);
    CHECK_INT(ready(server), POLLIN | POLLOUT);
    CHECK_INT(recv(server, buf, 2, 0), 0);
    int count = -1;
    CHECK_INT(sendto(client, "four", 4, 0, (void *)&to, len), 4);
    CHECK_INT(sendto(client, "sixsix", 6, 0, (void *)&to, len), 6);
    CHECK(ioctl(server, FIONREAD, &count) == 0 && count == 4);
    struct msghdr message = {0};
    struct iovec piece = {buf, 3};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    CHECK_INT(recvmsg(server, &message, 0), 3);
    CHECK_INT(message.msg_flags, MSG_TRUNC);
    CHECK_INT(recvmsg(server, &message, MSG_TRUNC), 6);
    CHECK_INT(message.msg_flags, MSG_TRUNC);
    // Who is connected takes messages from the peer only.
    CHECK(connect(server, (void *)&own, path_address(&own, "/tmp/client")) == 0);
    int third = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK_ERRNO(sendto(third, "x", 1, 0, (void *)&to, len), EPERM);
    CHECK_ERRNO(connect(third, (void *)&to, len), EPERM);
    CHECK_INT(sendto(client, "x", 1, 0, (void *)&to, len), 1);
    CHECK_INT(write(server, "y", 1), 1);
    CHECK_INT(read(client, buf, 1), 1);
    // Disconnecting loses what is there.
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    CHECK(connect(server, &none, sizeof none) == 0);
    CHECK_ERRNO(recv(server, buf, 2, MSG_DONTWAIT), EAGAIN);
    CHECK_ERRNO(write(server, "y", 1), ENOTCONN);
    CHECK_INT(sendto(third, "x", 1, 0, (void *)&to, len), 1);
    CHECK_INT(recv(server, buf, 2, 0), 1);
    // The queue is short for senders that are not the peer.
    nonblocking(third);
    int queued = 0;
    while (sendto(third, "x", 1, 0, (void *)&to, len) == 1) queued++;
    CHECK_INT(errno, EAGAIN);
    CHECK_INT(queued, 11);
    CHECK_INT(ready(third), POLLOUT);
    CHECK(connect(third, (void *)&to, len) == 0);
    CHECK_INT(ready(third), 0);
    int ep = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLOUT | EPOLLET};
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, third, &event) == 0);
    CHECK_INT(epoll_wait(ep, &event, 1, 0), 0);
    CHECK_INT(recv(server, buf, 2, 0), 1);
    CHECK_INT(epoll_wait(ep, &event, 1, 0), 1);
    CHECK_INT(ready(third), POLLOUT);
    close(ep);
    // The receiver goes.
    close(server);
    CHECK_ERRNO(write(third, "x", 1), ECONNREFUSED);
    CHECK_ERRNO(write(third, "x", 1), ENOTCONN);
    CHECK_ERRNO(sendto(third, "x", 1, 0, (void *)&to, len), ECONNREFUSED);
    unlink("/tmp/dgram");
    CHECK_ERRNO(sendto(third, "x", 1, 0, (void *)&to, len), ENOENT);
    close(third);
    close(client);
    unlink("/tmp/client");
    // Size limits.
    int sv[2];
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv) == 0);
    char *big = calloc(1, 300000);
    CHECK_ERRNO(send(sv[0], big, 300000, MSG_DONTWAIT), EMSGSIZE);
    CHECK_ERRNO(send(sv[0], big, 212992 - 31, MSG_DONTWAIT), EMSGSIZE);
    CHECK_INT(send(sv[0], big, 212992 - 32, MSG_DONTWAIT), 212992 - 32);
    CHECK_INT(recv(sv[1], big, 300000, 0), 212992 - 32);
    free(big);
    close(sv[0]);
    close(sv[1]);
}

static void packets(void) {
    int sv[2];
    char buf[64];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv) == 0);
    CHECK_INT(send(sv[0], "one", 3, MSG_EOR), 3);
    CHECK_INT(write(sv[0], "twotwo", 6), 6);
    struct msghdr message = {0};
    struct iovec piece = {buf, 64};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    CHECK_INT(recvmsg(sv[1], &message, 0), 3);
    printf("flags of a packet: %x\n", message.msg_flags);
    CHECK_INT(recv(sv[1], buf, 2, 0), 2);
    CHECK_INT(ready(sv[1]), POLLOUT);
    CHECK_INT(write(sv[0], "last", 4), 4);
    close(sv[0]);
    CHECK_INT(ready(sv[1]), POLLIN | POLLOUT | POLLHUP | POLLRDHUP);
    CHECK_INT(recv(sv[1], buf, sizeof buf, 0), 4);
    CHECK_INT(recv(sv[1], buf, sizeof buf, 0), 0);
    CHECK_INT(recv(sv[1], buf, sizeof buf, MSG_DONTWAIT), 0);
    close(sv[1]);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    CHECK_ERRNO(recv(fd, buf, 1, 0), ENOTCONN);
    CHECK_ERRNO(send(fd, buf, 1, 0), ENOTCONN);
    CHECK_INT(ready(fd), POLLOUT | POLLHUP);
    close(fd);
}

static void many_messages(void) {
    int sv[2];
    char out[4][8] = {"a", "bb", "ccc", "dddd"}, in[4][8] = {{0}};
    struct iovec pieces[4];
    struct mmsghdr messages[4] = {0};
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv) == 0);
    for (int i = 0; i < 4; i++) {
        pieces[i] = (struct iovec){out[i], i + 1};
        messages[i].msg_hdr.msg_iov = &pieces[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    CHECK_INT(sendmmsg(sv[0], messages, 4, 0), 4);
    CHECK_INT(messages[3].msg_len, 4);
    for (int i = 0; i < 4; i++) pieces[i] = (struct iovec){in[i], 8};
    struct timespec timeout = {1, 0};
    CHECK_INT(recvmmsg(sv[1], messages, 2, 0, &timeout), 2);
    CHECK_INT(messages[1].msg_len, 2);
    CHECK_INT(recvmmsg(sv[1], messages, 4, MSG_WAITFORONE, NULL), 2);
    CHECK_INT(messages[1].msg_len, 4);
    CHECK(strcmp(in[1], "dddd") == 0);
    CHECK_ERRNO(recvmmsg(sv[1], messages, 4, MSG_DONTWAIT, NULL), EAGAIN);
    CHECK_INT(sendmmsg(sv[0], messages, 0, 0), 0);
    messages[0].msg_hdr.msg_iovlen = 2000;
    CHECK_ERRNO(sendmmsg(sv[0], messages, 1, 0), EMSGSIZE);
    CHECK_ERRNO(sendmsg(sv[0], bad_address, 0), EFAULT);
    close(sv[0]);
    close(sv[1]);
}

static void options(void) {
    int sv[2], value;
    socklen_t len = sizeof value;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
    for (int name = 1; name <= 20; name++) {
        unsigned char bytes[16] = {0};
        len = sizeof bytes;
        int result = getsockopt(sv[0], SOL_SOCKET, name, bytes, &len);
        if (name == SO_PEERCRED) continue;
        printf("option %d: %d errno %d len %u value %d\n", name, result, result ? errno : 0, len,
               *(int *)bytes);
    }
    CHECK_ERRNO(getsockopt(sv[0], SOL_SOCKET, 9999, &value, &len), ENOPROTOOPT);
    CHECK_ERRNO(getsockopt(sv[0], 6, 1, &value, &len), EOPNOTSUPP);
    CHECK_ERRNO(setsockopt(sv[0], 6, 1, &value, 4), EOPNOTSUPP);
    CHECK_ERRNO(setsockopt(sv[0], SOL_SOCKET, 9999, &value, 4), ENOPROTOOPT);
    CHECK_ERRNO(setsockopt(sv[0], SOL_SOCKET, SO_TYPE, &value, 4), ENOPROTOOPT);
    CHECK_ERRNO(setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &value, 3), EINVAL);
    CHECK_ERRNO(setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &value, -1), EINVAL);
    CHECK_ERRNO(setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, bad_address, 4), EFAULT);
    len = -1;
    CHECK_ERRNO(getsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &value, &len), EINVAL);
    len = 2;
    value = -1;
    CHECK(getsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &value, &len) == 0);
    CHECK_INT(len, 2);
    static const int sizes[] = {1, 5000, 100000, 1 << 20};
    for (int i = 0; i < 4; i++) {
        CHECK(setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &sizes[i], 4) == 0);
        CHECK(setsockopt(sv[0], SOL_SOCKET, SO_RCVBUF, &sizes[i], 4) == 0);
        int send = 0, receive = 0;
        len = 4;
        getsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &send, &len);
        getsockopt(sv[0], SOL_SOCKET, SO_RCVBUF, &receive, &len);
        printf("buffers for %d: %d %d\n", sizes[i], send, receive);
    }
    CHECK_ERRNO(setsockopt(sv[0], SOL_SOCKET, SO_SNDBUFFORCE, &sizes[1], 4), EPERM);
    struct timeval bad = {0, 1000000}, soon = {0, 20000}, got;
    CHECK_ERRNO(setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &bad, sizeof bad), EDOM);
    CHECK_ERRNO(setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &bad, 4), EINVAL);
    CHECK(setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon) == 0);
    CHECK(setsockopt(sv[0], SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof soon) == 0);
    len = sizeof got;
    CHECK(getsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &got, &len) == 0);
    CHECK(got.tv_sec == 0 && got.tv_usec == 20000);
    char byte;
    CHECK_ERRNO(read(sv[0], &byte, 1), EAGAIN);
    CHECK(setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &sizes[2], 4) == 0);
    char *big = calloc(1, 1 << 20);
    ssize_t sent = write(sv[0], big, 1 << 20);
    CHECK(sent > 0 && sent < 1 << 20);
    CHECK_ERRNO(write(sv[0], big, 1 << 20), EAGAIN);
    free(big);
    struct linger linger = {1, 5}, back;
    CHECK(setsockopt(sv[0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
    len = sizeof back;
    CHECK(getsockopt(sv[0], SOL_SOCKET, SO_LINGER, &back, &len) == 0);
    CHECK(back.l_onoff == 1 && back.l_linger == 5);
    CHECK_ERRNO(setsockopt(sv[0], SOL_SOCKET, SO_LINGER, &linger, 4), EINVAL);
    close(sv[0]);
    close(sv[1]);
}

static void budgets(void) {
    // How much a nonblocking socket takes in pieces of one size, and what it counts.
    static const int sizes[] = {1, 100, 384, 385, 500, 1000, 2000, 4000, 10000, 40000, 100000};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int sv[2], queued = 0, counted = 0;
        char *data = calloc(1, 200000);
        for (int type = SOCK_STREAM; type <= SOCK_DGRAM; type++) {
            CHECK(socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, sv) == 0);
            CHECK(write(sv[0], data, sizes[i]) == sizes[i]);
            CHECK(ioctl(sv[0], TIOCOUTQ, &counted) == 0);
            queued = 1;
            while (write(sv[0], data, sizes[i]) == sizes[i]) queued++;
            printf("%d bytes, type %d: %d pieces, first counts %d\n", sizes[i], type, queued, counted);
            int writable = ready(sv[0]) & POLLOUT, taken = 0;
            CHECK_INT(writable, 0);
            while (!(ready(sv[0]) & POLLOUT) && read(sv[1], data, sizes[i]) > 0) taken++;
            printf("  writable again after %d\n", taken);
            close(sv[0]);
            close(sv[1]);
        }
        free(data);
    }
}

static void waiting(void) {
    // A reader, a writer, an acceptor and a connecter that wait; a signal with and without restart.
    int sv[2];
    char buf[8];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
    int fd = listener(SOCK_STREAM, "/tmp/wait", 0);
    pid_t pid = fork();
    if (pid == 0) {
        usleep(20000);
        write(sv[0], "x", 1);
        usleep(10000);
        int client = connected(SOCK_STREAM, "/tmp/wait");
        read(client, buf, 1);
        _exit(0);
    }
    CHECK_INT(read(sv[1], buf, 1), 1);
    int server = accept(fd, NULL, NULL);
    CHECK(server >= 0);
    CHECK_INT(write(server, "y", 1), 1);
    waitpid(pid, NULL, 0);
    close(server);
    int first = connected(SOCK_STREAM, "/tmp/wait");
    pid = fork();
    if (pid == 0) {
        int second = connected(SOCK_STREAM, "/tmp/wait");
        write(second, "2", 1);
        _exit(0);
    }
    usleep(20000);
    server = accept(fd, NULL, NULL);
    close(server);
    server = accept(fd, NULL, NULL);
    CHECK_INT(read(server, buf, 1), 1);
    CHECK_INT(buf[0], '2');
    waitpid(pid, NULL, 0);
    close(server);
    close(first);
    close(fd);
    unlink("/tmp/wait");
    close(sv[0]);
    close(sv[1]);
}

static void nothing(int signal) { (void)signal; }

static void interruptions(void) {
    int sv[2];
    char byte;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
    struct sigaction action = {.sa_handler = nothing};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval soon = {{0, 0}, {0, 20000}};
    setitimer(ITIMER_REAL, &soon, NULL);
    CHECK_ERRNO(read(sv[0], &byte, 1), EINTR);
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, NULL);
    pid_t pid = fork();
    if (pid == 0) {
        usleep(60000);
        write(sv[1], "z", 1);
        _exit(0);
    }
    setitimer(ITIMER_REAL, &soon, NULL);
    CHECK_INT(read(sv[0], &byte, 1), 1);
    waitpid(pid, NULL, 0);
    // With a timeout a call is not restarted.
    struct timeval second = {1, 0};
    CHECK(setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second) == 0);
    setitimer(ITIMER_REAL, &soon, NULL);
    CHECK_ERRNO(read(sv[0], &byte, 1), EINTR);
    close(sv[0]);
    close(sv[1]);
}

static void epoll_edges(void) {
    int sv[2], ep = epoll_create1(0);
    char buf[16];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET}, got;
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, sv[0], &event) == 0);
    CHECK_INT(epoll_wait(ep, &got, 1, 0), 0);
    CHECK_INT(write(sv[1], "1", 1), 1);
    CHECK_INT(epoll_wait(ep, &got, 1, 0), 1);
    CHECK_INT(epoll_wait(ep, &got, 1, 0), 0);
    CHECK_INT(write(sv[1], "2", 1), 1);
    CHECK_INT(epoll_wait(ep, &got, 1, 0), 1);
    CHECK_INT(read(sv[0], buf, 16), 2);
    CHECK_INT(epoll_wait(ep, &got, 1, 0), 0);
    shutdown(sv[1], SHUT_WR);
    CHECK_INT(epoll_wait(ep, &got, 1, 0), 1);
    CHECK_INT(got.events, EPOLLIN | EPOLLRDHUP);
    close(sv[1]);
    CHECK_INT(epoll_wait(ep, &got, 1, 0), 1);
    CHECK_INT(got.events, EPOLLIN | EPOLLRDHUP | EPOLLHUP);
    close(sv[0]);
    close(ep);
}

static void proc_file(void) {
    int fd = listener(SOCK_STREAM, "/tmp/shown", 3);
    int client = connected(SOCK_STREAM, "/tmp/shown");
    FILE *file = fopen("/proc/net/unix", "r");
    char line[256];
    CHECK(fgets(line, sizeof line, file) != NULL);
    printf("%s", line);
    int shown = 0;
    char seen[2][64] = {"", ""};
    while (fgets(line, sizeof line, file)) {
        unsigned references, protocol, flags, type, state;
        unsigned long ino;
        char path[128] = "";
        if (sscanf(line, "%*[^:]: %x %x %x %x %x %lu %127s", &references, &protocol, &flags, &type, &state, &ino,
                   path) < 6)
            continue;
        if (strcmp(path, "/tmp/shown")) continue;
        shown++;
        // In no order that can be relied on: the listening one first.
        snprintf(seen[flags ? 0 : 1], sizeof seen[0], "%x %x %x %x %s\n", protocol, flags, type, state, ino ? "ino" : "none");
    }
    printf("%s%s", seen[0], seen[1]);
    CHECK_INT(shown, 2);
    fclose(file);
    close(client);
    close(fd);
    unlink("/tmp/shown");
}

static void shared_by_fork(void) {
    int sv[2];
    char buf[8];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(sv[1]);
        _exit(write(sv[0], "child", 5) != 5);
    }
    int status;
    waitpid(pid, &status, 0);
    CHECK_INT(status, 0);
    CHECK_INT(read(sv[1], buf, 8), 5);
    // The child's end was not the last one.
    CHECK_ERRNO(recv(sv[1], buf, 8, MSG_DONTWAIT), EAGAIN);
    int copy = dup(sv[0]);
    close(sv[0]);
    CHECK_ERRNO(recv(sv[1], buf, 8, MSG_DONTWAIT), EAGAIN);
    close(copy);
    CHECK_INT(read(sv[1], buf, 8), 0);
    close(sv[1]);
}

static void peek_offsets(void) {
    for (int type = SOCK_STREAM; type <= SOCK_DGRAM; type++) {
        int sv[2], offset = 2;
        char buf[8];
        socklen_t len = sizeof offset;
        CHECK(socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, sv) == 0);
        CHECK(setsockopt(sv[1], SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset) == 0);
        CHECK_INT(write(sv[0], "abcdef", 6), 6);
        CHECK_INT(write(sv[0], "ghij", 4), 4);
        for (int i = 0; i < 9; i++) {
            int flags = i < 5 || i == 8 ? MSG_PEEK : 0;
            ssize_t got = recv(sv[1], buf, flags ? 3 : 4, flags);
            getsockopt(sv[1], SOL_SOCKET, SO_PEEK_OFF, &offset, &len);
            printf("type %d, %s: %zd %.*s, then at %d\n", type, flags ? "peek" : "read", got, (int)(got > 0 ? got : 0),
                   buf, offset);
        }
        close(sv[0]);
        close(sv[1]);
    }
}

static void timestamps(void) {
    int sv[2], on = 1;
    char control[128], buf[4];
    struct iovec piece = {buf, 4};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv) == 0);
    CHECK(setsockopt(sv[1], SOL_SOCKET, SO_TIMESTAMP, &on, sizeof on) == 0);
    CHECK_INT(write(sv[0], "x", 1), 1);
    CHECK_INT(recvmsg(sv[1], &message, 0), 1);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    CHECK(header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_TIMESTAMP);
    CHECK(header && header->cmsg_len == CMSG_LEN(sizeof(struct timeval)));
    CHECK(!isatty(sv[0]));
    close(sv[0]);
    close(sv[1]);
}

static void storm(void) {
    // Processes that make, use and close pairs at the same time.
    enum { PROCESSES = 6 };
    for (int i = 0; i < PROCESSES; i++)
        if (fork() == 0) {
            char buf[100] = {0};
            for (int round = 0; round < 2000; round++) {
                int sv[2];
                if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv)) _exit(1);
                for (int k = 0; k < 3; k++)
                    if (write(sv[k & 1], buf, 100) != 100 || read(sv[!(k & 1)], buf, 100) != 100) _exit(2);
                close(sv[round & 1]);
                if (read(sv[!(round & 1)], buf, 1) != 0) _exit(3);
                close(sv[!(round & 1)]);
            }
            _exit(0);
        }
    int status, bad = 0;
    while (wait(&status) > 0) bad += status != 0;
    CHECK_INT(bad, 0);
}

int main(void) {
    mkdir("/tmp", 01777);
    GROUP(creation);
    GROUP(names);
    GROUP(abstract_names);
    GROUP(permissions);
    GROUP(connecting);
    GROUP(halves);
    GROUP(stream_bytes);
    GROUP(urgent_bytes);
    GROUP(datagrams);
    GROUP(packets);
    GROUP(many_messages);
    GROUP(options);
    GROUP(budgets);
    GROUP(waiting);
    GROUP(interruptions);
    GROUP(epoll_edges);
    GROUP(proc_file);
    GROUP(shared_by_fork);
    GROUP(peek_offsets);
    GROUP(timestamps);
    GROUP(storm);
    return finish();
}
