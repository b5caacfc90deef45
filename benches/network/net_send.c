// A stream is sent, 64 KiB a write, until its end has arrived: what 64 KiB take.
#include "net.h"

int main(int argc, char **argv) {
    static char bytes[KIB_64];
    uint64_t answer[2];
    must(argc > 1, "arguments");
    int fd = reach(argv[1], SOCK_STREAM, SINK);
    int64_t start = now();
    for (int i = 0; i < 4000; i++) must(write(fd, bytes, sizeof bytes) == sizeof bytes, "write");
    must(shutdown(fd, SHUT_WR) == 0, "shutdown");
    must(recv(fd, answer, sizeof answer, MSG_WAITALL) == sizeof answer && answer[0] == 4000ull * KIB_64, "answer");
    report(start, 4000, 4000);
    return 0;
}
