// A store to a fresh page of its own area, mapped beforehand: one fault each.
#include "bench.h"

#define AREAS 512

int main(void) {
    static char *areas[AREAS];
    for (int i = 0; i < AREAS; i++) {
        // Neighbours with other rights, so that each fault can only help itself.
        areas[i] = mmap(NULL, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        must(areas[i] != MAP_FAILED && mprotect(areas[i], 4096, PROT_READ | PROT_WRITE) == 0, "mmap");
    }
    int64_t start = now();
    for (int i = 0; i < AREAS; i++) *(volatile char *)areas[i] = 1;
    report(start, AREAS, AREAS);
    return 0;
}
