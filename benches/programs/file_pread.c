// Read 4 KiB of a file of 16 MiB, here and there.
#include "bench.h"

enum { BYTES = 16 << 20, BLOCK = 4096 };

int main(void) {
    static char block[BLOCK];
    int file = open("/tmp/pread", O_CREAT | O_RDWR | O_TRUNC, 0644);
    must(file >= 0, "open");
    for (long at = 0; at < BYTES; at += BLOCK)
        must(pwrite(file, block, BLOCK, at) == BLOCK, "pwrite");
    // A step without a common divisor reaches every block.
    long block_at = 0;
    for (long i = 0; i < BYTES / BLOCK; i++, block_at = (block_at + 1009) % (BYTES / BLOCK))
        must(pread(file, block, BLOCK, block_at * BLOCK) == BLOCK, "pread");
    MEASURE(200000, (block_at = (block_at + 1009) % (BYTES / BLOCK),
                     must(pread(file, block, BLOCK, block_at * BLOCK) == BLOCK, "pread")));
    return unlink("/tmp/pread");
}
