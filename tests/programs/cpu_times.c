// Own work is user time, fork and exec are system time, and both together are the CPU time; the same for children.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/times.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double cpu(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double seconds(struct timeval time) {
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static void check(const char *what, int good) {
    printf("%s: %s\n", what, good ? "yes" : "no");
}

static void touch(size_t bytes) {
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t at = 0; at < bytes; at += 4096)
        memory[at] = 1;
}

int main(int argc, char **argv) {
    if (argc > 1) {
        // The last child's page faults take some ticks.
        if (strcmp(argv[1], "last") == 0)
            touch((size_t)256 << 20);
        return 0;
    }
    struct rusage before, after;
    double end = cpu() + 0.3;
    while (cpu() < end)
        for (volatile int i = 0; i < 10000; i++)
            ;
    getrusage(RUSAGE_SELF, &before);
    check("a loop is user time", seconds(before.ru_utime) > 0.1);

    for (int i = 0; i < 50; i++) {
        pid_t child = fork();
        if (child == 0) {
            execl(argv[0], argv[0], i == 49 ? "last" : "child", (char *)NULL);
            _exit(1);
        }
        int status;
        if (waitpid(child, &status, 0) != child || status != 0) {
            puts("a child failed");
            return 1;
        }
    }
    touch((size_t)256 << 20);
    getrusage(RUSAGE_SELF, &after);
    check("forks and page faults are system time", seconds(after.ru_stime) > seconds(before.ru_stime));
    double sum = seconds(after.ru_utime) + seconds(after.ru_stime), all = cpu();
    check("user and system time are the CPU time", sum > 0.7 * all && sum < 1.05 * all + 0.02);

    struct rusage children;
    getrusage(RUSAGE_CHILDREN, &children);
    check("children's page faults are system time", seconds(children.ru_stime) > 0);

    struct tms ticks;
    times(&ticks);
    long tick = sysconf(_SC_CLK_TCK);
    double user = (double)ticks.tms_utime / (double)tick;
    check("times(2) agrees", user > seconds(before.ru_utime) - 0.05);
    unsigned long utime = 0, stime = 0;
    FILE *stat = fopen("/proc/self/stat", "r");
    char line[1024] = "";
    if (stat && fgets(line, sizeof line, stat))
        sscanf(strrchr(line, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &utime, &stime);
    check("/proc/self/stat agrees", (double)utime / (double)tick > seconds(before.ru_utime) - 0.05);
    return 0;
}
