// TCP over the loopback: binding, listening, connecting, bytes, halves, resets, options, readiness.
#include "check.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

static struct sockaddr_in at(const char *ip, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, ip, &address.sin_addr);
    return address;
}

static struct sockaddr_in6 at6(const char *ip, int port) {
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    inet_pton(AF_INET6, ip, &address.sin6_addr);
    return address;
}

#define BIND(fd, address) bind(fd, (void *)&address, sizeof address)
#define CONNECT(fd, address) connect(fd, (void *)&address, sizeof address)

static int port_of(int fd) {
    struct sockaddr_in6 address;
    socklen_t len = sizeof address;
    getsockname(fd, (void *)&address, &len);
    return ntohs(address.sin6_port);
}

static int listener(int *port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in any = at("127.0.0.1", 0);
    CHECK(BIND(fd, any) == 0);
    CHECK(listen(fd, 10) == 0);
    *port = port_of(fd);
    return fd;
}

static void pair(int *sv) {
    int port, fd = listener(&port);
    struct sockaddr_in to = at("127.0.0.1", port);
    sv[0] = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(CONNECT(sv[0], to) == 0);
    sv[1] = accept(fd, NULL, NULL);
    CHECK(sv[1] >= 0);
    close(fd);
}

static short ready(int fd) {
    struct pollfd entry = {.fd = fd, .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP};
    poll(&entry, 1, 0);
    return entry.revents;
}

/* Waits, as on Linux what happens between two sockets may take a moment. */
static short awaits(int fd, short events) {
    struct pollfd entry = {.fd = fd, .events = events};
    poll(&entry, 1, 5000);
    return entry.revents;
}

static void creation(void) {
    CHECK_ERRNO(socket(AF_INET, SOCK_SEQPACKET, 0), ESOCKTNOSUPPORT);
    CHECK_ERRNO(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
    CHECK_ERRNO(socket(AF_INET, SOCK_DGRAM, IPPROTO_TCP), EPROTONOSUPPORT);
    CHECK_ERRNO(socket(AF_INET, SOCK_STREAM, 1000), EINVAL);
    CHECK_ERRNO(socket(AF_INET, SOCK_STREAM, -1), EINVAL);
    CHECK_ERRNO(socket(AF_INET, SOCK_RAW, 0), EPROTONOSUPPORT);
    CHECK_ERRNO(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP), EACCES);
    int sv[2];
    CHECK_ERRNO(socketpair(AF_INET, SOCK_STREAM, 0, sv), EOPNOTSUPP);
    CHECK_ERRNO(socketpair(AF_INET, SOCK_STREAM, 99, sv), EPROTONOSUPPORT);
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_TCP);
    int value = 0;
    socklen_t len = sizeof value;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &value, &len) == 0 && value == IPPROTO_TCP);
    CHECK(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &len) == 0 && value == AF_INET6);
    CHECK_INT(ready(fd), POLLOUT | POLLHUP);
    char byte;
    CHECK_ERRNO(read(fd, &byte, 1), ENOTCONN);
    CHECK_ERRNO(send(fd, &byte, 1, MSG_NOSIGNAL), EPIPE);
    CHECK_ERRNO(shutdown(fd, SHUT_WR), ENOTCONN);
    close(fd);
}

static void binding(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), other = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = at("127.0.0.1", 0), elsewhere = at("10.1.2.3", 0);
    CHECK_ERRNO(BIND(fd, elsewhere), EADDRNOTAVAIL);
    CHECK_ERRNO(bind(fd, (void *)&address, 15), EINVAL);
    address.sin_family = AF_UNIX;
    CHECK_ERRNO(BIND(fd, address), EAFNOSUPPORT);
    address.sin_family = AF_UNSPEC;
    CHECK_ERRNO(BIND(fd, address), EAFNOSUPPORT);
    address.sin_family = AF_INET;
    CHECK(BIND(fd, address) == 0);
    CHECK_ERRNO(BIND(fd, address), EINVAL);
    int port = port_of(fd);
    CHECK(port >= 32768 && port <= 60999);
    address.sin_port = htons(port);
    CHECK_ERRNO(BIND(other, address), EADDRINUSE);
    struct sockaddr_in next = at("127.0.0.2", port);
    CHECK(BIND(other, next) == 0);
    close(other);
    other = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in any = at("0.0.0.0", port);
    CHECK_ERRNO(BIND(other, any), EADDRINUSE);
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    CHECK_ERRNO(BIND(other, any), EADDRINUSE);
    close(fd);
    close(other);
    // Both reuse: fine until one listens.
    fd = socket(AF_INET, SOCK_STREAM, 0);
    other = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(other, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    CHECK(BIND(fd, address) == 0);
    CHECK(BIND(other, address) == 0);
    CHECK(listen(fd, 1) == 0);
    CHECK_ERRNO(listen(other, 1), EADDRINUSE);
    close(fd);
    CHECK(listen(other, 1) == 0);
    close(other);
    // Shared ports.
    fd = socket(AF_INET, SOCK_STREAM, 0);
    other = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    setsockopt(other, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    CHECK(BIND(fd, address) == 0);
    CHECK(BIND(other, address) == 0);
    CHECK(listen(fd, 1) == 0);
    CHECK(listen(other, 1) == 0);
    close(fd);
    close(other);
    // Low ports.
    pid_t pid = fork();
    if (pid == 0) {
        if (setuid(1000)) _exit(9);
        fd = socket(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in low = at("127.0.0.1", 80);
        CHECK_ERRNO(BIND(fd, low), EACCES);
        _exit(failures != 0);
    }
    int status;
    waitpid(pid, &status, 0);
    CHECK_INT(status, 0);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in low = at("127.0.0.1", 80);
    CHECK(BIND(fd, low) == 0);
    close(fd);
    // Listening without binding picks a port.
    fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(listen(fd, 1) == 0);
    CHECK(port_of(fd) >= 32768);
    close(fd);
}

static void connecting(void) {
    int port, fd = listener(&port), one = 0;
    socklen_t len = sizeof one;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &one, &len) == 0 && one == 1);
    CHECK_INT(ready(fd), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    CHECK_ERRNO(accept(fd, NULL, NULL), EAGAIN);
    char buf[64];
    CHECK_ERRNO(read(fd, buf, 1), ENOTCONN);
    CHECK_ERRNO(send(fd, buf, 1, MSG_NOSIGNAL), EPIPE);
    struct sockaddr_in to = at("127.0.0.1", port), name, peer;
    int client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(CONNECT(client, to) == 0);
    CHECK_ERRNO(CONNECT(client, to), EISCONN);
    CHECK_ERRNO(listen(client, 1), EINVAL);
    CHECK_INT(awaits(fd, POLLIN), POLLIN);
    len = sizeof peer;
    int server = accept4(fd, (void *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    CHECK_INT(len, sizeof peer);
    CHECK_INT(peer.sin_family, AF_INET);
    CHECK(ntohl(peer.sin_addr.s_addr) == INADDR_LOOPBACK);
    CHECK_INT(ntohs(peer.sin_port), port_of(client));
    CHECK(getsockname(server, (void *)&name, &len) == 0);
    CHECK_INT(ntohs(name.sin_port), port);
    CHECK(getpeername(client, (void *)&peer, &len) == 0);
    CHECK(memcmp(&name, &peer, sizeof name) == 0);
    CHECK_INT(ready(client), POLLOUT);
    close(client);
    close(server);
    // Refused, and without a route.
    client = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in nobody = at("127.0.0.1", 1), far = at("10.1.2.3", 80), zero = at("0.0.0.0", port);
    CHECK_ERRNO(CONNECT(client, nobody), ECONNREFUSED);
    CHECK_ERRNO(CONNECT(client, far), ENETUNREACH);
    CHECK_ERRNO(connect(client, (void *)&to, 15), EINVAL);
    struct sockaddr_in wrong = to;
    wrong.sin_family = AF_INET6;
    CHECK_ERRNO(CONNECT(client, wrong), EAFNOSUPPORT);
    CHECK(CONNECT(client, zero) == 0);
    close(client);
    // Nonblocking.
    client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK_ERRNO(CONNECT(client, to), EINPROGRESS);
    CHECK_INT(awaits(client, POLLOUT), POLLOUT);
    int error = -1;
    len = sizeof error;
    CHECK(getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0);
    CHECK(CONNECT(client, to) == 0);
    CHECK_ERRNO(CONNECT(client, to), EISCONN);
    close(client);
    client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK_ERRNO(CONNECT(client, nobody), EINPROGRESS);
    CHECK_INT(awaits(client, POLLOUT | POLLIN | POLLRDHUP), POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP);
    CHECK(getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == ECONNREFUSED);
    CHECK_INT(read(client, buf, 1), 0);
    close(client);
    client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK_ERRNO(CONNECT(client, nobody), EINPROGRESS);
    CHECK_ERRNO(CONNECT(client, nobody), ECONNREFUSED);
    close(client);
    // The listener goes with a connection nobody accepted.
    client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(CONNECT(client, to) == 0);
    close(fd);
    CHECK_INT(awaits(client, POLLIN), POLLIN | POLLERR | POLLHUP);
    CHECK_ERRNO(read(client, buf, 1), ECONNRESET);
    CHECK_INT(read(client, buf, 1), 0);
    close(client);
    // A listener that is shut down listens no more.
    fd = listener(&port);
    CHECK(shutdown(fd, SHUT_RD) == 0);
    CHECK_ERRNO(accept(fd, NULL, NULL), EINVAL);
    client = socket(AF_INET, SOCK_STREAM, 0);
    to = at("127.0.0.1", port);
    CHECK_ERRNO(CONNECT(client, to), ECONNREFUSED);
    close(client);
    close(fd);
    // Disconnecting.
    int sv[2];
    pair(sv);
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    CHECK(connect(sv[0], &none, sizeof none) == 0);
    CHECK_ERRNO(getpeername(sv[0], (void *)&peer, &len), ENOTCONN);
    CHECK_ERRNO(read(sv[1], buf, 1), ECONNRESET);
    close(sv[0]);
    close(sv[1]);
}

static void bytes(void) {
    int sv[2], count = -1;
    char buf[64] = {0};
    pair(sv);
    CHECK_INT(write(sv[0], "hello", 5), 5);
    CHECK_INT(write(sv[0], "world", 5), 5);
    CHECK_INT(awaits(sv[1], POLLIN), POLLIN);
    usleep(1000);
    CHECK(ioctl(sv[1], FIONREAD, &count) == 0 && count == 10);
    CHECK_INT(recv(sv[1], buf, 3, MSG_PEEK), 3);
    CHECK_INT(recv(sv[1], buf, sizeof buf, MSG_PEEK), 10);
    CHECK(memcmp(buf, "helloworld", 10) == 0);
    CHECK_INT(recv(sv[1], buf, 4, MSG_TRUNC), 4);
    CHECK_INT(recv(sv[1], buf, 3, 0), 3);
    CHECK(memcmp(buf, "owo", 3) == 0);
    struct sockaddr_in from;
    socklen_t len = sizeof from;
    CHECK_INT(recvfrom(sv[1], buf, sizeof buf, 0, (void *)&from, &len), 3);
    CHECK_INT(len, 0);
    CHECK_ERRNO(recv(sv[1], buf, 1, MSG_DONTWAIT), EAGAIN);
    CHECK_INT(read(sv[1], buf, 0), 0);
    struct sockaddr_in to = at("127.0.0.1", 9);
    CHECK_INT(sendto(sv[0], "x", 1, 0, (void *)&to, sizeof to), 1);
    CHECK_INT(read(sv[1], buf, 1), 1);
    // Megabytes through a child that reverses nothing.
    pid_t pid = fork();
    if (pid == 0) {
        close(sv[0]);
        char *data = malloc(50000);
        ssize_t got;
        while ((got = read(sv[1], data, 50000)) > 0)
            if (send(sv[1], data, got, 0) != got) _exit(1);
        _exit(got != 0);
    }
    close(sv[1]);
    enum { TOTAL = 8 << 20 };
    char *data = malloc(TOTAL);
    for (int i = 0; i < TOTAL; i++) data[i] = (char)(i * 7 + i / 1000);
    fcntl(sv[0], F_SETFL, O_NONBLOCK);
    int out = 0, in = 0, bad = 0;
    char *back = malloc(100000);
    while (in < TOTAL) {
        struct pollfd entry = {.fd = sv[0], .events = POLLIN | (out < TOTAL ? POLLOUT : 0)};
        poll(&entry, 1, -1);
        if (entry.revents & POLLOUT) {
            ssize_t put = write(sv[0], data + out, TOTAL - out < 300000 ? TOTAL - out : 300000);
            if (put > 0) out += put;
            if (out == TOTAL) shutdown(sv[0], SHUT_WR);
        }
        if (entry.revents & POLLIN) {
            ssize_t got = read(sv[0], back, 100000);
            if (got <= 0) break;
            for (int i = 0; i < got; i++, in++) bad += back[i] != data[in];
        }
    }
    CHECK_INT(in, TOTAL);
    CHECK_INT(bad, 0);
    CHECK_INT(awaits(sv[0], POLLIN) & POLLIN, POLLIN);
    CHECK_INT(read(sv[0], buf, 1), 0);
    int status;
    waitpid(pid, &status, 0);
    CHECK_INT(status, 0);
    close(sv[0]);
    // MSG_WAITALL.
    pair(sv);
    pid = fork();
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
    // A nonblocking writer fills what there is, and goes on when it is read.
    pair(sv);
    fcntl(sv[0], F_SETFL, O_NONBLOCK);
    long filled = 0;
    for (ssize_t put; (put = write(sv[0], data, 65536)) > 0;) filled += put;
    CHECK_INT(errno, EAGAIN);
    CHECK(filled > 65536);
    CHECK_INT(ready(sv[0]), 0);
    fcntl(sv[1], F_SETFL, O_NONBLOCK);
    long drained = 0;
    while (drained < filled) {
        awaits(sv[1], POLLIN);
        ssize_t got = read(sv[1], data, 65536);
        if (got > 0) drained += got;
    }
    CHECK_INT(awaits(sv[0], POLLOUT), POLLOUT);
    close(sv[0]);
    close(sv[1]);
    free(data);
    free(back);
}

static void halves(void) {
    int sv[2];
    char buf[64];
    pair(sv);
    CHECK_INT(write(sv[0], "abc", 3), 3);
    CHECK(shutdown(sv[0], SHUT_WR) == 0);
    CHECK_ERRNO(send(sv[0], "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_INT(awaits(sv[1], POLLRDHUP), POLLRDHUP);
    CHECK_INT(ready(sv[1]), POLLIN | POLLOUT | POLLRDHUP);
    CHECK_INT(read(sv[1], buf, 64), 3);
    CHECK_INT(read(sv[1], buf, 64), 0);
    CHECK_INT(read(sv[1], buf, 64), 0);
    CHECK_INT(write(sv[1], "back", 4), 4);
    CHECK_INT(read(sv[0], buf, 64), 4);
    close(sv[1]);
    CHECK_INT(read(sv[0], buf, 64), 0);
    CHECK_INT(ready(sv[0]), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
    struct sockaddr_in peer;
    socklen_t len = sizeof peer;
    CHECK_ERRNO(getpeername(sv[0], (void *)&peer, &len), ENOTCONN);
    CHECK_ERRNO(shutdown(sv[0], SHUT_WR), ENOTCONN);
    close(sv[0]);
    // Reading is shut: what is there can be read, and then it ends.
    pair(sv);
    CHECK_INT(write(sv[0], "abc", 3), 3);
    awaits(sv[1], POLLIN);
    CHECK(shutdown(sv[1], SHUT_RD) == 0);
    CHECK_INT(read(sv[1], buf, 64), 3);
    CHECK_INT(read(sv[1], buf, 64), 0);
    CHECK_INT(write(sv[0], "x", 1), 1);
    close(sv[0]);
    close(sv[1]);
    // The peer is gone: the first write goes nowhere, the next one fails.
    pair(sv);
    close(sv[1]);
    awaits(sv[0], POLLRDHUP);
    CHECK_INT(send(sv[0], "x", 1, MSG_NOSIGNAL), 1);
    CHECK_INT(awaits(sv[0], 0), POLLERR | POLLHUP);
    CHECK_ERRNO(send(sv[0], "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_INT(read(sv[0], buf, 1), 0);
    close(sv[0]);
    // It left something unread.
    pair(sv);
    CHECK_INT(write(sv[0], "abc", 3), 3);
    awaits(sv[1], POLLIN);
    CHECK_INT(write(sv[1], "xyz", 3), 3);
    close(sv[1]);
    CHECK_INT(awaits(sv[0], POLLRDHUP), POLLRDHUP | POLLERR | POLLHUP);
    CHECK_INT(read(sv[0], buf, 64), 3);
    CHECK_ERRNO(read(sv[0], buf, 64), ECONNRESET);
    CHECK_INT(read(sv[0], buf, 64), 0);
    CHECK_ERRNO(send(sv[0], "x", 1, MSG_NOSIGNAL), EPIPE);
    close(sv[0]);
    // It does not linger.
    pair(sv);
    struct linger now = {1, 0};
    CHECK(setsockopt(sv[1], SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
    close(sv[1]);
    awaits(sv[0], POLLRDHUP);
    CHECK_ERRNO(send(sv[0], "x", 1, MSG_NOSIGNAL), ECONNRESET);
    CHECK_ERRNO(send(sv[0], "x", 1, MSG_NOSIGNAL), EPIPE);
    close(sv[0]);
    // SIGPIPE.
    pair(sv);
    shutdown(sv[0], SHUT_WR);
    pid_t pid = fork();
    if (pid == 0) {
        write(sv[0], "x", 1);
        _exit(2);
    }
    int status;
    waitpid(pid, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
    close(sv[0]);
    close(sv[1]);
}

static void version6(void) {
    int fd = socket(AF_INET6, SOCK_STREAM, 0), port;
    struct sockaddr_in6 any = at6("::", 0), name;
    CHECK(BIND(fd, any) == 0);
    CHECK(listen(fd, 5) == 0);
    port = port_of(fd);
    // Both kinds of addresses reach it.
    int client = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 to = at6("::1", port), mapped = at6("::ffff:127.0.0.1", port);
    CHECK(CONNECT(client, to) == 0);
    socklen_t len = sizeof name;
    int server = accept(fd, (void *)&name, &len);
    char text[64];
    CHECK_INT(len, sizeof name);
    printf("from %s\n", inet_ntop(AF_INET6, &name.sin6_addr, text, sizeof text));
    close(server);
    close(client);
    client = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to4 = at("127.0.0.1", port);
    CHECK(CONNECT(client, to4) == 0);
    server = accept(fd, (void *)&name, &len);
    printf("from %s\n", inet_ntop(AF_INET6, &name.sin6_addr, text, sizeof text));
    CHECK(getsockname(server, (void *)&name, &len) == 0);
    printf("at %s\n", inet_ntop(AF_INET6, &name.sin6_addr, text, sizeof text));
    close(server);
    close(client);
    client = socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(CONNECT(client, mapped) == 0);
    CHECK(getsockname(client, (void *)&name, &len) == 0);
    printf("name %s\n", inet_ntop(AF_INET6, &name.sin6_addr, text, sizeof text));
    close(client);
    int other = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERRNO(BIND(other, to4), EADDRINUSE);
    close(fd);
    // IPv6 only.
    fd = socket(AF_INET6, SOCK_STREAM, 0);
    int on = 1;
    CHECK(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) == 0);
    CHECK(BIND(fd, any) == 0);
    // Another port than before: old connections may still keep that one.
    port = port_of(fd);
    to4 = at("127.0.0.1", port);
    CHECK_ERRNO(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on), EINVAL);
    CHECK(BIND(other, to4) == 0);
    close(other);
    CHECK(listen(fd, 5) == 0);
    client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERRNO(CONNECT(client, to4), ECONNREFUSED);
    close(client);
    client = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 far = at6("2001:db8::1", 80);
    CHECK_ERRNO(CONNECT(client, far), ENETUNREACH);
    CHECK_ERRNO(connect(client, (void *)&to, 23), EINVAL);
    CHECK_ERRNO(CONNECT(client, to4), EINVAL);
    close(client);
    close(fd);
}

static void options(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), sv[2];
    static const struct { int level, name; const char *text; } all[] = {
        {SOL_SOCKET, SO_SNDBUF, "SNDBUF"}, {SOL_SOCKET, SO_RCVBUF, "RCVBUF"}, {SOL_SOCKET, SO_REUSEADDR, "REUSEADDR"},
        {SOL_SOCKET, SO_KEEPALIVE, "KEEPALIVE"}, {SOL_SOCKET, SO_BROADCAST, "BROADCAST"},
        {IPPROTO_TCP, TCP_NODELAY, "NODELAY"}, {IPPROTO_TCP, TCP_MAXSEG, "MAXSEG"}, {IPPROTO_TCP, TCP_CORK, "CORK"},
        {IPPROTO_TCP, TCP_KEEPIDLE, "KEEPIDLE"}, {IPPROTO_TCP, TCP_KEEPINTVL, "KEEPINTVL"},
        {IPPROTO_TCP, TCP_KEEPCNT, "KEEPCNT"}, {IPPROTO_TCP, TCP_SYNCNT, "SYNCNT"}, {IPPROTO_TCP, TCP_LINGER2, "LINGER2"},
        {IPPROTO_TCP, TCP_DEFER_ACCEPT, "DEFER_ACCEPT"}, {IPPROTO_TCP, TCP_QUICKACK, "QUICKACK"},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, "USER_TIMEOUT"}, {IPPROTO_TCP, TCP_FASTOPEN, "FASTOPEN"},
        {IPPROTO_IP, IP_TTL, "TTL"}, {IPPROTO_IP, IP_TOS, "TOS"}, {IPPROTO_IP, IP_MTU_DISCOVER, "MTU_DISCOVER"},
        {IPPROTO_IP, IP_RECVERR, "RECVERR"}, {IPPROTO_IP, IP_PKTINFO, "PKTINFO"}, {IPPROTO_IP, IP_FREEBIND, "FREEBIND"},
        {IPPROTO_TCP, 999, "unknown"}, {IPPROTO_IP, 999, "unknown ip"},
    };
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        int value = -77;
        socklen_t len = sizeof value;
        int result = getsockopt(fd, all[i].level, all[i].name, &value, &len);
        printf("%s: %d %d %d\n", all[i].text, result, result ? errno : 0, value);
    }
    int on = 7;
    CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
    socklen_t len = sizeof on;
    CHECK(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &len) == 0 && on == 1);
    CHECK_ERRNO(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, 3), EINVAL);
    CHECK_ERRNO(setsockopt(fd, IPPROTO_TCP, 999, &on, sizeof on), ENOPROTOOPT);
    int bad = 0;
    CHECK_ERRNO(setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &bad, sizeof bad), EINVAL);
    CHECK_ERRNO(setsockopt(fd, IPPROTO_IP, IP_TTL, &bad, sizeof bad), EINVAL);
    CHECK_ERRNO(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "nonesuch", 8), ENOENT);
    CHECK_ERRNO(setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on), EOPNOTSUPP);
    char name[16] = "";
    len = sizeof name;
    CHECK(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len) == 0);
    close(fd);
    pair(sv);
    struct tcp_info info = {0};
    len = sizeof info;
    CHECK(getsockopt(sv[0], IPPROTO_TCP, TCP_INFO, &info, &len) == 0);
    CHECK_INT(info.tcpi_state, TCP_ESTABLISHED);
    struct timeval soon = {0, 20000};
    CHECK(setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon) == 0);
    char byte;
    CHECK_ERRNO(read(sv[0], &byte, 1), EAGAIN);
    close(sv[0]);
    close(sv[1]);
}

static void *echo(void *arg) {
    int fd = (int)(long)arg;
    char buf[1000];
    for (ssize_t got; (got = read(fd, buf, sizeof buf)) > 0;)
        if (write(fd, buf, got) != got) break;
    close(fd);
    return NULL;
}

static void many_clients(void) {
    // A server with epoll and clients in processes, each talking for a while.
    int port, fd = listener(&port), ep = epoll_create1(0), served = 0, ended = 0;
    enum { CLIENTS = 20 };
    listen(fd, 100);
    for (int i = 0; i < CLIENTS; i++)
        if (fork() == 0) {
            struct sockaddr_in to = at("127.0.0.1", port);
            int client = socket(AF_INET, SOCK_STREAM, 0), bad = CONNECT(client, to) != 0;
            for (int round = 0; round < 50 && !bad; round++) {
                char out[32], in[32] = "";
                int len = sprintf(out, "client %d round %d", i, round);
                bad |= write(client, out, len) != len || recv(client, in, len, MSG_WAITALL) != len || strcmp(in, out);
            }
            _exit(bad);
        }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event);
    while (ended < CLIENTS) {
        struct epoll_event events[8];
        int count = epoll_wait(ep, events, 8, 20000);
        if (count <= 0) break;
        for (int i = 0; i < count; i++) {
            int one = events[i].data.fd;
            if (one == fd) {
                event.data.fd = accept(fd, NULL, NULL);
                epoll_ctl(ep, EPOLL_CTL_ADD, event.data.fd, &event);
                continue;
            }
            char buf[100];
            ssize_t got = read(one, buf, sizeof buf);
            if (got <= 0) {
                close(one);
                ended++;
            } else if (write(one, buf, got) == got)
                served++;
        }
    }
    int bad = 0, status;
    while (wait(&status) > 0) bad += status != 0;
    CHECK_INT(bad, 0);
    CHECK(served >= CLIENTS * 50 / 2);
    close(fd);
    close(ep);
    // And with threads.
    fd = listener(&port);
    pthread_t threads[10];
    int clients[10];
    for (int i = 0; i < 10; i++) {
        struct sockaddr_in to = at("127.0.0.1", port);
        clients[i] = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(CONNECT(clients[i], to) == 0);
        threads[i] = start(echo, (void *)(long)accept(fd, NULL, NULL));
    }
    for (int round = 0; round < 100; round++)
        for (int i = 0; i < 10; i++) {
            char byte = (char)round, back = 0;
            write(clients[i], &byte, 1);
            if (read(clients[i], &back, 1) != 1 || back != byte) CHECK(!"echo");
        }
    for (int i = 0; i < 10; i++) {
        close(clients[i]);
        pthread_join(threads[i], NULL);
    }
    close(fd);
}

static void full_queue(void) {
    // Who finds the queue full waits until there is room.
    int port, fd = listener(&port), clients[3];
    listen(fd, 1);
    struct sockaddr_in to = at("127.0.0.1", port);
    for (int i = 0; i < 3; i++) {
        clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        CHECK_ERRNO(CONNECT(clients[i], to), EINPROGRESS);
    }
    CHECK_INT(awaits(clients[1], POLLOUT), POLLOUT);
    usleep(20000);
    CHECK_INT(ready(clients[2]), 0);
    CHECK_ERRNO(CONNECT(clients[2], to), EALREADY);
    close(accept(fd, NULL, NULL));
    CHECK_INT(awaits(clients[2], POLLOUT), POLLOUT);
    for (int i = 0; i < 3; i++) close(clients[i]);
    close(fd);
}

int main(void) {
    GROUP(creation);
    GROUP(binding);
    GROUP(connecting);
    GROUP(bytes);
    GROUP(halves);
    GROUP(version6);
    GROUP(options);
    GROUP(many_clients);
    GROUP(full_queue);
    return finish();
}
