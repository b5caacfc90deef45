// 64 bytes there and back on each of 20 streams, whichever is ready: a message's share.
#include "net.h"
#include <sys/epoll.h>

enum { STREAMS = 20 };

int main(int argc, char **argv) {
    char bytes[64] = {0};
    must(argc > 1, "arguments");
    int epoll = epoll_create1(0);
    for (int i = 0; i < STREAMS; i++) {
        int fd = reach(argv[1], SOCK_STREAM, ECHO_PORT);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        must(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
        must(write(fd, bytes, 64) == 64, "write");
    }
    long done = 0, warm = 4000, all = 44000;
    for (int64_t start = 0; done < all;) {
        struct epoll_event events[STREAMS];
        int count = epoll_wait(epoll, events, STREAMS, -1);
        must(count > 0, "epoll_wait");
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            must(recv(fd, bytes, 64, MSG_WAITALL) == 64, "recv");
            must(write(fd, bytes, 64) == 64, "write");
            if (++done == warm) start = now();
            if (done == all) report(start, all - warm, all);
        }
    }
    return 0;
}
