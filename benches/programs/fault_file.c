// Reads of each page of a private file mapping of 16 MiB, for each page.
#include "bench.h"

#define SIZE (16ul << 20)

int main(void) {
    int fd = memfd_create("file", 0);
    must(fd >= 0 && ftruncate(fd, SIZE) == 0, "memfd");
    char block[1 << 16];
    memset(block, 1, sizeof block);
    for (unsigned long at = 0; at < SIZE; at += sizeof block) must(write(fd, block, sizeof block) > 0, "write");
    char *memory = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
    must(memory != MAP_FAILED, "mmap");
    int64_t start = now();
    for (unsigned long at = 0; at < SIZE; at += 4096) (void)*(volatile char *)(memory + at);
    report(start, SIZE / 4096, SIZE / 4096);
    return 0;
}
