// Read a file of 1 GiB that is in the page cache, 1 MiB at a time; an operation is one of these.
#include "bench.h"

enum { BLOCK = 1 << 20, BLOCKS = 1024 };

int main(void) {
    static char block[BLOCK];
    int file = open("/tmp/read", O_CREAT | O_RDWR | O_TRUNC, 0644);
    must(file >= 0, "open");
    for (int i = 0; i < BLOCKS; i++)
        must(write(file, block, BLOCK) == BLOCK, "write");
    must(lseek(file, 0, SEEK_SET) == 0, "lseek");
    int64_t start = now();
    for (int i = 0; i < BLOCKS; i++)
        must(read(file, block, BLOCK) == BLOCK, "read");
    report(start, BLOCKS, BLOCKS);
    return unlink("/tmp/read");
}
