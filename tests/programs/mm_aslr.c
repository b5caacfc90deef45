// Addresses differ from run to run, unless the personality forbids it.
#include "check.h"
#include <sys/auxv.h>
#include <sys/personality.h>

enum { STACK, HEAP, MAPPING, VDSO, PLACES };
#define RUNS 8

/* What a run prints: where its parts lie. */
static int report(void) {
    int here;
    printf("%lx %lx %lx %lx\n", (unsigned long)&here, (unsigned long)sbrk(0),
           (unsigned long)mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), getauxval(AT_SYSINFO_EHDR));
    return 0;
}

static void run(unsigned long places[PLACES], int fixed) {
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(pipes[1], 1);
        if (fixed) personality(ADDR_NO_RANDOMIZE);
        execl("/proc/self/exe", "mm_aslr", "report", NULL);
        _exit(1);
    }
    close(pipes[1]);
    FILE *in = fdopen(pipes[0], "r");
    CHECK_INT(fscanf(in, "%lx %lx %lx %lx", places, places + 1, places + 2, places + 3), 4);
    fclose(in);
    int status;
    waitpid(pid, &status, 0);
    CHECK_INT(status, 0);
}

static void compare(int fixed) {
    static const char *const names[PLACES] = {"stack", "heap", "mapping", "vdso"};
    unsigned long runs[RUNS][PLACES];
    for (int i = 0; i < RUNS; i++) run(runs[i], fixed);
    for (int place = 0; place < PLACES; place++) {
        int same = 0;
        for (int i = 1; i < RUNS; i++) same += runs[i][place] == runs[i - 1][place];
        // By chance two runs in a row may be the same; not half of them.
        printf("%s: %s\n", names[place], same == RUNS - 1 ? "same" : same < RUNS / 2 ? "different" : "often the same");
    }
}

static void random_by_default(void) { compare(0); }
static void the_same_if_wished(void) { compare(1); }

static void personalities_are_inherited(void) {
    printf("%x\n", personality(0xffffffff));
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        int before = personality(ADDR_NO_RANDOMIZE);
        pid_t child = fork();
        if (child == 0) {
            printf("%x %x\n", before, personality(0xffffffff));
            fflush(stdout);
            _exit(0);
        }
        waitpid(child, NULL, 0);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    printf("%x\n", personality(0xffffffff));
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1) return report();
    GROUP(random_by_default);
    GROUP(the_same_if_wished);
    GROUP(personalities_are_inherited);
    return finish();
}
