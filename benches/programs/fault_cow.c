// Stores by a child to pages it shares with its large parent since the fork, for each page.
#include "bench.h"

#define PAGES 8192ul
#define TOUCHED 512ul

int main(void) {
    char *memory = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(memory != MAP_FAILED, "mmap");
    must(madvise(memory, PAGES * 4096, MADV_NOHUGEPAGE) == 0, "madvise");
    memset(memory, 1, PAGES * 4096);
    int pipes[2];
    must(pipe(pipes) == 0, "pipe");
    pid_t pid = fork();
    must(pid >= 0, "fork");
    if (pid == 0) {
        int64_t start = now();
        for (unsigned long page = 0; page < TOUCHED; page++) *(volatile char *)(memory + page * 4096) = 2;
        report(start, TOUCHED, TOUCHED);
        fflush(stdout);
        _exit(0);
    }
    int status;
    must(waitpid(pid, &status, 0) == pid && status == 0, "waitpid");
    return 0;
}
