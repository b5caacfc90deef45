// flags: -Wno-nonnull -Wno-infinite-recursion
// Placement, moving, advice, limits, stacks: corner cases of address spaces.
#include "check.h"
#include <fcntl.h>
#include <setjmp.h>
#include <sys/resource.h>

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

static sigjmp_buf back;
static volatile int seen_signal, seen_code;
static void *volatile seen_addr;
static char other_stack[1 << 16];

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)context;
    seen_signal = signal, seen_code = info->si_code, seen_addr = info->si_addr;
    siglongjmp(back, 1);
}

static int touch(volatile char *address, int value) {
    if (sigsetjmp(back, 1) == 0) {
        if (value >= 0) *address = (char)value;
        return (unsigned char)*address;
    }
    if (seen_addr != address) printf("si_addr is off by %ld\n", (long)((char *)seen_addr - address));
    return -(seen_signal * 100 + seen_code);
}

/* An address, or the errno. */
static long result(void *p) { return p == MAP_FAILED ? -errno : 0; }

static char *map(unsigned long pages, int prot, int flags) {
    char *p = mmap(NULL, pages * PAGE, prot, flags, -1, 0);
    if (p == MAP_FAILED) {
        printf("mmap: %s\n", strerror(errno));
        exit(1);
    }
    return p;
}

/* Areas of this process within a range, as /proc has them: rights and sizes. */
static void areas(char *from, char *to) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[300], rights[5];
    unsigned long start, end;
    printf("areas:");
    while (fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%lx-%lx %4s", &start, &end, rights) == 3 && start < (unsigned long)to && end > (unsigned long)from)
            printf(" %ld+%ld%s", (long)(start - (unsigned long)from) / (long)PAGE, (long)(end - start) / (long)PAGE, rights);
    }
    printf("\n");
    fclose(maps);
}

static void placement(void) {
    char *p = map(10, RW, ANON);
    memset(p, 1, 10 * PAGE);
    printf("%ld %ld\n", result(mmap(p + PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0)),
           result(mmap(p - PAGE + 1, PAGE, RW, ANON | MAP_FIXED, -1, 0)));
    CHECK(mmap(p + 2 * PAGE, 2 * PAGE, PROT_READ, ANON | MAP_FIXED, -1, 0) == p + 2 * PAGE);
    printf("%d %d %d %d\n", touch(p + PAGE, -1), touch(p + 2 * PAGE, -1), touch(p + 3 * PAGE, 1), touch(p + 4 * PAGE, -1));
    areas(p, p + 10 * PAGE);
    CHECK(munmap(p + 6 * PAGE, PAGE) == 0);
    CHECK(mmap(p + 6 * PAGE, PAGE, RW, ANON, -1, 0) == p + 6 * PAGE); // a hint that is free
    CHECK(mmap(p + 6 * PAGE, PAGE, RW, ANON, -1, 0) != p + 6 * PAGE); // and one that is not
    areas(p, p + 6 * PAGE);
    char *low = mmap(NULL, PAGE, RW, ANON | MAP_32BIT, -1, 0);
    printf("low: %d\n", (unsigned long)low < (1ul << 31));
    printf("null: %ld\n", result(mmap(NULL, PAGE, RW, ANON | MAP_FIXED, -1, 0)));
    printf("high: %ld %ld\n", result(mmap((void *)0x7ffffffff000ul, PAGE, RW, ANON | MAP_FIXED, -1, 0)),
           result(mmap((void *)0x7fffffffe000ul, 2 * PAGE, RW, ANON | MAP_FIXED, -1, 0)));
    printf("types: %ld %ld %ld\n", result(mmap(NULL, PAGE, RW, MAP_ANONYMOUS, -1, 0)),
           result(mmap(NULL, PAGE, RW, MAP_SHARED_VALIDATE | MAP_ANONYMOUS, -1, 0)),
           result(mmap(NULL, PAGE, RW, MAP_SHARED | MAP_PRIVATE | MAP_ANONYMOUS | 0xf, -1, 0)));
    printf("huge: %d\n", mmap(NULL, 1ul << 47, PROT_NONE, ANON | MAP_NORESERVE, -1, 0) == MAP_FAILED);
    char *reserve = mmap(NULL, 1ul << 40, PROT_NONE, ANON | MAP_NORESERVE, -1, 0);
    printf("reserve: %ld\n", result(reserve));
    CHECK(mprotect(reserve + (1ul << 39), PAGE, RW) == 0);
    reserve[1ul << 39] = 1;
    CHECK(munmap(reserve, 1ul << 40) == 0);
}

static void moving(void) {
    char *p = map(8, RW, ANON);
    for (int i = 0; i < 8; i++) p[(unsigned long)i * PAGE] = (char)(i + 1);
    char *room = map(20, PROT_NONE, ANON);
    // Moving a part to a chosen place.
    CHECK(mremap(p + 2 * PAGE, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room + 4 * PAGE) == room + 4 * PAGE);
    printf("%d %d %d %d\n", touch(p + PAGE, -1), touch(p + 2 * PAGE, -1), touch(room + 4 * PAGE, -1), touch(room + 5 * PAGE, -1));
    areas(room, room + 20 * PAGE);
    // Growing in place, where the next pages are free.
    CHECK(munmap(room + 6 * PAGE, 3 * PAGE) == 0);
    CHECK(mremap(room + 4 * PAGE, 2 * PAGE, 5 * PAGE, 0) == room + 4 * PAGE);
    printf("%d %d\n", touch(room + 8 * PAGE, -1), touch(room + 9 * PAGE, -1));
    printf("no room: %ld\n", result(mremap(room + 4 * PAGE, 5 * PAGE, 6 * PAGE, 0)));
    // Several areas at once, and wrong arguments.
    CHECK(mprotect(p + 5 * PAGE, PAGE, PROT_READ) == 0);
    printf("several: %ld %ld\n", result(mremap(p + 4 * PAGE, 3 * PAGE, 4 * PAGE, MREMAP_MAYMOVE)),
           result(mremap(p + 4 * PAGE, 3 * PAGE, 2 * PAGE, 0)));
    areas(p, p + 8 * PAGE);
    printf("wrong: %ld %ld %ld %ld %ld\n", result(mremap(p + 1, PAGE, PAGE, 0)), result(mremap(p, PAGE, 0, 0)),
           result(mremap(p, PAGE, PAGE, 64)), result(mremap(p, PAGE, PAGE, MREMAP_FIXED, room)),
           result(mremap(p, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + PAGE)));
    printf("unmapped: %ld\n", result(mremap(p + 2 * PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE)));
    // Leaving an empty area behind.
    const long leave = MREMAP_MAYMOVE | MREMAP_DONTUNMAP;
    char *q = (char *)syscall(SYS_mremap, p, PAGE, PAGE, leave, NULL);
    printf("left: %ld %d %d\n", result(q), touch(p, -1), touch(q, -1));
    printf("odd: %d\n", syscall(SYS_mremap, q, PAGE, PAGE, leave, 5) == -1 ? errno : 0);
    // An old size of 0 duplicates shared memory.
    char *shared = map(2, RW, MAP_SHARED | MAP_ANONYMOUS);
    char *twin = mremap(shared, 0, 2 * PAGE, MREMAP_MAYMOVE);
    shared[PAGE] = 42;
    printf("twin: %ld %d %ld\n", result(twin), twin[PAGE], result(mremap(p, 0, PAGE, MREMAP_MAYMOVE)));
    // Large: contents survive growing and moving.
    unsigned long size = 5ul << 20;
    char *large = mmap(NULL, size, RW, ANON, -1, 0);
    for (unsigned long i = 0; i < size; i += PAGE) *(unsigned long *)(large + i) = i;
    for (int round = 0; round < 4; round++) {
        large = mremap(large, size, size + (3ul << 20), MREMAP_MAYMOVE);
        size += 3ul << 20;
    }
    long wrong = 0;
    for (unsigned long i = 0; i < size; i += PAGE) wrong += *(unsigned long *)(large + i) != (i < 5ul << 20 ? i : 0);
    printf("large: %ld\n", wrong);
    munmap(large, size);
}

static void advice(void) {
    char *p = map(6, RW, ANON);
    memset(p, 7, 6 * PAGE);
    CHECK(madvise(p, PAGE, MADV_DONTNEED) == 0);
    CHECK(madvise(p + PAGE, PAGE, MADV_WIPEONFORK) == 0);
    CHECK(madvise(p + 2 * PAGE, PAGE, MADV_DONTFORK) == 0);
    printf("%d %d\n", p[0], p[PAGE]);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        printf("child: %d %d %d %d\n", touch(p, -1), touch(p + PAGE, -1), touch(p + 2 * PAGE, -1), touch(p + 3 * PAGE, -1));
        p[PAGE] = 8;
        fflush(stdout);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            printf("grandchild: %d\n", p[PAGE]);
            fflush(stdout);
            _exit(0);
        }
        waitpid(grandchild, NULL, 0);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    printf("parent: %d\n", p[PAGE]);
    CHECK(madvise(p + PAGE, PAGE, MADV_KEEPONFORK) == 0 && madvise(p + 2 * PAGE, PAGE, MADV_DOFORK) == 0);
    CHECK(madvise(p + 4 * PAGE, 2 * PAGE, MADV_FREE) == 0);
    p[4 * PAGE] = 9; // written again: stays
    printf("%d %d\n", p[4 * PAGE], p[5 * PAGE] == 0 || p[5 * PAGE] == 7);
    CHECK(munmap(p + 3 * PAGE, PAGE) == 0);
    CHECK_ERRNO(madvise(p, 6 * PAGE, MADV_DONTNEED), ENOMEM); // the hole; the rest is done
    printf("%d %d %d\n", p[PAGE], p[2 * PAGE], p[5 * PAGE]);
    CHECK_ERRNO(madvise(p + 1, PAGE, MADV_DONTNEED), EINVAL);
    CHECK_ERRNO(madvise(p, PAGE, 12345), EINVAL);
    CHECK(madvise(p, 0, MADV_DONTNEED) == 0);
    CHECK(madvise(p, PAGE, MADV_POPULATE_WRITE) == 0);
    unsigned char in[2];
    CHECK(mincore(p, PAGE, in) == 0);
    printf("in memory: %d\n", in[0] & 1);
    CHECK(mprotect(p + PAGE, PAGE, PROT_READ) == 0);
    CHECK_ERRNO(madvise(p, 2 * PAGE, MADV_POPULATE_WRITE), EINVAL);
    CHECK_ERRNO(mincore(p + 3 * PAGE, PAGE, in), ENOMEM);
    char *shared = map(2, RW, MAP_SHARED | MAP_ANONYMOUS);
    shared[PAGE] = 5;
    CHECK_ERRNO(madvise(shared, PAGE, MADV_FREE), EINVAL);
    CHECK_ERRNO(madvise(shared, PAGE, MADV_WIPEONFORK), EINVAL);
    CHECK(madvise(shared, 2 * PAGE, MADV_DONTNEED) == 0); // of shared memory nothing is lost
    printf("shared: %d\n", shared[PAGE]);
    CHECK(madvise(shared, 2 * PAGE, MADV_REMOVE) == 0);
    printf("removed: %d\n", shared[PAGE]);
    CHECK_ERRNO(madvise(p, PAGE, MADV_REMOVE), EINVAL);
}

static void with_limit(int resource, rlim_t limit, void (*body)(void)) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit value = {limit, limit};
        if (setrlimit(resource, &value)) _exit(99);
        body();
        fflush(stdout);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    printf("status %x\n", status);
}

static void in_little_address_space(void) {
    printf("%ld", result(mmap(NULL, 64ul << 20, PROT_NONE, ANON | MAP_NORESERVE, -1, 0)));
    char *p = mmap(NULL, 1ul << 20, RW, ANON, -1, 0);
    printf(" %ld", result(p));
    printf(" %ld", result(mremap(p, 1ul << 20, 64ul << 20, MREMAP_MAYMOVE)));
    printf(" %d", sbrk(64 << 20) == (void *)-1 ? errno : 0);
    // Replacing counts only what is more.
    printf(" %ld\n", result(mmap(p, 1ul << 20, RW, ANON | MAP_FIXED, -1, 0)));
}

static void in_little_data(void) {
    printf("%ld", result(mmap(NULL, 64ul << 20, RW, ANON, -1, 0)));
    printf(" %ld", result(mmap(NULL, 64ul << 20, PROT_READ, ANON, -1, 0)));
    char *p = mmap(NULL, 64ul << 20, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    printf(" %ld", result(p));
    p = mmap(NULL, 64ul << 20, PROT_NONE, ANON, -1, 0);
    printf(" %d", mprotect(p, 64ul << 20, RW) ? errno : 0);
    printf(" %d\n", sbrk(64 << 20) == (void *)-1 ? errno : 0);
}

static int deep(int levels) {
    volatile char frame[PAGE];
    frame[0] = (char)levels;
    return levels ? deep(levels - 1) + frame[0] - (char)levels : 0;
}

static void on_little_stack(void) {
    // The limit counts for growth from now on: well within, and beyond.
    printf("%d ", deep(100));
    stack_t alternate = {.ss_sp = other_stack, .ss_size = sizeof other_stack};
    sigaltstack(&alternate, NULL);
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    sigaction(SIGSEGV, &action, NULL);
    if (sigsetjmp(back, 1) == 0) printf("%d\n", deep(1000));
    printf("%d %d\n", seen_signal, seen_code);
}

static void limits(void) {
    struct rusage unused;
    getrusage(RUSAGE_SELF, &unused);
    with_limit(RLIMIT_AS, 48ul << 20, in_little_address_space);
    with_limit(RLIMIT_DATA, 16ul << 20, in_little_data);
    with_limit(RLIMIT_STACK, 1ul << 20, on_little_stack);
}

static void stacks_that_grow(void) {
    // Room, in the middle of which an area that grows down.
    char *room = map(1024, PROT_NONE, ANON);
    CHECK(munmap(room, 1024 * PAGE) == 0);
    char *p = mmap(room + 700 * PAGE, 4 * PAGE, RW, ANON | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
    CHECK(p == room + 700 * PAGE);
    printf("%d %d\n", touch(p - PAGE, 1), touch(p - 10 * PAGE, 2));
    printf("%d %d\n", touch(p - PAGE, -1), touch(p - 2 * PAGE, -1));
    // A neighbour below keeps it 256 pages away.
    CHECK(mmap(p - 300 * PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0) == p - 300 * PAGE);
    printf("%d %d\n", touch(p - 40 * PAGE, 3), touch(p - 100 * PAGE, 4));
    CHECK(munmap(p - 300 * PAGE, PAGE) == 0);
    CHECK(mprotect(p, PAGE, PROT_READ | PROT_GROWSDOWN) == 0);
    printf("%d %d\n", touch(p - PAGE, -1), touch(p - PAGE, 5));
    CHECK_ERRNO(mprotect(other_stack, PAGE, PROT_READ | PROT_GROWSUP), EINVAL);
}

static void heap(void) {
    char *start = sbrk(0);
    CHECK(brk(start + 3) == 0);
    char *page = (char *)(((uintptr_t)start + PAGE - 1) & ~(PAGE - 1));
    CHECK(brk(page + 10 * PAGE) == 0);
    page[9 * PAGE] = 1;
    printf("%d %d\n", touch(page + 9 * PAGE, -1), touch(page + 10 * PAGE, -1));
    CHECK(mprotect(page + 2 * PAGE, PAGE, PROT_READ) == 0);
    CHECK(munmap(page + 4 * PAGE, PAGE) == 0);
    CHECK(brk(page + 12 * PAGE) == 0);
    printf("%d %d %d\n", touch(page + 2 * PAGE, 1), touch(page + 4 * PAGE, -1), touch(page + 11 * PAGE, 1));
    CHECK(mmap(page + 14 * PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0) == page + 14 * PAGE);
    char *before = sbrk(0);
    CHECK_ERRNO(brk(page + 20 * PAGE), ENOMEM);
    CHECK(sbrk(0) == before);
    CHECK(munmap(page + 14 * PAGE, PAGE) == 0);
    CHECK(brk(start) == 0);
    printf("%d\n", touch(page + 2 * PAGE, -1));
}

static void locking(void) {
    struct rlimit value = {8 * PAGE, 8 * PAGE};
    char *p = map(20, RW, ANON);
    CHECK(mlock(p, 2 * PAGE) == 0);
    CHECK_ERRNO(madvise(p, PAGE, MADV_DONTNEED), EINVAL);
    CHECK(munlock(p, 2 * PAGE) == 0);
    CHECK(setrlimit(RLIMIT_MEMLOCK, &value) == 0);
    CHECK(mlock(p, 8 * PAGE) == 0);
    int over = mlock(p + 8 * PAGE, PAGE);
    printf("%d %d\n", over, over ? errno : 0);
    CHECK(munlockall() == 0);
    CHECK(munmap(p + 5 * PAGE, PAGE) == 0);
    CHECK_ERRNO(mlock(p + 4 * PAGE, 3 * PAGE), ENOMEM);
    CHECK_ERRNO(mlock2(p, PAGE, 8), EINVAL);
    CHECK_ERRNO(mlockall(0), EINVAL);
}

static void other_faults(void) {
    // Not canonical, the kernel's half, the last page, null: all without a usable address or as it was.
    volatile char *odd = (volatile char *)0x8000000000000000ul;
    if (sigsetjmp(back, 1) == 0) (void)*odd;
    printf("%d %x %lx\n", seen_signal, seen_code, (unsigned long)seen_addr);
    printf("%d %d %d\n", touch((char *)0x7ffffffff000ul, -1), touch((char *)0xffffffffffffe000ul, -1), touch(NULL, -1));
    char *p = map(3, PROT_NONE, ANON);
    printf("%d %d\n", touch(p + PAGE + 7, -1), touch(p + PAGE + 7, 1));
    CHECK(mprotect(p, 3 * PAGE, PROT_EXEC) == 0);
    printf("%d\n", touch(p, 1));
    CHECK(mprotect(p, 3 * PAGE, PROT_WRITE) == 0);
    printf("%d\n", touch(p, 1));
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    GROUP(placement);
    GROUP(moving);
    GROUP(advice);
    GROUP(stacks_that_grow);
    GROUP(heap);
    GROUP(other_faults);
    GROUP(limits);
    GROUP(locking);
    return finish();
}
