// The other end of net_out.c: runs on the host, in a network namespace of the test.
#include "check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

static struct sockaddr_in any(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    return address;
}

static void write_all(int fd, const void *bytes, size_t len) {
    const char *at = bytes;
    while (len > 0) {
        ssize_t done = write(fd, at, len);
        if (done <= 0) return;
        at += done;
        len -= done;
    }
}

static void *echo(void *arg) {
    int fd = (long)arg;
    char buffer[65536];
    ssize_t got;
    while ((got = read(fd, buffer, sizeof buffer)) > 0) write_all(fd, buffer, got);
    shutdown(fd, SHUT_WR);
    close(fd);
    return NULL;
}

/* Sends as many bytes as the first 8 say. */
static void *source(void *arg) {
    int fd = (long)arg;
    uint64_t left = 0;
    if (recv(fd, &left, sizeof left, MSG_WAITALL) == sizeof left) {
        char buffer[65536];
        uint64_t at = 0;
        while (left > 0) {
            size_t len = left < sizeof buffer ? left : sizeof buffer;
            for (size_t i = 0; i < len; i++) buffer[i] = (char)((at + i) * 31 >> 3);
            write_all(fd, buffer, len);
            at += len;
            left -= len;
        }
    }
    close(fd);
    return NULL;
}

/* Answers how many bytes came, and their sum. */
static void *sink(void *arg) {
    int fd = (long)arg;
    unsigned char buffer[65536];
    uint64_t totals[2] = {0, 0};
    ssize_t got;
    while ((got = read(fd, buffer, sizeof buffer)) > 0) {
        for (ssize_t i = 0; i < got; i++) totals[1] = totals[1] * 31 + buffer[i];
        totals[0] += got;
    }
    write_all(fd, totals, sizeof totals);
    close(fd);
    return NULL;
}

/* Resets the connection after a byte. */
static void *reset(void *arg) {
    int fd = (long)arg;
    char byte;
    struct linger at_once = {.l_onoff = 1};
    if (read(fd, &byte, 1) == 1) setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
    return NULL;
}

/* Connects to the port of the caller's host that the first 2 bytes say, sends there what follows, and answers what comes back. */
static void *call_back(void *arg) {
    int fd = (long)arg;
    uint16_t port;
    struct sockaddr_in peer;
    socklen_t len = sizeof peer;
    char buffer[256];
    if (recv(fd, &port, sizeof port, MSG_WAITALL) == sizeof port && getpeername(fd, (void *)&peer, &len) == 0) {
        peer.sin_port = htons(port);
        int back = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(back, (void *)&peer, sizeof peer) == 0) {
            ssize_t got = read(fd, buffer, sizeof buffer);
            write_all(back, buffer, got);
            shutdown(back, SHUT_WR);
            while ((got = read(back, buffer, sizeof buffer)) > 0) write_all(fd, buffer, got);
        } else {
            int error = errno;
            write_all(fd, &error, sizeof error);
        }
        close(back);
    }
    close(fd);
    return NULL;
}

/* Connects as call_back does, sends 100 bytes, and answers with the error that reading what comes back ends with. */
static void *tell_end(void *arg) {
    int fd = (long)arg, error = 0;
    uint16_t port;
    struct sockaddr_in peer;
    socklen_t len = sizeof peer;
    char buffer[256] = {0};
    if (recv(fd, &port, sizeof port, MSG_WAITALL) == sizeof port && getpeername(fd, (void *)&peer, &len) == 0) {
        peer.sin_port = htons(port);
        int back = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(back, (void *)&peer, sizeof peer) == 0) {
            ssize_t got;
            write_all(back, buffer, 100);
            while ((got = read(back, buffer, sizeof buffer)) > 0);
            if (got < 0) error = errno;
        } else {
            error = -1;
        }
        write_all(fd, &error, sizeof error);
        close(back);
    }
    close(fd);
    return NULL;
}

struct service {
    int port;
    void *(*serve)(void *);
    int listener;
};

_Noreturn static void *accept_all(void *arg) {
    struct service *service = arg;
    for (;;) {
        int connection = accept(service->listener, NULL, NULL);
        if (connection >= 0) pthread_detach(start(service->serve, (void *)(long)connection));
    }
}

/* Echoes datagrams; those to the second port are answered from the first. */
_Noreturn static void *datagrams(void *arg) {
    int *fds = arg, own = fds[0], from = fds[1];
    char buffer[65536];
    for (;;) {
        struct sockaddr_in peer;
        socklen_t len = sizeof peer;
        ssize_t got = recvfrom(own, buffer, sizeof buffer, 0, (void *)&peer, &len);
        if (got >= 0) sendto(from, buffer, got, 0, (void *)&peer, len);
    }
}

int main(void) {
    static struct service services[] = {{7001, echo, -1}, {7002, source, -1},    {7003, sink, -1},
                                        {7004, reset, -1}, {7005, call_back, -1}, {7006, tell_end, -1}};
    static int fds[2][2];
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < 2; i++) {
        struct sockaddr_in address = any(7101 + i);
        fds[i][0] = socket(AF_INET, SOCK_DGRAM, 0);
        if (bind(fds[i][0], (void *)&address, sizeof address)) return 1;
        fds[i][1] = fds[0][0];
        start(datagrams, fds[i]);
    }
    for (size_t i = 0; i < sizeof services / sizeof *services; i++) {
        int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in address = any(services[i].port);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, (void *)&address, sizeof address) || listen(fd, 64)) return 1;
        services[i].listener = fd;
        start(accept_all, &services[i]);
    }
    puts("ready");
    fflush(stdout);
    pause();
    return 0;
}
