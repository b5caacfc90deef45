// UDP over the loopback, the interface's ioctls, netlink, and families there are not.
#include "check.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

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
#define SENDTO(fd, bytes, len, address) sendto(fd, bytes, len, 0, (void *)&address, sizeof address)

static int port_of(int fd) {
    struct sockaddr_in6 address;
    socklen_t len = sizeof address;
    getsockname(fd, (void *)&address, &len);
    return ntohs(address.sin6_port);
}

static short ready(int fd) {
    struct pollfd entry = {.fd = fd, .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP};
    poll(&entry, 1, 0);
    return entry.revents;
}

static short awaits(int fd, short events) {
    struct pollfd entry = {.fd = fd, .events = events};
    poll(&entry, 1, 5000);
    return entry.revents;
}

static int bound(int *port) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in any = at("127.0.0.1", 0);
    CHECK(BIND(fd, any) == 0);
    *port = port_of(fd);
    return fd;
}

static void datagrams(void) {
    int port, server = bound(&port), client = socket(AF_INET, SOCK_DGRAM, 0);
    char buf[64] = {0};
    struct sockaddr_in to = at("127.0.0.1", port), from, far = at("10.1.2.3", 53), zero = at("127.0.0.1", 0);
    CHECK_INT(ready(client), POLLOUT);
    CHECK_ERRNO(send(client, "x", 1, 0), EDESTADDRREQ);
    CHECK_ERRNO(SENDTO(client, "x", 1, far), ENETUNREACH);
    CHECK_ERRNO(SENDTO(client, "x", 1, zero), EINVAL);
    CHECK_ERRNO(sendto(client, "x", 1, 0, (void *)&to, 15), EINVAL);
    struct sockaddr_in wrong = to;
    wrong.sin_family = AF_UNIX;
    CHECK_ERRNO(SENDTO(client, "x", 1, wrong), EAFNOSUPPORT);
    struct sockaddr_in broadcast = at("255.255.255.255", 9);
    CHECK_ERRNO(SENDTO(client, "x", 1, broadcast), ENETUNREACH);
    CHECK_INT(SENDTO(client, "hello", 5, to), 5);
    CHECK(port_of(client) >= 32768);
    awaits(server, POLLIN);
    socklen_t len = sizeof from;
    CHECK_INT(recvfrom(server, buf, 2, MSG_PEEK, (void *)&from, &len), 2);
    CHECK_INT(ntohs(from.sin_port), port_of(client));
    CHECK_INT(recv(server, buf, 2, MSG_TRUNC | MSG_PEEK), 5);
    CHECK_INT(recv(server, buf, 64, 0), 5);
    CHECK_ERRNO(recv(server, buf, 64, MSG_DONTWAIT), EAGAIN);
    CHECK_INT(SENDTO(server, "back", 4, from), 4);
    awaits(client, POLLIN);
    struct iovec piece = {buf, 2};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_name = &from, .msg_namelen = sizeof from};
    CHECK_INT(recvmsg(client, &message, 0), 2);
    CHECK_INT(message.msg_flags, MSG_TRUNC);
    CHECK_INT(message.msg_namelen, sizeof from);
    CHECK_INT(ntohs(from.sin_port), port);
    // Empty ones count.
    CHECK_INT(SENDTO(client, "", 0, to), 0);
    CHECK_INT(awaits(server, POLLIN), POLLIN);
    int count = -1;
    CHECK(ioctl(server, FIONREAD, &count) == 0 && count == 0);
    CHECK_INT(recv(server, buf, 64, 0), 0);
    // Sizes.
    char *big = calloc(1, 70000);
    CHECK_ERRNO(SENDTO(client, big, 65508, to), EMSGSIZE);
    CHECK_ERRNO(SENDTO(client, big, 70000, to), EMSGSIZE);
    CHECK_INT(SENDTO(client, big, 65507, to), 65507);
    awaits(server, POLLIN);
    CHECK_INT(recv(server, big, 70000, 0), 65507);
    free(big);
    close(server);
    // Nobody there: only who is connected hears of it.
    CHECK_INT(SENDTO(client, "x", 1, to), 1);
    CHECK_ERRNO(recv(client, buf, 64, MSG_DONTWAIT), EAGAIN);
    CHECK(CONNECT(client, to) == 0);
    CHECK_INT(send(client, "x", 1, 0), 1);
    CHECK_INT(awaits(client, POLLIN), POLLERR);
    CHECK_ERRNO(recv(client, buf, 64, 0), ECONNREFUSED);
    CHECK_INT(send(client, "x", 1, 0), 1);
    usleep(1000);
    CHECK_ERRNO(send(client, "x", 1, 0), ECONNREFUSED);
    close(client);
}

static void connected(void) {
    int port, server = bound(&port), client = socket(AF_INET, SOCK_DGRAM, 0), third = socket(AF_INET, SOCK_DGRAM, 0);
    char buf[64];
    struct sockaddr_in to = at("127.0.0.1", port), name, own;
    socklen_t len = sizeof name;
    CHECK_ERRNO(getpeername(client, (void *)&name, &len), ENOTCONN);
    CHECK_ERRNO(shutdown(client, SHUT_RD), ENOTCONN);
    CHECK(CONNECT(client, to) == 0);
    CHECK(getsockname(client, (void *)&own, &len) == 0);
    CHECK(ntohl(own.sin_addr.s_addr) == INADDR_LOOPBACK);
    CHECK(getpeername(client, (void *)&name, &len) == 0);
    CHECK_INT(ntohs(name.sin_port), port);
    // It hears its peer only.
    CHECK_INT(SENDTO(third, "no", 2, own), 2);
    CHECK_INT(SENDTO(server, "yes", 3, own), 3);
    awaits(client, POLLIN);
    CHECK_INT(read(client, buf, 64), 3);
    CHECK_ERRNO(recv(client, buf, 64, MSG_DONTWAIT), EAGAIN);
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    CHECK(connect(client, &none, sizeof none) == 0);
    CHECK_ERRNO(getpeername(client, (void *)&name, &len), ENOTCONN);
    CHECK_ERRNO(send(client, "x", 1, 0), EDESTADDRREQ);
    CHECK(CONNECT(client, to) == 0);
    CHECK(shutdown(client, SHUT_RD) == 0);
    CHECK_INT(ready(client), POLLIN | POLLOUT | POLLRDHUP);
    CHECK_INT(read(client, buf, 64), 0);
    CHECK(shutdown(client, SHUT_WR) == 0);
    CHECK_ERRNO(send(client, "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_INT(ready(client), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
    close(client);
    close(server);
    close(third);
    // Sharing.
    server = bound(&port);
    to = at("127.0.0.1", port);
    client = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK_ERRNO(BIND(client, to), EADDRINUSE);
    int on = 1;
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(client, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    CHECK(BIND(client, to) == 0);
    close(client);
    close(server);
    // Where it was sent to.
    server = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in any = at("0.0.0.0", 0);
    CHECK(BIND(server, any) == 0);
    CHECK(setsockopt(server, IPPROTO_IP, IP_PKTINFO, &on, sizeof on) == 0);
    to = at("127.0.0.7", port_of(server));
    client = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK_INT(SENDTO(client, "x", 1, to), 1);
    char control[64], text[64];
    struct iovec piece = {buf, 64};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK_INT(recvmsg(server, &message, 0), 1);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    CHECK(header && header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_PKTINFO);
    struct in_pktinfo info;
    memcpy(&info, CMSG_DATA(header), sizeof info);
    printf("sent to %s at %d\n", inet_ntop(AF_INET, &info.ipi_addr, text, sizeof text), info.ipi_ifindex);
    close(client);
    close(server);
}

static void version6(void) {
    int server = socket(AF_INET6, SOCK_DGRAM, 0), client = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in6 any = at6("::", 0), from;
    CHECK(BIND(server, any) == 0);
    struct sockaddr_in to = at("127.0.0.1", port_of(server));
    CHECK_INT(SENDTO(client, "four", 4, to), 4);
    char buf[64], text[64];
    socklen_t len = sizeof from;
    CHECK_INT(recvfrom(server, buf, 64, 0, (void *)&from, &len), 4);
    CHECK_INT(len, sizeof from);
    printf("from %s\n", inet_ntop(AF_INET6, &from.sin6_addr, text, sizeof text));
    CHECK_INT(sendto(server, "answer", 6, 0, (void *)&from, len), 6);
    CHECK_INT(recv(client, buf, 64, 0), 6);
    close(client);
    client = socket(AF_INET6, SOCK_DGRAM, 0);
    struct sockaddr_in6 to6 = at6("::1", port_of(server)), far = at6("2001:db8::1", 53);
    CHECK_INT(SENDTO(client, "six", 3, to6), 3);
    CHECK_INT(recvfrom(server, buf, 64, 0, (void *)&from, &len), 3);
    printf("from %s\n", inet_ntop(AF_INET6, &from.sin6_addr, text, sizeof text));
    CHECK_ERRNO(SENDTO(client, "x", 1, far), ENETUNREACH);
    close(client);
    close(server);
}

static void interfaces(void) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq request;
    static const unsigned long asked[] = {SIOCGIFFLAGS, SIOCGIFADDR, SIOCGIFNETMASK, SIOCGIFBRDADDR, SIOCGIFDSTADDR,
                                          SIOCGIFMTU, SIOCGIFHWADDR, SIOCGIFINDEX, SIOCGIFMETRIC, SIOCGIFTXQLEN};
    for (unsigned i = 0; i < sizeof asked / sizeof *asked; i++) {
        memset(&request, 0, sizeof request);
        strcpy(request.ifr_name, "lo");
        int result = ioctl(fd, asked[i], &request);
        printf("%lx: %d", asked[i], result);
        int bytes = asked[i] == SIOCGIFFLAGS ? 2 : asked[i] == SIOCGIFHWADDR || (asked[i] >= 0x8915 && asked[i] <= 0x891b) ? 8 : 4;
        for (int byte = 0; byte < bytes; byte++) printf(" %02x", ((unsigned char *)&request)[16 + byte]);
        printf("\n");
        strcpy(request.ifr_name, "nope");
        CHECK_ERRNO(ioctl(fd, asked[i], &request), ENODEV);
    }
    struct ifreq list[4];
    struct ifconf conf = {.ifc_len = sizeof list, .ifc_req = list};
    CHECK(ioctl(fd, SIOCGIFCONF, &conf) == 0);
    CHECK_INT(conf.ifc_len, sizeof *list);
    CHECK(strcmp(list[0].ifr_name, "lo") == 0);
    conf.ifc_req = NULL;
    CHECK(ioctl(fd, SIOCGIFCONF, &conf) == 0 && conf.ifc_len == sizeof *list);
    request.ifr_ifindex = 1;
    CHECK(ioctl(fd, SIOCGIFNAME, &request) == 0 && strcmp(request.ifr_name, "lo") == 0);
    request.ifr_ifindex = 7;
    CHECK_ERRNO(ioctl(fd, SIOCGIFNAME, &request), ENODEV);
    strcpy(request.ifr_name, "lo");
    CHECK_ERRNO(ioctl(fd, SIOCSIFFLAGS, &request), EPERM);
    CHECK_INT(if_nametoindex("lo"), 1);
    CHECK_INT(if_nametoindex("eth0"), 0);
    close(fd);
    struct ifaddrs *all;
    CHECK(getifaddrs(&all) == 0);
    for (struct ifaddrs *one = all; one; one = one->ifa_next) {
        char text[64] = "";
        if (one->ifa_addr && one->ifa_addr->sa_family == AF_INET)
            inet_ntop(AF_INET, &((struct sockaddr_in *)one->ifa_addr)->sin_addr, text, sizeof text);
        if (one->ifa_addr && one->ifa_addr->sa_family == AF_INET6)
            inet_ntop(AF_INET6, &((struct sockaddr_in6 *)one->ifa_addr)->sin6_addr, text, sizeof text);
        printf("%s %x %d %s\n", one->ifa_name, one->ifa_flags, one->ifa_addr ? one->ifa_addr->sa_family : -1, text);
    }
    freeifaddrs(all);
}

static int ask(int fd, int type, int flags, const void *body, size_t len) {
    char bytes[256] = {0};
    struct nlmsghdr *header = (void *)bytes;
    *header = (struct nlmsghdr){NLMSG_LENGTH(len), type, NLM_F_REQUEST | flags, 5, 0};
    memcpy(NLMSG_DATA(header), body, len);
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    return sendto(fd, bytes, NLMSG_LENGTH(len), 0, (void *)&kernel, sizeof kernel);
}

/* The type of the answer, or minus the error it brings. */
static int answer(int fd) {
    char bytes[32768];
    struct nlmsghdr *header = (void *)bytes;
    ssize_t len = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (len < (ssize_t)sizeof *header) return -10000 - errno;
    CHECK_INT(header->nlmsg_seq, 5);
    if (header->nlmsg_type == NLMSG_ERROR) return ((struct nlmsgerr *)NLMSG_DATA(header))->error;
    return header->nlmsg_type;
}

static void netlink(void) {
    CHECK_ERRNO(socket(AF_NETLINK, SOCK_STREAM, 0), ESOCKTNOSUPPORT);
    CHECK_ERRNO(socket(AF_NETLINK, SOCK_RAW, 32), EPROTONOSUPPORT);
    CHECK_ERRNO(socket(AF_NETLINK, SOCK_RAW, -1), EPROTONOSUPPORT);
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), second;
    struct sockaddr_nl name = {.nl_family = AF_NETLINK};
    CHECK(BIND(fd, name) == 0);
    socklen_t len = sizeof name;
    CHECK(getsockname(fd, (void *)&name, &len) == 0);
    CHECK_INT(len, sizeof name);
    CHECK_INT(name.nl_pid, getpid());
    CHECK_INT(name.nl_family, AF_NETLINK);
    second = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_ROUTE);
    CHECK_ERRNO(BIND(second, name), EADDRINUSE);
    name.nl_pid = 0;
    CHECK(BIND(second, name) == 0);
    CHECK(getsockname(second, (void *)&name, &len) == 0);
    CHECK(name.nl_pid != 0 && (int)name.nl_pid != getpid());
    close(second);
    struct ifinfomsg link = {0};
    CHECK_INT(ask(fd, RTM_GETLINK, NLM_F_DUMP, &link, sizeof link), 32);
    CHECK_INT(answer(fd), RTM_NEWLINK);
    CHECK_INT(answer(fd), NLMSG_DONE);
    CHECK_INT(answer(fd), -10000 - EAGAIN);
    link.ifi_index = 1;
    ask(fd, RTM_GETLINK, 0, &link, sizeof link);
    CHECK_INT(answer(fd), RTM_NEWLINK);
    CHECK_INT(answer(fd), -10000 - EAGAIN);
    link.ifi_index = 77;
    ask(fd, RTM_GETLINK, 0, &link, sizeof link);
    CHECK_INT(answer(fd), -ENODEV);
    link.ifi_index = 0;
    ask(fd, RTM_GETLINK, 0, &link, sizeof link);
    CHECK_INT(answer(fd), -EINVAL);
    link.ifi_index = 1;
    ask(fd, RTM_SETLINK, NLM_F_ACK, &link, sizeof link);
    CHECK_INT(answer(fd), -EPERM);
    struct ifaddrmsg address = {0};
    ask(fd, RTM_GETADDR, NLM_F_DUMP, &address, sizeof address);
    CHECK_INT(answer(fd), RTM_NEWADDR);
    ask(fd, RTM_NEWADDR, NLM_F_ACK, &address, sizeof address);
    struct sockaddr_nl other = {.nl_family = AF_NETLINK, .nl_pid = 99999};
    CHECK_ERRNO(sendto(fd, "x", 1, 0, (void *)&other, sizeof other), EPERM);
    close(fd);
}

static void audit(void) {
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT);
    printf("audit: %s\n", fd >= 0 ? "a socket" : strerror(errno));
    if (fd < 0) return;
    // As libaudit asks for the status, and as PAM reports.
    char text[] = "op=PAM:test";
    CHECK(ask(fd, 1000, NLM_F_ACK, text, 0) > 0);
    printf("status: %d\n", answer(fd));
    CHECK(ask(fd, 1100, NLM_F_ACK, text, sizeof text) > 0);
    printf("user message: %d\n", answer(fd));
    printf("more: %d\n", answer(fd));
    close(fd);
}

static void absent(void) {
    static const int families[] = {AF_AX25, AF_IPX, AF_APPLETALK, AF_X25, AF_KEY, AF_PACKET, AF_RDS, AF_CAN, AF_TIPC,
                                   AF_BLUETOOTH, AF_ALG, AF_NFC, AF_VSOCK, AF_XDP};
    for (unsigned i = 0; i < sizeof families / sizeof *families; i++) {
        int fd = socket(families[i], SOCK_DGRAM, 0);
        if (fd < 0 && (errno == EAFNOSUPPORT || errno == ESOCKTNOSUPPORT || errno == EPROTONOSUPPORT)) continue;
        // What the host's kernel has is no business of the test.
        close(fd);
    }
    CHECK_ERRNO(socket(45, SOCK_DGRAM, 0), EAFNOSUPPORT);
    CHECK_ERRNO(socket(AF_APPLETALK, SOCK_DGRAM, 0), EAFNOSUPPORT);
    CHECK_ERRNO(socket(AF_DECnet, 99, 0), EINVAL);
}

static void proc_files(void) {
    static const char *names[] = {"tcp", "tcp6", "udp", "udp6", "route", "arp", "if_inet6"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64], line[300];
        snprintf(path, sizeof path, "/proc/net/%s", names[i]);
        FILE *file = fopen(path, "r");
        CHECK(file != NULL);
        if (!file) continue;
        while (fgets(line, sizeof line, file)) printf("%s: %s", names[i], line);
        fclose(file);
    }
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in low = at("127.0.0.1", 77);
    CHECK(BIND(fd, low) == 0);
    CHECK(listen(fd, 5) == 0);
    FILE *file = fopen("/proc/net/tcp", "r");
    char line[300], local[64], remote[64];
    int state, shown = 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "%*d: %63s %63s %x", local, remote, &state) == 3) {
            printf("%s %s %x %zu\n", local, remote, state, strlen(line));
            shown++;
        }
    CHECK_INT(shown, 1);
    fclose(file);
    close(fd);
}

int main(void) {
    GROUP(datagrams);
    GROUP(connected);
    GROUP(version6);
    GROUP(interfaces);
    GROUP(netlink);
    GROUP(audit);
    GROUP(absent);
    GROUP(proc_files);
    return finish();
}
