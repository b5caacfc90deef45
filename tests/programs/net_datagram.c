// Datagrams to a host outside, many at a time and in every way: what comes is what was sent, one by one. The other end is net_peer.c.
#include "check.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum { DATAGRAMS = 7101, ELSEWHERE, NOBODY = 9 };

static const char *peer_ip, *own_ip;

static uint64_t seed = 99;

static unsigned any(unsigned below) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 33) % below;
}

static struct sockaddr_in at(const char *ip, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, ip, &address.sin_addr);
    return address;
}

static int reach(int port) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in to = at(peer_ip, port);
    CHECK(connect(fd, (void *)&to, sizeof to) == 0);
    return fd;
}

static size_t fill(unsigned char *bytes, uint32_t number, size_t len) {
    memcpy(bytes, &number, sizeof number);
    for (size_t i = sizeof number; i < len; i++) bytes[i] = (unsigned char)(number * 7 + i);
    return len;
}

static int differs(const unsigned char *bytes, size_t len) {
    uint32_t number;
    if (len < sizeof number) return 1;
    memcpy(&number, bytes, sizeof number);
    for (size_t i = sizeof number; i < len; i++)
        if (bytes[i] != (unsigned char)(number * 7 + i)) return 1;
    return 0;
}

/* Bursts of any sizes, answered in order, read in every way. */
static void bursts(void) {
    static unsigned char buffer[20000];
    int fd = reach(DATAGRAMS), wrong = 0;
    uint32_t sent = 0, got = 0;
    for (int round = 0; round < 300; round++) {
        unsigned count = 1 + any(any(4) ? 3 : 30);
        size_t sizes[30];
        for (unsigned i = 0; i < count; i++) {
            sizes[i] = 4 + any(any(8) ? 100 : any(4) ? 1400 : 18000);
            CHECK_INT(send(fd, buffer, fill(buffer, sent++, sizes[i]), any(2) ? MSG_DONTWAIT : 0), sizes[i]);
        }
        for (unsigned i = 0; i < count; i++) {
            uint32_t number;
            int bytes;
            ssize_t step = 0;
            struct pollfd entry = {.fd = fd, .events = POLLIN};
            CHECK(poll(&entry, 1, 20000) == 1 && entry.revents == POLLIN);
            switch (any(4)) {
            case 0:
                CHECK(ioctl(fd, FIONREAD, &bytes) == 0);
                CHECK_INT(bytes, sizes[i]);
                // fall through
            case 1:
                step = recv(fd, buffer, 4, MSG_PEEK | MSG_TRUNC);
                CHECK_INT(step, sizes[i]);
                break;
            default:
                break;
            }
            step = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
            CHECK_INT(step, sizes[i]);
            memcpy(&number, buffer, sizeof number);
            CHECK_INT(number, got);
            got++;
            wrong += differs(buffer, step);
        }
        CHECK_ERRNO(recv(fd, buffer, 1, MSG_DONTWAIT), EAGAIN);
        if (failures > 20) break;
    }
    CHECK_INT(wrong, 0);
    close(fd);
}

/* Datagrams without bytes, and such as are longer than what they are read into, among others. */
static void ends_are_kept(void) {
    int fd = reach(DATAGRAMS);
    char buffer[100];
    for (int i = 0; i < 20; i++) {
        CHECK_INT(send(fd, "first", 5, 0), 5);
        CHECK_INT(send(fd, "", 0, 0), 0);
        CHECK_INT(send(fd, "third one", 9, 0), 9);
        CHECK_INT(recv(fd, buffer, sizeof buffer, 0), 5);
        CHECK_INT(recv(fd, buffer, sizeof buffer, 0), 0);
        struct iovec place = {buffer, 5};
        struct msghdr message = {.msg_iov = &place, .msg_iovlen = 1};
        CHECK_INT(recvmsg(fd, &message, 0), 5);
        CHECK(message.msg_flags & MSG_TRUNC && !memcmp(buffer, "third", 5));
    }
    close(fd);
}

/* One socket, several destinations: each answer tells where it is from. */
static void destinations(void) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0), wrong = 0;
    struct sockaddr_in to[2] = {at(peer_ip, DATAGRAMS), at(peer_ip, ELSEWHERE)}, from;
    char buffer[100];
    for (int i = 0; i < 200; i++) {
        CHECK_INT(sendto(fd, &i, sizeof i, 0, (void *)&to[i % 2], sizeof *to), sizeof i);
        if (i % 8 != 7) continue;
        unsigned seen = 0;
        for (int j = 0; j < 8; j++) {
            socklen_t len = sizeof from;
            int number;
            CHECK_INT(recvfrom(fd, buffer, sizeof buffer, 0, (void *)&from, &len), sizeof number);
            memcpy(&number, buffer, sizeof number);
            wrong += len != sizeof from || from.sin_addr.s_addr != to[0].sin_addr.s_addr;
            wrong += ntohs(from.sin_port) != DATAGRAMS;
            seen |= 1u << (number - (i - 7));
        }
        CHECK_INT(seen, 255);
    }
    CHECK_INT(wrong, 0);
    close(fd);
}

/* What comes with datagrams comes with each. */
static void with_control(void) {
    int fd = reach(DATAGRAMS), on = 1, wrong = 0;
    char buffer[100], control[512];
    CHECK(setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on) == 0);
    CHECK(setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &on, sizeof on) == 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof on) == 0);
    for (int i = 0; i < 60; i++) {
        CHECK_INT(send(fd, "info", 4, 0), 4);
        if (i % 6 != 5) continue;
        for (int j = 0; j < 6; j++) {
            struct iovec place = {buffer, sizeof buffer};
            struct msghdr message = {
                .msg_iov = &place, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
            CHECK_INT(recvmsg(fd, &message, 0), 4);
            int seen = 0;
            for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head)) {
                if (head->cmsg_level == IPPROTO_IP && head->cmsg_type == IP_PKTINFO) {
                    struct in_pktinfo *info = (void *)CMSG_DATA(head);
                    wrong += info->ipi_addr.s_addr != inet_addr(own_ip);
                    seen |= 1;
                } else if (head->cmsg_level == IPPROTO_IP && head->cmsg_type == IP_TTL) {
                    wrong += *(int *)CMSG_DATA(head) != 64;
                    seen |= 2;
                } else if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_TIMESTAMP) {
                    seen |= 4;
                }
            }
            CHECK_INT(seen, 7);
        }
    }
    CHECK_INT(wrong, 0);
    close(fd);
}

/* Nobody is there: the next call says so, whichever it is, and the one after that goes on. */
static void nobody(void) {
    int fd = reach(NOBODY);
    char byte;
    for (int i = 0; i < 4; i++) {
        struct pollfd entry = {.fd = fd, .events = POLLIN};
        CHECK_INT(send(fd, "x", 1, 0), 1);
        CHECK(poll(&entry, 1, 20000) == 1 && entry.revents & POLLERR);
        if (i % 2)
            CHECK_ERRNO(recv(fd, &byte, 1, 0), ECONNREFUSED);
        else
            CHECK_ERRNO(send(fd, "y", 1, 0), ECONNREFUSED);
    }
    struct sockaddr_in to = at(peer_ip, DATAGRAMS);
    int error;
    socklen_t len = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
    CHECK(connect(fd, (void *)&to, sizeof to) == 0);
    CHECK_INT(send(fd, "back", 4, 0), 4);
    CHECK_INT(recv(fd, &byte, 1, MSG_TRUNC), 4);
    close(fd);
}

/* Datagrams are sent although the program computes, or ends, or closes right after. */
static void goes_away(void) {
    int listener = socket(AF_INET, SOCK_DGRAM, 0), got = 0;
    struct sockaddr_in any_port = at("0.0.0.0", 0), own;
    socklen_t len = sizeof own;
    CHECK(bind(listener, (void *)&any_port, sizeof any_port) == 0);
    CHECK(getsockname(listener, (void *)&own, &len) == 0);
    struct timeval limit = {.tv_sec = 20};
    CHECK(setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
    for (int round = 0; round < 3; round++) {
        int gate[2];
        char buffer[8];
        CHECK(pipe(gate) == 0);
        pid_t child = fork();
        if (child == 0) {
            // The same port: answers come to the parent's socket, which shares it.
            struct sockaddr_in to = at(peer_ip, DATAGRAMS);
            for (int i = 0; i < 10; i++) sendto(listener, "child", 5, 0, (void *)&to, sizeof to);
            if (round == 0) _exit(0);
            if (round == 1) close(listener);
            for (;;)
                if (fcntl(gate[0], F_GETFL) < 0) break;
            _exit(0);
        }
        for (int i = 0; i < 10; i++) got += recv(listener, buffer, sizeof buffer, 0) == 5;
        if (round > 0) CHECK(kill(child, SIGKILL) == 0);
        CHECK_INT(waitpid(child, NULL, 0), child);
        close(gate[0]);
        close(gate[1]);
    }
    CHECK_INT(got, 30);
    close(listener);
}

/* Many sockets at once, by edges and by levels. */
static void many(void) {
    enum { SOCKETS = 30, ROUNDS = 40 };
    int epoll = epoll_create1(0), left = SOCKETS, rounds[SOCKETS] = {0}, fds[SOCKETS];
    for (int i = 0; i < SOCKETS; i++) {
        fds[i] = reach(DATAGRAMS);
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN | (i % 2 ? EPOLLET : 0), .data.u32 = i};
        CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event) == 0);
        CHECK_INT(send(fds[i], &rounds[i], sizeof(int), 0), sizeof(int));
    }
    while (left > 0) {
        struct epoll_event events[8];
        int count = epoll_wait(epoll, events, 8, 20000), number;
        CHECK(count > 0);
        if (count <= 0) break;
        for (int e = 0; e < count; e++) {
            int i = events[e].data.u32;
            while (recv(fds[i], &number, sizeof number, 0) == sizeof number) {
                CHECK_INT(number, rounds[i]);
                if (++rounds[i] == ROUNDS) left--;
                if (rounds[i] < ROUNDS) CHECK_INT(send(fds[i], &rounds[i], sizeof(int), 0), sizeof(int));
            }
            CHECK_INT(errno, EAGAIN);
        }
    }
    for (int i = 0; i < SOCKETS; i++) close(fds[i]);
    close(epoll);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    own_ip = argv[1];
    peer_ip = argv[2];
    alarm(100);
    GROUP(bursts);
    GROUP(ends_are_kept);
    GROUP(destinations);
    GROUP(with_control);
    GROUP(nobody);
    GROUP(goes_away);
    GROUP(many);
    return finish();
}
