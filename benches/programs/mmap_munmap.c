// mmap of 64 KiB that nobody touches, munmap.
#include "bench.h"

int main(void) {
    MEASURE(20000, {
        char *p = mmap(NULL, 64 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        must(p != MAP_FAILED && munmap(p, 64 << 10) == 0, "mmap");
    });
    return 0;
}
