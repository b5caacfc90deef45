// Copy a file of 8 MiB with a buffer of 1 KiB; an operation is one read and one write.
#include "bench.h"

enum { BLOCK = 1024, BLOCKS = 8192 };

int main(void) {
    static char block[BLOCK];
    int from = open("/tmp/from", O_CREAT | O_RDWR | O_TRUNC, 0644);
    must(from >= 0, "open");
    for (int i = 0; i < BLOCKS; i++)
        must(write(from, block, BLOCK) == BLOCK, "write");
    int64_t start = 0;
    for (int round = 0; round < 5; round++) {
        // The first warms up.
        if (round == 1)
            start = now();
        must(lseek(from, 0, SEEK_SET) == 0, "lseek");
        int to = open("/tmp/to", O_CREAT | O_WRONLY | O_TRUNC, 0644);
        must(to >= 0, "open");
        for (int i = 0; i < BLOCKS; i++) {
            must(read(from, block, BLOCK) == BLOCK, "read");
            must(write(to, block, BLOCK) == BLOCK, "write");
        }
        must(close(to) == 0, "close");
    }
    report(start, 4l * BLOCKS, 5l * BLOCKS);
    unlink("/tmp/from");
    return unlink("/tmp/to");
}
