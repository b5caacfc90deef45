/* A peer outside, tests/programs/net_peer.c, at the address that the first argument names. */
#pragma once
#include "../programs/bench.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

enum { ECHO_PORT = 7001, SOURCE, SINK, DATAGRAMS = 7101, KIB_64 = 65536 };

static inline int reach(const char *ip, int kind, int port) {
    int fd = socket(AF_INET, kind, 0), on = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    must(inet_pton(AF_INET, ip, &to.sin_addr) == 1, "address");
    must(connect(fd, (void *)&to, sizeof to) == 0, "connect");
    if (kind == SOCK_STREAM) must(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0, "TCP_NODELAY");
    return fd;
}
