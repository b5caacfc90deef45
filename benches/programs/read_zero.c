// Read one byte of /dev/zero.
#include "bench.h"

int main(void) {
    int zero = open("/dev/zero", O_RDONLY);
    char byte;
    must(zero >= 0, "/dev/zero");
    MEASURE(500000, must(read(zero, &byte, 1) == 1, "read"));
    return 0;
}
