// Write a file of 1 GiB, 1 MiB at a time; an operation is one of these.
#include "bench.h"

enum { BLOCK = 1 << 20, BLOCKS = 1024 };

int main(void) {
    static char block[BLOCK];
    memset(block, 7, BLOCK);
    int file = open("/tmp/write", O_CREAT | O_WRONLY | O_TRUNC, 0644);
    must(file >= 0, "open");
    int64_t start = now();
    for (int i = 0; i < BLOCKS; i++)
        must(write(file, block, BLOCK) == BLOCK, "write");
    must(close(file) == 0, "close");
    report(start, BLOCKS, BLOCKS);
    return unlink("/tmp/write");
}
