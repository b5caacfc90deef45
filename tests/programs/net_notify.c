// Changes of the network are told to who wants to hear of them (rtnetlink(7)): an address that the test gives and takes again and again.
#include "check.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <sys/socket.h>

static const char *expected;

/* Waits until `kind` is told of the expected address, in the call that receives or in poll(2). */
static void hear(int fd, int kind, int waits) {
    static char buffer[32768];
    for (;;) {
        if (!waits) {
            struct pollfd entry = {.fd = fd, .events = POLLIN};
            CHECK(poll(&entry, 1, 60000) == 1 && entry.revents & POLLIN);
        }
        struct sockaddr_nl from;
        socklen_t size = sizeof from;
        ssize_t len = recvfrom(fd, buffer, sizeof buffer, waits ? 0 : MSG_DONTWAIT, (void *)&from, &size);
        CHECK(len > 0);
        if (len <= 0) return;
        CHECK_INT(size, sizeof from);
        CHECK_INT(from.nl_pid, 0);
        CHECK_INT(from.nl_groups, RTMGRP_IPV4_IFADDR);
        for (struct nlmsghdr *head = (void *)buffer; NLMSG_OK(head, len); head = NLMSG_NEXT(head, len)) {
            CHECK(head->nlmsg_type == RTM_NEWADDR || head->nlmsg_type == RTM_DELADDR);
            struct ifaddrmsg *message = NLMSG_DATA(head);
            int left = IFA_PAYLOAD(head);
            for (struct rtattr *at = IFA_RTA(message); RTA_OK(at, left); at = RTA_NEXT(at, left)) {
                char text[64] = "";
                if (at->rta_type != IFA_LOCAL) continue;
                inet_ntop(AF_INET, RTA_DATA(at), text, sizeof text);
                if (!strcmp(text, expected) && head->nlmsg_type == kind) return;
            }
        }
    }
}

static void by_address(void) {
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct sockaddr_nl own = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_IPV4_IFADDR};
    socklen_t len = sizeof own;
    CHECK(bind(fd, (void *)&own, sizeof own) == 0);
    CHECK(getsockname(fd, (void *)&own, &len) == 0);
    CHECK_INT(own.nl_groups, RTMGRP_IPV4_IFADDR);
    for (int i = 0; i < 3; i++) {
        hear(fd, RTM_NEWADDR, i % 2);
        hear(fd, RTM_DELADDR, i % 2);
    }
    // Out of the group again: what was told before may still be there.
    own.nl_groups = 0;
    CHECK(bind(fd, (void *)&own, sizeof own) == 0);
    CHECK(getsockname(fd, (void *)&own, &len) == 0);
    CHECK_INT(own.nl_groups, 0);
    close(fd);
}

static void by_option(void) {
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct sockaddr_nl own = {.nl_family = AF_NETLINK};
    socklen_t len = sizeof own;
    int group = RTNLGRP_IPV4_IFADDR, none = 0;
    CHECK(bind(fd, (void *)&own, sizeof own) == 0);
    CHECK_ERRNO(setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &none, sizeof none), EINVAL);
    CHECK(setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) == 0);
    CHECK(getsockname(fd, (void *)&own, &len) == 0);
    CHECK_INT(own.nl_groups, RTMGRP_IPV4_IFADDR);
    hear(fd, RTM_NEWADDR, 1);
    hear(fd, RTM_DELADDR, 0);
    CHECK(setsockopt(fd, SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, &group, sizeof group) == 0);
    CHECK(getsockname(fd, (void *)&own, &len) == 0);
    CHECK_INT(own.nl_groups, 0);
    close(fd);
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    expected = argv[1];
    GROUP(by_address);
    GROUP(by_option);
    return finish();
}
