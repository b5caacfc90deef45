// What tar does to unpack 10,000 files of 2 KiB in 100 directories; an operation is one of them.
#include "bench.h"
#include <sys/stat.h>

enum { DIRECTORIES = 100, FILES = 100 };

int main(void) {
    static char block[2048];
    static const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000000000}};
    char path[100];
    must(mkdir("/tmp/untar", 0755) == 0, "mkdir");
    int64_t start = now();
    for (int i = 0; i < DIRECTORIES; i++) {
        sprintf(path, "/tmp/untar/%d", i);
        must(mkdir(path, 0700) == 0, path);
        for (int j = 0; j < FILES; j++) {
            sprintf(path, "/tmp/untar/%d/%d", i, j);
            int file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
            must(file >= 0, path);
            must(write(file, block, sizeof block) == sizeof block, "write");
            must(futimens(file, times) == 0, "futimens");
            must(fchown(file, 0, 0) == 0, "fchown");
            must(fchmod(file, 0644) == 0, "fchmod");
            must(close(file) == 0, "close");
        }
    }
    report(start, (long)DIRECTORIES * FILES, (long)DIRECTORIES * FILES);
    return 0;
}
