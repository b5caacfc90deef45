// flags: -Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread -Wno-infinite-recursion -Wno-nonnull
// Mappings, protections and the faults they give.
#include "check.h"
#include <setjmp.h>
#include <sys/resource.h>

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

static sigjmp_buf back;
static volatile int seen_signal, seen_code;
static void *volatile seen_addr;

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)context;
    seen_signal = signal, seen_code = info->si_code, seen_addr = info->si_addr;
    siglongjmp(back, 1);
}

enum { READ, WRITE, EXEC };

/* Touches an address; returns the signal it gave, 0 for none. */
static int touch(volatile char *address, int how) {
    seen_signal = 0, seen_code = 0, seen_addr = NULL;
    if (sigsetjmp(back, 1) == 0) {
        if (how == READ) (void)*address;
        if (how == WRITE) *address = 1;
        if (how == EXEC) ((void (*)(void))(uintptr_t)address)();
    }
    return seen_signal;
}

#define CHECK_FAULT(address, how, code)                                                      \
    do {                                                                                     \
        CHECK_INT(touch((char *)(address), how), SIGSEGV);                                   \
        CHECK_INT(seen_code, code);                                                          \
        CHECK_INT((uintptr_t)seen_addr, (uintptr_t)(address));                               \
    } while (0)

static char *map(unsigned long pages, int protection) {
    char *p = mmap(NULL, pages * PAGE, protection, ANON, -1, 0);
    CHECK(p != MAP_FAILED);
    return p;
}

static void fresh_memory_is_zero(void) {
    unsigned long pages = 1000;
    char *p = map(pages, RW);
    long sum = 0;
    for (unsigned long i = 0; i < pages * PAGE; i++) sum += p[i];
    CHECK_INT(sum, 0);
    for (unsigned long i = 0; i < pages; i++) p[i * PAGE + i] = (char)i;
    for (unsigned long i = 0; i < pages; i++) sum += p[i * PAGE + i] != (char)i;
    CHECK_INT(sum, 0);
    CHECK(munmap(p, pages * PAGE) == 0);
    // Given back and mapped again: zero again.
    p = mmap(p, pages * PAGE, RW, ANON | MAP_FIXED, -1, 0);
    for (unsigned long i = 0; i < pages * PAGE; i++) sum += p[i];
    CHECK_INT(sum, 0);
    CHECK(munmap(p, pages * PAGE) == 0);
}

static void holes_fault(void) {
    char *p = map(5, RW);
    memset(p, 7, 5 * PAGE);
    CHECK(munmap(p + 2 * PAGE, PAGE) == 0);
    CHECK_INT(p[2 * PAGE - 1] + p[3 * PAGE], 14);
    CHECK_FAULT(p + 2 * PAGE, READ, SEGV_MAPERR);
    CHECK_FAULT(p + 3 * PAGE - 1, WRITE, SEGV_MAPERR);
    CHECK_FAULT(p + 2 * PAGE + 5, EXEC, SEGV_MAPERR);
    CHECK(munmap(p, 5 * PAGE) == 0); // holes are no error
    CHECK_FAULT(p, READ, SEGV_MAPERR);
    CHECK_FAULT(16, READ, SEGV_MAPERR);
    CHECK_FAULT(0x7ffffffff000ul - PAGE * 100000000ul, WRITE, SEGV_MAPERR);
}

static void protections(void) {
    char *p = map(4, RW);
    memset(p, 1, 4 * PAGE);
    CHECK(mprotect(p + PAGE, PAGE, PROT_READ) == 0);
    CHECK_INT(touch(p + PAGE, READ), 0);
    CHECK_FAULT(p + PAGE + 9, WRITE, SEGV_ACCERR);
    CHECK(mprotect(p + 2 * PAGE, PAGE, PROT_NONE) == 0);
    CHECK_FAULT(p + 2 * PAGE, READ, SEGV_ACCERR);
    CHECK_FAULT(p + 2 * PAGE, WRITE, SEGV_ACCERR);
    CHECK_INT(touch(p, WRITE), 0);
    CHECK_INT(touch(p + 3 * PAGE, WRITE), 0);
    CHECK_FAULT(p, EXEC, SEGV_ACCERR); // no execution without the right
    CHECK(mprotect(p, 4 * PAGE, RW) == 0);
    CHECK_INT(p[PAGE + 9] + p[2 * PAGE + 9], 2);
    CHECK_INT(touch(p + 2 * PAGE, WRITE), 0);
    *p = (char)0xc3; // ret
    CHECK(mprotect(p, PAGE, PROT_READ | PROT_EXEC) == 0);
    CHECK_INT(touch(p, EXEC), 0);
    CHECK_FAULT(p, WRITE, SEGV_ACCERR);
    CHECK(munmap(p, 4 * PAGE) == 0);
    CHECK_ERRNO(mprotect(p, PAGE, PROT_READ), ENOMEM);
    CHECK_ERRNO(mprotect((char *)1, PAGE, PROT_READ), EINVAL);
}

static void our_text_is_read_only(void) {
    CHECK_FAULT((uintptr_t)&our_text_is_read_only, WRITE, SEGV_ACCERR);
    CHECK_FAULT((uintptr_t)"literal", WRITE, SEGV_ACCERR);
}

static void large_pages_split(void) {
    unsigned long size = 8ul << 20;
    char *p = mmap(NULL, size, RW, ANON, -1, 0);
    for (unsigned long i = 0; i < size; i += PAGE) *(unsigned long *)(p + i) = i * 3;
    CHECK(mprotect(p + (3ul << 20), PAGE, PROT_NONE) == 0);
    CHECK(munmap(p + (5ul << 20), 3 * PAGE) == 0);
    CHECK_FAULT(p + (3ul << 20), READ, SEGV_ACCERR);
    CHECK_FAULT(p + (5ul << 20) + PAGE, READ, SEGV_MAPERR);
    CHECK(mprotect(p + (3ul << 20), PAGE, PROT_READ) == 0);
    long wrong = 0;
    for (unsigned long i = 0; i < size; i += PAGE) {
        if (i >= (5ul << 20) && i < (5ul << 20) + 3 * PAGE) continue;
        wrong += *(unsigned long *)(p + i) != i * 3;
    }
    CHECK_INT(wrong, 0);
    CHECK(munmap(p, size) == 0);
}

static void arguments_are_checked(void) {
    CHECK_ERRNO((long)mmap(NULL, 0, RW, ANON, -1, 0), EINVAL);
    CHECK_ERRNO((long)mmap(NULL, PAGE, RW, MAP_ANONYMOUS, -1, 0), EINVAL);
    CHECK_ERRNO((long)mmap(NULL, PAGE, RW, MAP_PRIVATE, -1, 0), EBADF);
    CHECK_ERRNO((long)mmap((void *)1, PAGE, RW, ANON | MAP_FIXED, -1, 0), EINVAL);
    CHECK_ERRNO((long)mmap(NULL, 1ul << 60, RW, ANON, -1, 0), ENOMEM);
    CHECK_ERRNO(munmap((char *)1, PAGE), EINVAL);
    char *p = map(2, RW);
    CHECK_ERRNO((long)mmap(p, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
    CHECK(munmap(p, 2 * PAGE) == 0);
    CHECK((char *)mmap(p, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) == p);
    CHECK(munmap(p, PAGE) == 0);
}

static void brk_grows_and_shrinks(void) {
    char *start = sbrk(0);
    CHECK(sbrk(100 * PAGE) == start);
    char *end = sbrk(0);
    CHECK_INT(end - start, 100 * PAGE);
    for (char *p = start; p < end; p += 512) {
        if (*p != 0) failures++;
        *p = 5;
    }
    CHECK(brk(start + 10 * PAGE) == 0);
    CHECK_INT(start[9 * PAGE], 5);
    char *limit = (char *)(((uintptr_t)start + 10 * PAGE + PAGE - 1) & ~(PAGE - 1));
    CHECK_FAULT(limit + PAGE, READ, SEGV_MAPERR);
    CHECK(brk(end) == 0);
    CHECK_INT(limit[PAGE], 0); // what was given up does not come back
    CHECK(brk(start) == 0);
    CHECK_ERRNO(brk((void *)(1ul << 46)), ENOMEM);
}

static void mremap_moves_contents(void) {
    char *p = map(4, RW);
    for (int i = 0; i < 4; i++) p[i * PAGE] = (char)(i + 1);
    char *q = mremap(p, 4 * PAGE, 400 * PAGE, MREMAP_MAYMOVE);
    CHECK(q != MAP_FAILED);
    for (int i = 0; i < 4; i++) CHECK_INT(q[i * PAGE], i + 1);
    CHECK_INT(q[399 * PAGE], 0);
    q[399 * PAGE] = 9;
    CHECK(mremap(q, 400 * PAGE, 2 * PAGE, 0) == q);
    CHECK_FAULT(q + 2 * PAGE, READ, SEGV_MAPERR);
    CHECK_INT(q[PAGE], 2);
    char *target = map(2, PROT_NONE);
    CHECK(mremap(q, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target);
    CHECK_INT(target[PAGE], 2);
    CHECK_FAULT(q, READ, SEGV_MAPERR);
    CHECK_ERRNO((long)mremap(q, PAGE, 2 * PAGE, MREMAP_MAYMOVE), EFAULT);
    char *block = map(2, RW);
    CHECK_ERRNO((long)mremap(block, PAGE, 2 * PAGE, 0), ENOMEM); // the next page is taken
    CHECK(munmap(target, 2 * PAGE) == 0);
    CHECK(munmap(block, 2 * PAGE) == 0);
}

static void madvise_drops(void) {
    char *p = map(4, RW);
    memset(p, 3, 4 * PAGE);
    CHECK(madvise(p + PAGE, 2 * PAGE, MADV_DONTNEED) == 0);
    CHECK_INT(p[0] + p[PAGE] + p[2 * PAGE] + p[3 * PAGE], 6);
    CHECK(munmap(p, 4 * PAGE) == 0);
}

static void fork_copies_on_write(void) {
    char *private = map(600, RW);
    char *shared = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(private, 1, 600 * PAGE);
    for (int generation = 0; generation < 5; generation++) {
        pid_t pid = fork();
        if (pid == 0) {
            for (int i = 0; i < 600; i++) {
                if (private[i * PAGE] != 1) _exit(1);
                private[i * PAGE] = 2;
            }
            shared[generation] = 42;
            pid_t grandchild = fork();
            if (grandchild == 0) {
                for (int i = 0; i < 600; i++)
                    if (private[i * PAGE] != 2) _exit(1);
                _exit(0);
            }
            int status;
            waitpid(grandchild, &status, 0);
            _exit(status != 0);
        }
        int status = -1;
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK_INT(status, 0);
        CHECK_INT(shared[generation], 42);
        long sum = 0;
        for (int i = 0; i < 600; i++) sum += private[i * PAGE];
        CHECK_INT(sum, 600);
    }
}

static int deep(int levels) {
    volatile char frame[PAGE];
    frame[0] = (char)levels;
    return levels ? deep(levels - 1) + frame[0] - (char)levels : 0;
}

static void the_stack_grows(void) {
    CHECK_INT(deep(1000), 0); // 4 MiB
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_STACK, &limit) == 0);
}

static int endless(volatile char *above) {
    volatile char frame[PAGE];
    frame[0] = above ? above[0] : 0;
    return endless(frame) + frame[0];
}

static void an_endless_stack_ends(void) {
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        _exit(endless(NULL));
    }
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static void pointers_from_syscalls_are_checked(void) {
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    CHECK_ERRNO(write(pipes[1], (void *)16, 5), EFAULT);
    CHECK_ERRNO(pipe((int *)16), EFAULT);
    CHECK_ERRNO(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, 16), EFAULT);
    CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGUSR2, 16, 0, 8), EFAULT);
    CHECK_ERRNO(syscall(SYS_openat, -100, 16, 0), EFAULT);
    CHECK_ERRNO(syscall(SYS_write, pipes[1], 0x8000000000000000ul, 5), EFAULT);
    CHECK_ERRNO(syscall(SYS_write, pipes[1], 0xffffffffff600000ul - PAGE, 5), EFAULT);
    char *p = map(1, PROT_READ);
    CHECK(write(pipes[1], p, 10) == 10);
    CHECK_ERRNO(read(pipes[0], p, 10), EFAULT); // into read-only memory
    close(pipes[0]), close(pipes[1]);
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    GROUP(fresh_memory_is_zero);
    GROUP(holes_fault);
    GROUP(protections);
    GROUP(our_text_is_read_only);
    GROUP(large_pages_split);
    GROUP(arguments_are_checked);
    GROUP(brk_grows_and_shrinks);
    GROUP(mremap_moves_contents);
    GROUP(madvise_drops);
    GROUP(fork_copies_on_write);
    GROUP(the_stack_grows);
    GROUP(an_endless_stack_ends);
    GROUP(pointers_from_syscalls_are_checked);
    return finish();
}
