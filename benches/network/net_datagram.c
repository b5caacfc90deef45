// 64 bytes there and back in datagrams.
#include "net.h"

int main(int argc, char **argv) {
    char bytes[64] = {0};
    must(argc > 1, "arguments");
    int fd = reach(argv[1], SOCK_DGRAM, DATAGRAMS);
    MEASURE(5000, must(write(fd, bytes, 64) == 64 && read(fd, bytes, 64) == 64, "echo"));
    return 0;
}
