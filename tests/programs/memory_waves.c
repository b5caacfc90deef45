// Touches 1.5 GiB, gives them up, and sleeps: the guest's memory grows beyond what it starts with, and shrinks.
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void) {
    size_t bytes = (size_t)3 << 29;
    volatile char *all = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    for (size_t at = 0; at < bytes; at += 4096) {
        if (all[at] != 0) {
            puts("not zero");
            return 1;
        }
        all[at] = (char)(at >> 12);
    }
    for (size_t at = 0; at < bytes; at += 4096) {
        if (all[at] != (char)(at >> 12)) {
            printf("page %zu has changed\n", at >> 12);
            return 1;
        }
    }
    munmap((void *)all, bytes);
    for (int i = 0; i < 3; i++)
        usleep(20000);
    puts("done");
    return 0;
}
