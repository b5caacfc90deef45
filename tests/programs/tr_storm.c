// Processes that are forked and executed while the sites of their program are being patched: every site of a fresh copy of the
// program is met by several processes at once.
#include "sites.h"
#include <fcntl.h>

#define WORKERS 6

/* Runs every site, beginning anywhere; 0 if each gave what it should. */
static int run_sites(unsigned from) {
    long tid = syscall(SYS_gettid);
    int wrong = 0;
    for (unsigned i = 0; i < SITES; i++) {
        unsigned at = (from + i * 7) % SITES;
        for (int again = 0; again < 3; again++) {
            wrong += reg_sites[at]() != tid;
            wrong += mov_sites[at]() != tid;
            wrong += split_sites[at](again & 1) != tid;
        }
    }
    return wrong;
}

static int worker(const char *program, unsigned number) {
    volatile int wrong = 0;
    char from[12];
    for (volatile unsigned round = 0; round < 4; round++) {
        snprintf(from, sizeof from, "%u", number * 5 + round);
        char *argv[] = {(char *)program, "leaf", from, NULL};
        pid_t child = round & 1 ? vfork() : fork();
        if (child == 0) {
            execv(program, argv);
            _exit(99);
        }
        wrong += run_sites(number + round);
        int status;
        if (waitpid(child, &status, 0) != child || status != 0) wrong++;
    }
    return wrong;
}

static void copy(const char *to) {
    char buffer[65536];
    int in = open("/proc/self/exe", O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0700);
    CHECK(in >= 0 && out >= 0);
    for (ssize_t got; (got = read(in, buffer, sizeof buffer)) > 0;) CHECK(write(out, buffer, (size_t)got) == got);
    close(in), close(out);
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "leaf") == 0) return run_sites((unsigned)atoi(argv[2])) != 0;
    if (argc == 3 && strcmp(argv[1], "worker") == 0) return worker(argv[0], (unsigned)atoi(argv[2])) != 0;
    for (int round = 0; round < 3; round++) {
        char program[64];
        snprintf(program, sizeof program, "/tmp/storm.%d", round);
        copy(program);
        pid_t workers[WORKERS];
        for (int i = 0; i < WORKERS; i++) {
            workers[i] = fork();
            if (workers[i] == 0) {
                char number[12];
                snprintf(number, sizeof number, "%d", i);
                execl(program, program, "worker", number, NULL);
                _exit(98);
            }
        }
        for (int i = 0; i < WORKERS; i++) {
            int status = -1;
            CHECK_INT(waitpid(workers[i], &status, 0), workers[i]);
            CHECK_INT(status, 0);
        }
        unlink(program);
    }
    return finish();
}
