/* A file of a volume, mapped shared, while the host changes it. argv[1] is a file of three pages. Each step waits for
 * a line on standard input, so that the host can do its part. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static sigjmp_buf back;
static volatile int code;

static void on_bus(int signo, siginfo_t *info, void *context) {
    (void)signo;
    (void)context;
    code = info->si_code;
    siglongjmp(back, 1);
}

static void step(const char *what) {
    char line[64];
    puts(what);
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) {
        exit(9);
    }
}

int main(int argc, char **argv) {
    struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
    int fd = open(argv[argc - 1], O_RDWR);
    if (fd < 0) {
        perror("open");
        return 1;
    }
    sigaction(SIGBUS, &action, NULL);
    char *map = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    strcpy(map, "from the guest");
    step("mapped");
    printf("%s\n", map + 4096);
    step("seen");
    /* The host has cut the file down to one page. */
    for (int page = 2; page >= 1; page--) {
        if (sigsetjmp(back, 1) == 0) {
            char byte = *(volatile char *)(map + page * 4096);
            printf("page %d: %d\n", page, byte);
        } else {
            printf("page %d: SIGBUS %s\n", page, code == BUS_ADRERR ? "BUS_ADRERR" : "?");
        }
    }
    printf("page 0: %s\n", map);
    struct stat status;
    fstat(fd, &status);
    printf("size %lld\n", (long long)status.st_size);
    step("cut");
    /* And made it longer again. */
    printf("page 1: %s\n", map + 4096);
    return 0;
}
