// Sockets that lead out of the container: net_peer.c is at the address that the first argument names.
#include "check.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

enum { ECHO_PORT = 7001, SOURCE, SINK, RESET, CALL_BACK, DATAGRAMS = 7101, ELSEWHERE };

static const char *peer_ip, *own_ip;

static struct sockaddr_in at(const char *ip, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, ip, &address.sin_addr);
    return address;
}

#define BIND(fd, address) bind(fd, (void *)&address, sizeof address)
#define CONNECT(fd, address) connect(fd, (void *)&address, sizeof address)

static int reach(int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = at(peer_ip, port);
    CHECK(CONNECT(fd, to) == 0);
    return fd;
}

static struct sockaddr_in name_of(int fd) {
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    CHECK(getsockname(fd, (void *)&address, &len) == 0);
    CHECK_INT(len, sizeof address);
    return address;
}

static int is_ip(struct sockaddr_in address, const char *ip) {
    return address.sin_addr.s_addr == inet_addr(ip);
}

static int option(int fd, int level, int name) {
    int value = -1;
    socklen_t len = sizeof value;
    CHECK(getsockopt(fd, level, name, &value, &len) == 0);
    return value;
}

static short wait_for(int fd, short events) {
    struct pollfd entry = {.fd = fd, .events = events};
    CHECK(poll(&entry, 1, 20000) == 1);
    return entry.revents;
}

static void streams(void) {
    int fd = reach(ECHO_PORT);
    char buffer[64];
    struct sockaddr_in peer;
    socklen_t len = sizeof peer;
    CHECK(is_ip(name_of(fd), own_ip));
    CHECK(getpeername(fd, (void *)&peer, &len) == 0);
    CHECK(is_ip(peer, peer_ip) && ntohs(peer.sin_port) == ECHO_PORT);
    CHECK_INT(send(fd, "hello", 5, 0), 5);
    CHECK_INT(recv(fd, buffer, 5, MSG_PEEK | MSG_WAITALL), 5);
    CHECK_INT(recv(fd, buffer, 3, 0), 3);
    CHECK(memcmp(buffer, "hel", 3) == 0);
    int left;
    CHECK(ioctl(fd, FIONREAD, &left) == 0);
    CHECK_INT(left, 2);
    CHECK_INT(recv(fd, buffer, 64, MSG_TRUNC), 2);
    CHECK_ERRNO(recv(fd, buffer, 64, MSG_DONTWAIT), EAGAIN);
    struct iovec parts[2] = {{"ab", 2}, {"cdef", 4}};
    CHECK_INT(writev(fd, parts, 2), 6);
    CHECK_INT(recv(fd, buffer, 6, MSG_WAITALL), 6);
    CHECK(memcmp(buffer, "abcdef", 6) == 0);
    CHECK(shutdown(fd, SHUT_WR) == 0);
    CHECK_INT(read(fd, buffer, sizeof buffer), 0);
    CHECK_ERRNO(send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK(wait_for(fd, POLLIN | POLLRDHUP) & POLLRDHUP);
    CHECK_ERRNO(CONNECT(fd, peer), EISCONN);
    close(fd);
}

static void refused_and_unreachable(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in nobody = at(peer_ip, 9), nowhere = at("192.0.2.1", 80), here = at("127.0.0.1", 9);
    CHECK_ERRNO(CONNECT(fd, nobody), ECONNREFUSED);
    CHECK_ERRNO(CONNECT(fd, nobody), ECONNREFUSED);
    // The same socket may try again, elsewhere.
    struct sockaddr_in to = at(peer_ip, ECHO_PORT);
    CHECK(CONNECT(fd, to) == 0);
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERRNO(CONNECT(fd, nowhere), ENETUNREACH);
    CHECK_ERRNO(CONNECT(fd, here), ECONNREFUSED);
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK_ERRNO(CONNECT(fd, nobody), EINPROGRESS);
    CHECK(wait_for(fd, POLLOUT) & POLLERR);
    CHECK_INT(option(fd, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
    CHECK_INT(option(fd, SOL_SOCKET, SO_ERROR), 0);
    close(fd);
}

static void without_waiting(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), watch = epoll_create1(0);
    struct sockaddr_in to = at(peer_ip, ECHO_PORT);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, .data.fd = fd};
    char buffer[64];
    CHECK_ERRNO(CONNECT(fd, to), EINPROGRESS);
    CHECK(epoll_ctl(watch, EPOLL_CTL_ADD, fd, &event) == 0);
    CHECK_INT(epoll_wait(watch, &event, 1, 20000), 1);
    CHECK(event.events & EPOLLOUT);
    CHECK_INT(option(fd, SOL_SOCKET, SO_ERROR), 0);
    CHECK(is_ip(name_of(fd), own_ip));
    // Each message is an edge of its own, even where bytes of the one before are left.
    for (int i = 0; i < 20; i++) {
        int got = 0;
        CHECK_INT(write(fd, "message", 7), 7);
        do {
            CHECK_INT(epoll_wait(watch, &event, 1, 20000), 1);
            ssize_t more = i % 2 ? read(fd, buffer, sizeof buffer) : recv(fd, buffer, 64, MSG_PEEK);
            got = more > got ? more : got;
        } while (got < 7);
        if (i % 2 == 0) CHECK_INT(read(fd, buffer, 7), 7);
    }
    CHECK_ERRNO(read(fd, buffer, 1), EAGAIN);
    shutdown(fd, SHUT_WR);
    do {
        CHECK_INT(epoll_wait(watch, &event, 1, 20000), 1);
    } while (!(event.events & EPOLLRDHUP));
    CHECK_INT(read(fd, buffer, 1), 0);
    close(fd);
    close(watch);
}

/* 20 MiB each way, by pieces of changing size. */
static void much(void) {
    enum { TOTAL = 20 << 20 };
    static unsigned char buffer[300000];
    int fd = reach(SOURCE);
    uint64_t total = TOTAL, at = 0, wrong = 0;
    CHECK_INT(write(fd, &total, sizeof total), sizeof total);
    ssize_t got;
    size_t sizes[] = {1, 300000, 4096, 16384, 100, 70000};
    for (int i = 0; (got = read(fd, buffer, sizes[i % 6])) > 0; i++)
        for (ssize_t k = 0; k < got; k++, at++) wrong += buffer[k] != (unsigned char)(at * 31 >> 3);
    CHECK_INT(at, TOTAL);
    CHECK_INT(wrong, 0);
    close(fd);
    fd = reach(SINK);
    uint64_t sum = 0, sent = 0, answer[2];
    for (int i = 0; sent < TOTAL; i++) {
        size_t len = sizes[i % 6] < TOTAL - sent ? sizes[i % 6] : TOTAL - sent;
        for (size_t k = 0; k < len; k++) {
            buffer[k] = (unsigned char)((sent + k) * 17 >> 2);
            sum = sum * 31 + buffer[k];
        }
        CHECK_INT(send(fd, buffer, len, 0), len);
        sent += len;
    }
    // The rest by sendfile(2).
    int file = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    if (file < 0) file = memfd_create("much", 0);
    CHECK_INT(write(file, buffer, 100000), 100000);
    lseek(file, 0, SEEK_SET);
    for (int k = 0; k < 100000; k++) sum = sum * 31 + buffer[k];
    for (size_t left = 100000; left > 0;) {
        ssize_t step = sendfile(fd, file, NULL, left);
        CHECK(step > 0);
        if (step <= 0) break;
        left -= step;
    }
    shutdown(fd, SHUT_WR);
    CHECK_INT(recv(fd, answer, sizeof answer, MSG_WAITALL), sizeof answer);
    CHECK_INT(answer[0], TOTAL + 100000);
    CHECK_INT(answer[1], sum);
    close(fd);
    close(file);
}

static void resets(void) {
    int fd = reach(RESET);
    char byte;
    CHECK_INT(write(fd, "x", 1), 1);
    CHECK_ERRNO(read(fd, &byte, 1), ECONNRESET);
    CHECK_INT(read(fd, &byte, 1), 0);
    CHECK_ERRNO(send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
    close(fd);
}

static int called(int port) {
    uint16_t number = port;
    int fd = reach(CALL_BACK);
    CHECK_INT(write(fd, &number, sizeof number), sizeof number);
    return fd;
}

static void is_called(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in any = at("0.0.0.0", 0), peer;
    socklen_t len = sizeof peer;
    char buffer[64];
    CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    CHECK(BIND(fd, any) == 0);
    CHECK(listen(fd, 8) == 0);
    int port = ntohs(name_of(fd).sin_port);
    CHECK(port != 0);
    int control = called(port);
    int connection = accept(fd, (void *)&peer, &len);
    CHECK(connection >= 0 && is_ip(peer, peer_ip));
    CHECK(is_ip(name_of(connection), own_ip));
    CHECK_INT(ntohs(name_of(connection).sin_port), port);
    CHECK_INT(write(control, "ping", 4), 4);
    CHECK_INT(recv(connection, buffer, 4, MSG_WAITALL), 4);
    CHECK_INT(read(connection, buffer + 4, 1), 0);
    CHECK_INT(write(connection, "pong", 4), 4);
    close(connection);
    CHECK_INT(recv(control, buffer, sizeof buffer, MSG_WAITALL), 4);
    CHECK(memcmp(buffer, "pong", 4) == 0);
    close(control);
    // From inside and from outside by one listener, without waiting.
    fcntl(fd, F_SETFL, O_NONBLOCK);
    CHECK_ERRNO(accept(fd, NULL, NULL), EAGAIN);
    control = called(port);
    CHECK(wait_for(fd, POLLIN) & POLLIN);
    connection = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    CHECK(connection >= 0 && fcntl(connection, F_GETFL) & O_NONBLOCK);
    CHECK_ERRNO(read(connection, buffer, 1), EAGAIN);
    close(connection);
    close(control);
    struct sockaddr_in here = at("127.0.0.1", port);
    int inside = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(CONNECT(inside, here) == 0);
    CHECK(wait_for(fd, POLLIN) & POLLIN);
    connection = accept(fd, (void *)&peer, &len);
    CHECK(connection >= 0 && is_ip(peer, "127.0.0.1"));
    close(connection);
    close(inside);
    // By the container's own address.
    struct sockaddr_in own = at(own_ip, port);
    inside = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(CONNECT(inside, own) == 0);
    CHECK(wait_for(fd, POLLIN) & POLLIN);
    connection = accept(fd, (void *)&peer, &len);
    CHECK(connection >= 0 && is_ip(peer, own_ip));
    CHECK_INT(write(inside, "self", 4), 4);
    CHECK(wait_for(connection, POLLIN) & POLLIN);
    CHECK_INT(read(connection, buffer, sizeof buffer), 4);
    close(connection);
    close(inside);
    // The port is taken; after the end nobody answers.
    int second = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in same = at("0.0.0.0", port), strange = at("192.0.2.7", 0);
    CHECK_ERRNO(BIND(second, same), EADDRINUSE);
    CHECK_ERRNO(BIND(second, strange), EADDRNOTAVAIL);
    close(second);
    close(fd);
    control = called(port);
    int error = 0;
    CHECK_INT(recv(control, &error, sizeof error, MSG_WAITALL), sizeof error);
    CHECK_INT(error, ECONNREFUSED);
    close(control);
}

static void *talk(void *arg) {
    int fd = reach(ECHO_PORT);
    char own[1000], back[1000];
    memset(own, (int)(long)arg, sizeof own);
    for (int i = 0; i < 30; i++) {
        CHECK_INT(write(fd, own, sizeof own), sizeof own);
        CHECK_INT(recv(fd, back, sizeof back, MSG_WAITALL), sizeof back);
        CHECK(memcmp(own, back, sizeof own) == 0);
    }
    close(fd);
    return NULL;
}

static void many_at_once(void) {
    pthread_t threads[12];
    for (long i = 0; i < 12; i++) threads[i] = start(talk, (void *)i);
    for (int i = 0; i < 12; i++) pthread_join(threads[i], NULL);
}

static void *cut(void *arg) {
    usleep(20000);
    shutdown((int)(long)arg, SHUT_RDWR);
    return NULL;
}

static void waits_end(void) {
    int fd = reach(ECHO_PORT);
    struct timeval soon = {.tv_usec = 30000};
    char byte;
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon) == 0);
    CHECK_ERRNO(read(fd, &byte, 1), EAGAIN);
    soon = (struct timeval){0};
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon) == 0);
    pthread_t thread = start(cut, (void *)(long)fd);
    CHECK_INT(read(fd, &byte, 1), 0);
    pthread_join(thread, NULL);
    close(fd);
    // Full buffers: no room, until the other end reads.
    fd = reach(SINK);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    static char zeros[65536];
    uint64_t sent = 0, answer[2];
    while (sent < 8 << 20) {
        ssize_t step = write(fd, zeros, sizeof zeros);
        if (step < 0) {
            CHECK_INT(errno, EAGAIN);
            CHECK(wait_for(fd, POLLOUT) & POLLOUT);
            continue;
        }
        sent += step;
    }
    shutdown(fd, SHUT_WR);
    fcntl(fd, F_SETFL, 0);
    CHECK_INT(recv(fd, answer, sizeof answer, MSG_WAITALL), sizeof answer);
    CHECK_INT(answer[0], sent);
    close(fd);
}

static void options(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1, idle = 33;
    CHECK(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) == 0);
    CHECK(setsockopt(fd, SOL_TCP, TCP_NODELAY, &on, sizeof on) == 0);
    CHECK(setsockopt(fd, SOL_TCP, TCP_KEEPIDLE, &idle, sizeof idle) == 0);
    struct sockaddr_in to = at(peer_ip, ECHO_PORT);
    CHECK(CONNECT(fd, to) == 0);
    CHECK_INT(option(fd, SOL_TCP, TCP_NODELAY), 1);
    CHECK_INT(option(fd, SOL_TCP, TCP_KEEPIDLE), 33);
    CHECK_INT(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    CHECK_INT(option(fd, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
    CHECK(option(fd, SOL_TCP, TCP_MAXSEG) > 500);
    struct tcp_info info = {0};
    socklen_t len = sizeof info;
    CHECK(getsockopt(fd, SOL_TCP, TCP_INFO, &info, &len) == 0);
    CHECK_INT(info.tcpi_state, TCP_ESTABLISHED);
    CHECK(info.tcpi_snd_mss > 500);
    CHECK_ERRNO(setsockopt(fd, SOL_TCP, 9999, &on, sizeof on), ENOPROTOOPT);
    close(fd);
}

static void version_6(void) {
    // An IPv6 socket reaches IPv4 hosts by mapped addresses.
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(ECHO_PORT)}, name;
    char text[64], mapped[64];
    socklen_t len = sizeof name;
    snprintf(text, sizeof text, "::ffff:%s", peer_ip);
    inet_pton(AF_INET6, text, &to.sin6_addr);
    CHECK(CONNECT(fd, to) == 0);
    CHECK(getsockname(fd, (void *)&name, &len) == 0);
    CHECK_INT(len, sizeof name);
    snprintf(mapped, sizeof mapped, "::ffff:%s", own_ip);
    CHECK(strcmp(inet_ntop(AF_INET6, &name.sin6_addr, text, sizeof text), mapped) == 0);
    close(fd);
}

/* Connecting by what is sent. */
static void fast_open(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = at(peer_ip, ECHO_PORT), none = {.sin_family = AF_UNSPEC}, nobody = at(peer_ip, 9);
    char buffer[8];
    CHECK_ERRNO(sendto(fd, "x", 1, MSG_FASTOPEN, (void *)&none, sizeof none), EOPNOTSUPP);
    CHECK_ERRNO(send(fd, "x", 1, MSG_FASTOPEN), EINVAL);
    CHECK_INT(sendto(fd, "hello", 5, MSG_FASTOPEN, (void *)&to, sizeof to), 5);
    CHECK_INT(recv(fd, buffer, 5, MSG_WAITALL), 5);
    CHECK(!memcmp(buffer, "hello", 5));
    CHECK_ERRNO(sendto(fd, "x", 1, MSG_FASTOPEN, (void *)&to, sizeof to), EISCONN);
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERRNO(sendto(fd, "x", 1, MSG_FASTOPEN, (void *)&nobody, sizeof nobody), ECONNREFUSED);
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK_ERRNO(sendto(fd, "x", 1, MSG_FASTOPEN, (void *)&to, sizeof to), EINPROGRESS);
    CHECK(wait_for(fd, POLLOUT) & POLLOUT);
    CHECK_INT(send(fd, "y", 1, 0), 1);
    CHECK(wait_for(fd, POLLIN) & POLLIN);
    CHECK_INT(recv(fd, buffer, 1, 0), 1);
    close(fd);
}

static void datagrams(void) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in to = at(peer_ip, DATAGRAMS), other = at(peer_ip, ELSEWHERE), from;
    socklen_t len = sizeof from;
    char buffer[70000];
    CHECK_INT(sendto(fd, "one", 3, 0, (void *)&to, sizeof to), 3);
    CHECK_INT(recvfrom(fd, buffer, sizeof buffer, 0, (void *)&from, &len), 3);
    CHECK(is_ip(from, peer_ip) && ntohs(from.sin_port) == DATAGRAMS);
    CHECK(ntohs(name_of(fd).sin_port) != 0 && is_ip(name_of(fd), "0.0.0.0"));
    CHECK_INT(sendto(fd, "", 0, 0, (void *)&to, sizeof to), 0);
    CHECK_INT(recv(fd, buffer, sizeof buffer, 0), 0);
    CHECK_INT(sendto(fd, buffer, 9000, 0, (void *)&to, sizeof to), 9000);
    struct iovec place = {buffer, 100};
    struct msghdr message = {.msg_iov = &place, .msg_iovlen = 1};
    CHECK_INT(recvmsg(fd, &message, 0), 100);
    CHECK(message.msg_flags & MSG_TRUNC);
    CHECK_ERRNO(sendto(fd, buffer, 65600, 0, (void *)&to, sizeof to), EMSGSIZE);
    CHECK(CONNECT(fd, to) == 0);
    CHECK(is_ip(name_of(fd), own_ip));
    CHECK_INT(send(fd, "two", 3, 0), 3);
    CHECK(wait_for(fd, POLLIN) & POLLIN);
    int bytes;
    CHECK(ioctl(fd, FIONREAD, &bytes) == 0);
    CHECK_INT(bytes, 3);
    CHECK_INT(recv(fd, buffer, sizeof buffer, MSG_PEEK), 3);
    CHECK_INT(recv(fd, buffer, 2, MSG_TRUNC), 3);
    CHECK_ERRNO(recv(fd, buffer, 1, MSG_DONTWAIT), EAGAIN);
    close(fd);
    // An answer from another port does not reach who is connected.
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(CONNECT(fd, other) == 0);
    CHECK_INT(send(fd, "three", 5, 0), 5);
    CHECK_INT(send(fd, "four", 4, 0), 4);
    struct timeval soon = {.tv_usec = 50000};
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon) == 0);
    CHECK_ERRNO(recv(fd, buffer, 1, 0), EAGAIN);
    close(fd);
    // Nobody there: whoever is connected hears of it.
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in nobody = at(peer_ip, 9), nowhere = at("192.0.2.1", 9);
    CHECK(CONNECT(fd, nobody) == 0);
    CHECK_INT(send(fd, "x", 1, 0), 1);
    CHECK_ERRNO(recv(fd, buffer, 1, 0), ECONNREFUSED);
    close(fd);
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK_ERRNO(sendto(fd, "x", 1, 0, (void *)&nowhere, sizeof nowhere), ENETUNREACH);
    CHECK_ERRNO(CONNECT(fd, nowhere), ENETUNREACH);
    // Inside and outside by one socket.
    int inside = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in here = at("127.0.0.1", 0);
    CHECK(BIND(inside, here) == 0);
    here = name_of(inside);
    CHECK_INT(sendto(fd, "in", 2, 0, (void *)&here, sizeof here), 2);
    len = sizeof from;
    CHECK_INT(recvfrom(inside, buffer, 100, 0, (void *)&from, &len), 2);
    CHECK_INT(ntohs(from.sin_port), ntohs(name_of(fd).sin_port));
    CHECK_INT(sendto(inside, "back", 4, 0, (void *)&from, len), 4);
    CHECK_INT(recv(fd, buffer, 100, 0), 4);
    CHECK_INT(sendto(fd, "out", 3, 0, (void *)&to, sizeof to), 3);
    CHECK_INT(recv(fd, buffer, 100, 0), 3);
    close(inside);
    close(fd);
}

static void packet_information(void) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0), on = 1;
    struct sockaddr_in to = at(peer_ip, DATAGRAMS);
    char buffer[16], control[256];
    CHECK(setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on) == 0);
    CHECK_INT(sendto(fd, "info", 4, 0, (void *)&to, sizeof to), 4);
    struct iovec place = {buffer, sizeof buffer};
    struct msghdr message = {
        .msg_iov = &place, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK_INT(recvmsg(fd, &message, 0), 4);
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    CHECK(head && head->cmsg_level == IPPROTO_IP && head->cmsg_type == IP_PKTINFO);
    struct in_pktinfo *info = (void *)CMSG_DATA(head);
    CHECK(info->ipi_addr.s_addr == inet_addr(own_ip));
    close(fd);
}

static void raw_packets(void) {
    int fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    CHECK(fd >= 0);
    const char *targets[] = {peer_ip, "127.0.0.1"};
    for (int i = 0; i < 2; i++) {
        struct sockaddr_in to = at(targets[i], 0);
        struct icmphdr question = {.type = ICMP_ECHO};
        question.un.echo.id = htons(77 + i);
        uint32_t sum = htons(ICMP_ECHO << 8) + question.un.echo.id;
        question.checksum = ~((sum & 0xffff) + (sum >> 16));
        CHECK_INT(sendto(fd, &question, sizeof question, 0, (void *)&to, sizeof to), sizeof question);
        struct icmphdr answer;
        do {
            char packet[256];
            ssize_t got = recv(fd, packet, sizeof packet, 0);
            CHECK(got >= 28);
            if (got < 28) return;
            memcpy(&answer, packet + 20, sizeof answer);
        } while (answer.type != ICMP_ECHOREPLY || answer.un.echo.id != htons(77 + i));
    }
    close(fd);
}

static void interfaces(void) {
    struct ifaddrs *all;
    int found = 0;
    CHECK(getifaddrs(&all) == 0);
    for (struct ifaddrs *entry = all; entry; entry = entry->ifa_next)
        if (entry->ifa_addr && entry->ifa_addr->sa_family == AF_INET)
            found += is_ip(*(struct sockaddr_in *)entry->ifa_addr, own_ip);
    freeifaddrs(all);
    CHECK_INT(found, 1);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq request = {.ifr_name = "eth0"}, list[16];
    CHECK(ioctl(fd, SIOCGIFADDR, &request) == 0);
    CHECK(is_ip(*(struct sockaddr_in *)&request.ifr_addr, own_ip));
    CHECK(if_nametoindex("eth0") > 1);
    CHECK_INT(if_nametoindex("eth7"), 0);
    struct ifconf both = {.ifc_len = sizeof list, .ifc_req = list};
    CHECK(ioctl(fd, SIOCGIFCONF, &both) == 0);
    CHECK_INT(both.ifc_len, 2 * sizeof *list);
    both.ifc_req = NULL;
    CHECK(ioctl(fd, SIOCGIFCONF, &both) == 0);
    CHECK_INT(both.ifc_len, 2 * sizeof *list);
    close(fd);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    own_ip = argv[1];
    peer_ip = argv[2];
    alarm(100);
    GROUP(streams);
    GROUP(refused_and_unreachable);
    GROUP(without_waiting);
    GROUP(much);
    GROUP(resets);
    GROUP(is_called);
    GROUP(many_at_once);
    GROUP(waits_end);
    GROUP(options);
    GROUP(version_6);
    GROUP(fast_open);
    GROUP(datagrams);
    GROUP(packet_information);
    GROUP(raw_packets);
    GROUP(interfaces);
    return finish();
}
