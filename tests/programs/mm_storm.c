// Random stores, mappings and forks, checked against a model in each process; the seed makes them repeatable.
#include "check.h"

#define PAGE 4096ul
#define PAGES 1200

static unsigned long state;
static unsigned long below(unsigned long limit) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state % limit;
}

static char *memory;
/* What each page of the memory holds: private to a process, as the memory is. */
static unsigned model[PAGES];
static unsigned *shared;

static unsigned *word(unsigned long page) { return (unsigned *)(memory + page * PAGE + (page * 40) % PAGE / 4 * 4); }

static long wrong_pages(void) {
    long wrong = 0;
    for (unsigned long page = 0; page < PAGES; page++) wrong += *word(page) != model[page];
    return wrong;
}

static void act(void) {
    unsigned long page = below(PAGES), count = 1 + below(below(8) ? 20 : PAGES);
    if (page + count > PAGES) count = PAGES - page;
    switch (below(8)) {
    case 0: // fresh memory
        if (mmap(memory + page * PAGE, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
            MAP_FAILED)
            _exit(97);
        memset(model + page, 0, count * sizeof *model);
        break;
    case 1:
        if (madvise(memory + page * PAGE, count * PAGE, MADV_DONTNEED)) _exit(96);
        memset(model + page, 0, count * sizeof *model);
        break;
    case 2: // rights there and back
        if (mprotect(memory + page * PAGE, count * PAGE, PROT_READ) ||
            mprotect(memory + page * PAGE, count * PAGE, PROT_READ | PROT_WRITE))
            _exit(95);
        break;
    default:
        for (unsigned long i = page; i < page + count; i++) *word(i) = model[i] = (unsigned)below(1ul << 31) + 1;
    }
}

/* A process: acts, forks, and says whether all it saw was right. */
static int life(int depth) {
    int failed = 0;
    for (int round = 0; round < 6; round++) {
        for (unsigned long i = below(12); i > 0; i--) act();
        if (wrong_pages()) failed = 1;
        if (depth == 0) continue;
        unsigned long seed = below(1ul << 62) + 1;
        fflush(stdout);
        pid_t pid = fork();
        if (pid < 0) _exit(94);
        if (pid == 0) {
            state = seed;
            if (wrong_pages()) _exit(1);
            __atomic_add_fetch(shared, 1, __ATOMIC_RELAXED);
            _exit(below(5) == 0 ? 0 : life(depth - 1));
        }
        if (below(3) == 0) act();
        int status = -1;
        if (waitpid(pid, &status, 0) != pid || status != 0) failed = 1;
        if (wrong_pages()) failed = 1;
    }
    return failed;
}

int main(int argc, char **argv) {
    state = (unsigned long)argument(argc, argv, 1, 1) * 0x9e3779b97f4a7c15ul | 1;
    memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED && shared != MAP_FAILED);
    CHECK_INT(life(3), 0);
    printf("%u processes\n", *shared);
    return finish();
}
