// A stream is received, 64 KiB a read: what 64 KiB take.
#include "net.h"

int main(int argc, char **argv) {
    static char bytes[KIB_64];
    must(argc > 1, "arguments");
    int fd = reach(argv[1], SOCK_STREAM, SOURCE);
    uint64_t total = 4000ull * KIB_64, got = 0;
    must(write(fd, &total, sizeof total) == sizeof total, "write");
    int64_t start = now();
    for (ssize_t step; (step = read(fd, bytes, sizeof bytes)) > 0;) got += step;
    must(got == total, "read");
    report(start, 4000, 4000);
    return 0;
}
