// First touch of 256 MiB, for each page of 4 KiB.
#include "bench.h"

#define SIZE (256ul << 20)

int main(void) {
    char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(memory != MAP_FAILED, "mmap");
    int64_t start = now();
    for (unsigned long i = 0; i < SIZE; i += 4096) *(volatile char *)(memory + i) = 1;
    report(start, SIZE / 4096, SIZE / 4096);
    return 0;
}
