// Streams that lead out of the container, in small pieces: net_peer.c is at the address that the first argument names.
#include "check.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { ECHO_PORT = 7001, SOURCE, SINK, RESET, CALL_BACK, TELL_END };

static const char *peer_ip;
static uint64_t seed = 0x9e3779b97f4a7c15;

static uint64_t any(uint64_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static int reach(int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, peer_ip, &to.sin_addr);
    CHECK(connect(fd, (void *)&to, sizeof to) == 0);
    return fd;
}

static unsigned char byte_at(uint64_t at) { return (unsigned char)(at * 29 >> 2 ^ at); }

static void fill(unsigned char *bytes, uint64_t at, size_t len) {
    for (size_t i = 0; i < len; i++) bytes[i] = byte_at(at + i);
}

static int differs(const unsigned char *bytes, uint64_t at, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != byte_at(at + i)) return 1;
    return 0;
}

/* Sends pieces of any size, and reads them back in others and in every way. */
static void there_and_back(void) {
    static unsigned char buffer[70000];
    int fd = reach(ECHO_PORT), wrong = 0, left;
    uint64_t sent = 0, got = 0;
    while (got < 4 << 20) {
        size_t most = any(20) ? 200 : 60000, len = 1 + any(most);
        if (sent - got < 100000) {
            fill(buffer, sent, len);
            ssize_t taken = send(fd, buffer, len, any(3) ? MSG_NOSIGNAL : any(40) ? 0 : MSG_MORE);
            CHECK_INT(taken, len);
            if (taken < 0) break;
            sent += len;
            if (any(3)) continue;
            int on = any(2);
            if (!any(8)) CHECK(setsockopt(fd, SOL_TCP, TCP_NODELAY, &on, sizeof on) == 0);
        }
        size_t wanted = 1 + any(any(10) ? 300 : sizeof buffer - 1);
        // Never more than will come: what MSG_MORE holds back comes after a moment.
        if (wanted > sent - got) wanted = sent - got;
        if (wanted == 0) continue;
        ssize_t step;
        switch (any(6)) {
        case 0:
            step = recv(fd, buffer, wanted, MSG_PEEK);
            CHECK(step > 0 && (size_t)step <= wanted);
            wrong += differs(buffer, got, step);
            continue;
        case 1:
            step = recv(fd, buffer, wanted, MSG_WAITALL);
            CHECK_INT(step, wanted);
            break;
        case 2:
            CHECK(ioctl(fd, FIONREAD, &left) == 0);
            CHECK(left >= 0 && (uint64_t)left <= sent - got);
            if (left == 0) continue;
            step = recv(fd, buffer, left < (int)wanted ? left : (int)wanted, MSG_DONTWAIT);
            CHECK(step > 0);
            break;
        case 3: {
            struct pollfd entry = {.fd = fd, .events = POLLIN | POLLOUT};
            CHECK(poll(&entry, 1, 20000) == 1);
            step = recv(fd, buffer, wanted, MSG_DONTWAIT);
            if (step < 0) {
                CHECK_INT(errno, EAGAIN);
                CHECK(!(entry.revents & POLLIN));
                continue;
            }
            break;
        }
        case 4:
            step = recv(fd, buffer, wanted, MSG_TRUNC);
            CHECK(step > 0 && (size_t)step <= wanted);
            got += step;
            continue;
        default:
            step = read(fd, buffer, wanted);
        }
        CHECK(step > 0);
        if (step <= 0) break;
        wrong += differs(buffer, got, step);
        got += step;
    }
    CHECK_INT(wrong, 0);
    close(fd);
}

/* Who looks without taking sees what came since. */
static void looks_see_more(void) {
    int fd = reach(ECHO_PORT);
    char buffer[40];
    for (int i = 1; i <= 20; i++) {
        CHECK_INT(send(fd, "ab", 2, 0), 2);
        CHECK_INT(recv(fd, buffer, 2 * i, MSG_PEEK | MSG_WAITALL), 2 * i);
    }
    CHECK_INT(recv(fd, buffer, 40, MSG_WAITALL), 40);
    CHECK_ERRNO(recv(fd, buffer, 1, MSG_DONTWAIT), EAGAIN);
    close(fd);
}

static volatile int answered;

static void *awaits(void *arg) {
    char byte;
    if (read((long)arg, &byte, 1) == 1) answered = 1;
    return NULL;
}

/* What was sent leaves although the program computes. */
static void sends_and_computes(void) {
    int fd = reach(ECHO_PORT);
    for (int i = 0; i < 30; i++) {
        answered = 0;
        pthread_t thread = start(awaits, (void *)(long)fd);
        CHECK_INT(send(fd, "x", 1, 0), 1);
        time_t until = time(NULL) + 20;
        while (!answered && time(NULL) < until);
        CHECK(answered);
        pthread_join(thread, NULL);
    }
    close(fd);
}

static void check_sink(int fd, uint64_t total, uint64_t sum) {
    uint64_t answer[2] = {0, 0};
    CHECK_INT(recv(fd, answer, sizeof answer, MSG_WAITALL), sizeof answer);
    CHECK_INT(answer[0], total);
    CHECK_INT(answer[1], sum);
    close(fd);
}

/* What was sent before the end arrives: of the stream, and of the process. */
static void sends_and_ends(void) {
    static unsigned char buffer[100000];
    for (int round = 0; round < 60; round++) {
        int fd = reach(SINK), pieces = 1 + any(100);
        int urgent = any(2 * pieces);
        uint64_t total = 0, sum = 0;
        pid_t child = round % 2 ? fork() : 0;
        for (int i = 0; i < pieces; i++) {
            size_t len = 1 + any(any(9) ? 500 : sizeof buffer - 1);
            fill(buffer, total, len);
            for (size_t k = 0; k < len; k++) sum = sum * 31 + buffer[k];
            total += len;
            if (round % 2 == 0 || child == 0) {
                CHECK_INT(send(fd, buffer, len, 0), len);
                // The urgent byte is not one of the others.
                if (i == urgent) CHECK_INT(send(fd, "!", 1, MSG_OOB), 1);
            }
        }
        if (round % 2 && child == 0) _exit(0);
        if (child > 0) waitpid(child, NULL, 0);
        shutdown(fd, SHUT_WR);
        check_sink(fd, total, sum);
    }
}

static int listener(uint16_t *port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in here = {.sin_family = AF_INET};
    socklen_t len = sizeof here;
    CHECK(bind(fd, (void *)&here, sizeof here) == 0 && listen(fd, 5) == 0);
    CHECK(getsockname(fd, (void *)&here, &len) == 0);
    *port = ntohs(here.sin_port);
    return fd;
}

/* The peer learns that bytes were left unread, and that others were not. */
static void ends_unread(void) {
    uint16_t port;
    char buffer[100];
    int fd = listener(&port);
    for (int taken = 0; taken <= 100; taken += 50) {
        int control = reach(TELL_END), error = -2;
        CHECK_INT(write(control, &port, sizeof port), sizeof port);
        int connection = accept(fd, NULL, NULL);
        // All of it is here.
        CHECK_INT(recv(connection, buffer, 100, MSG_PEEK | MSG_WAITALL), 100);
        CHECK_INT(recv(connection, buffer, taken, 0), taken);
        close(connection);
        CHECK_INT(recv(control, &error, sizeof error, MSG_WAITALL), sizeof error);
        CHECK_INT(error, taken < 100 ? ECONNRESET : 0);
        close(control);
    }
    close(fd);
}

/* A stream that ends while bytes are sent: an error, and only one. */
static void ends_early(void) {
    for (int round = 0; round < 20; round++) {
        int fd = reach(RESET), error = 0;
        char byte = 'x';
        for (int i = 0; i < 1000000 && !error; i++)
            if (send(fd, &byte, 1, MSG_NOSIGNAL) < 0) error = errno;
        CHECK(error == ECONNRESET || error == EPIPE);
        if (error == ECONNRESET) CHECK_ERRNO(send(fd, &byte, 1, MSG_NOSIGNAL), EPIPE);
        socklen_t len = sizeof error;
        CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0);
        CHECK_INT(recv(fd, &byte, 1, 0), 0);
        close(fd);
    }
}

/* Many streams at once, by edges and by levels. */
static void many(void) {
    enum { STREAMS = 40, ROUNDS = 60 };
    static unsigned char buffer[5000];
    static struct {
        int fd;
        uint64_t sent, got;
    } streams[STREAMS];
    int epoll = epoll_create1(0), wrong = 0, left = STREAMS;
    for (int i = 0; i < STREAMS; i++) {
        streams[i].fd = reach(ECHO_PORT);
        fcntl(streams[i].fd, F_SETFL, O_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN | (i % 2 ? EPOLLET : 0), .data.u32 = i};
        CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, streams[i].fd, &event) == 0);
        streams[i].sent = 1 + any(sizeof buffer);
        fill(buffer, 0, streams[i].sent);
        CHECK_INT(write(streams[i].fd, buffer, streams[i].sent), streams[i].sent);
    }
    for (int finished[STREAMS] = {0}; left > 0;) {
        struct epoll_event events[8];
        int count = epoll_wait(epoll, events, 8, 20000);
        CHECK(count > 0);
        if (count <= 0) break;
        for (int e = 0; e < count; e++) {
            int i = events[e].data.u32;
            ssize_t step;
            while ((step = read(streams[i].fd, buffer, 1 + any(2000))) > 0) {
                wrong += differs(buffer, streams[i].got, step);
                streams[i].got += step;
                if (i % 2 == 0) break;
            }
            if (step < 0) CHECK_INT(errno, EAGAIN);
            if (streams[i].got < streams[i].sent || finished[i] > ROUNDS) continue;
            if (++finished[i] > ROUNDS) {
                left--;
                continue;
            }
            size_t len = 1 + any(any(4) ? 100 : sizeof buffer - 1);
            fill(buffer, streams[i].sent, len);
            CHECK_INT(write(streams[i].fd, buffer, len), len);
            streams[i].sent += len;
        }
    }
    CHECK_INT(wrong, 0);
    for (int i = 0; i < STREAMS; i++) close(streams[i].fd);
    close(epoll);
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    peer_ip = argv[1];
    if (argc > 2) seed += strtoull(argv[2], NULL, 0);
    signal(SIGPIPE, SIG_IGN);
    GROUP(there_and_back);
    GROUP(looks_see_more);
    GROUP(sends_and_computes);
    GROUP(sends_and_ends);
    GROUP(ends_unread);
    GROUP(ends_early);
    GROUP(many);
    return finish();
}
