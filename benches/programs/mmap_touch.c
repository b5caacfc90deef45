// mmap of 64 KiB, a store to its first page, munmap.
#include "bench.h"

int main(void) {
    MEASURE(5000, {
        char *p = mmap(NULL, 64 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        must(p != MAP_FAILED, "mmap");
        *(volatile char *)p = 1;
        must(munmap(p, 64 << 10) == 0, "munmap");
    });
    return 0;
}
