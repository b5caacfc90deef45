// 64 bytes there and back on a stream.
#include "net.h"

int main(int argc, char **argv) {
    char bytes[64] = {0};
    must(argc > 1, "arguments");
    int fd = reach(argv[1], SOCK_STREAM, ECHO_PORT);
    MEASURE(5000, must(write(fd, bytes, 64) == 64 && recv(fd, bytes, 64, MSG_WAITALL) == 64, "echo"));
    return 0;
}
