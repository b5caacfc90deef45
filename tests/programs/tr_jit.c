// Code that is made, changed and moved at run time: what runs is always what was written last, and what is read is what was
// written, whether some of it is translated or not.
#include "check.h"
#include <fcntl.h>
#include <setjmp.h>
#include <ucontext.h>

typedef long (*code_t)(void);
static const uint8_t load_form[] = {0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3};
/* mov $39, %eax; nop; syscall; cmp $-4095, %rax; ret */
static const uint8_t compare_form[] = {0xb8, 39, 0, 0, 0, 0x90, 0x0f, 0x05, 0x48, 0x3d, 1, 0xf0, 0xff, 0xff, 0xc3};
/* In front of each, so that there is something to decode. */
static const uint8_t front[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0x8b, 0x7d, 0xf0, 0x48, 0x85, 0xff, 0x31,
                                0xd2, 0x4d, 0x89, 0xc2, 0x5d, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
                                0x55, 0x48, 0x89, 0xe5, 0x48, 0x8b, 0x7d, 0xf0, 0x48, 0x85, 0xff, 0x31,
                                0xd2, 0x4d, 0x89, 0xc2, 0x5d, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90};

static pid_t pid, parent;

/* Writes both forms for call `number` at `page`: at sizeof front and 256 bytes further. */
static void emit(uint8_t *page, int number) {
    memcpy(page, front, sizeof front);
    memcpy(page + sizeof front, load_form, sizeof load_form);
    memcpy(page + 256, front, sizeof front);
    memcpy(page + 256 + sizeof front, compare_form, sizeof compare_form);
    page[sizeof front + 1] = page[256 + sizeof front + 1] = (uint8_t)number;
}

static void run(uint8_t *page, long expected) {
    for (int i = 0; i < 5; i++) {
        CHECK_INT(((code_t)(page + sizeof front))(), expected);
        CHECK_INT(((code_t)(page + 256 + sizeof front))(), expected);
    }
}

static void writable_and_executable_at_once(void) {
    uint8_t *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    for (int i = 0; i < 20; i++) {
        emit(page, i & 1 ? 110 : 39);
        run(page, i & 1 ? parent : pid);
        uint8_t again[8192] = {0};
        emit(again, i & 1 ? 110 : 39);
        CHECK(memcmp(page, again, 512) == 0);
    }
    munmap(page, 8192);
}

static void writable_or_executable_in_turns(void) {
    uint8_t *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 20; i++) {
        CHECK(mprotect(page, 4096, PROT_READ | PROT_WRITE) == 0);
        emit(page, i & 1 ? 110 : 39);
        CHECK(mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0);
        run(page, i & 1 ? parent : pid);
    }
    munmap(page, 4096);
    // Two mappings of one memory, as JITs that may never have both have it.
    int fd = memfd_create("jit", 0);
    CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
    uint8_t *write_here = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint8_t *run_here = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    uint8_t *private_one = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    CHECK(write_here != MAP_FAILED && run_here != MAP_FAILED && private_one != MAP_FAILED);
    for (int i = 0; i < 20; i++) {
        emit(write_here, i & 1 ? 110 : 39);
        run(run_here, i & 1 ? parent : pid);
        run(private_one, i & 1 ? parent : pid);
    }
    munmap(write_here, 4096), munmap(run_here, 4096), munmap(private_one, 4096);
    close(fd);
}

/* The program's own text, on a page of its own. */
__asm__(".section .text.own, \"ax\"\n.p2align 12\n.globl own_page\nown_page:\n.fill 4096, 1, 0x90\n.text\n");
extern uint8_t own_page[];

static void own_text_rewritten(void) {
    uint8_t expected[512];
    for (int i = 0; i < 6; i++) {
        int number = i & 1 ? 110 : 39;
        CHECK(mprotect(own_page, 4096, PROT_READ | PROT_WRITE | (i & 2 ? PROT_EXEC : 0)) == 0);
        if (i > 0) {
            // What was written is there, without jumps to anywhere.
            memset(expected, 0x90, sizeof expected);
            emit(expected, i & 1 ? 39 : 110);
            CHECK(memcmp(own_page, expected, sizeof expected) == 0);
        }
        emit(own_page, number);
        if (!(i & 2)) CHECK(mprotect(own_page, 4096, PROT_READ | PROT_EXEC) == 0);
        run(own_page, i & 1 ? parent : pid);
    }
}

/* A file whose code runs, is made writable, runs, is changed, runs. */
static void text_of_a_file(void) {
    uint8_t contents[4096], expected[512];
    memset(contents, 0x90, sizeof contents);
    emit(contents, 39);
    int fd = open("/tmp/code", O_RDWR | O_CREAT | O_TRUNC, 0700);
    CHECK(fd >= 0);
    CHECK_INT(write(fd, contents, sizeof contents), sizeof contents);
    uint8_t *one = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    uint8_t *two = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    run(one, pid), run(two, pid);
    // The file itself still has what was written.
    CHECK_INT(pread(fd, contents + 1024, 512, 0), 512);
    memset(expected, 0x90, sizeof expected);
    emit(expected, 39);
    CHECK(memcmp(contents + 1024, expected, 512) == 0);
    // Writable, it shows the file's bytes and can be changed here only.
    CHECK(mprotect(one, 4096, PROT_READ | PROT_WRITE | PROT_EXEC) == 0);
    CHECK(memcmp(one, expected, 512) == 0);
    run(one, pid);
    emit(one, 110);
    run(one, parent), run(two, pid);
    CHECK(mprotect(one, 4096, PROT_READ | PROT_EXEC) == 0);
    run(one, parent), run(two, pid);
    // A child inherits both.
    pid_t child = fork();
    if (child == 0) {
        pid_t mine = (pid_t)syscall(SYS_getpid);
        parent = (pid_t)syscall(SYS_getppid);
        run(one, parent), run(two, mine);
        _exit(failures != 0);
    }
    int status;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
    // The file changes: mappings that have no page of their own see it.
    contents[0] = 0x90;
    emit(contents, 110);
    CHECK_INT(pwrite(fd, contents, sizeof contents, 0), sizeof contents);
    run(two, parent);
    munmap(one, 4096), munmap(two, 4096);
    close(fd);
    unlink("/tmp/code");
}

/* Addresses next to translated code, where thunks may lie, are free for the program as far as it can tell. */
static void mappings_over_everything_near(void) {
    uint8_t contents[4096];
    memset(contents, 0x90, sizeof contents);
    emit(contents, 39);
    int fd = memfd_create("near", 0);
    CHECK_INT(write(fd, contents, sizeof contents), sizeof contents);
    // A free place with much room around it.
    uint8_t *room = mmap(NULL, 64 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(room != MAP_FAILED && munmap(room, 64 << 20) == 0);
    uint8_t *code = mmap(room + (32 << 20), 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0);
    CHECK(code == room + (32 << 20));
    run(code, pid);
    // The call that takes the place of the thunks is made by way of a thunk.
    for (long at = 0; at < 64 << 20; at += 2 << 20) {
        if (at == 32 << 20) continue;
        uint8_t *here = mmap(room + at, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        CHECK(here == room + at);
        memset(here, 0xf4, 64 << 10);
        memset(here + (2 << 20) - (128 << 10), 0xf4, 128 << 10);
    }
    run(code, pid);
    munmap(room, 64 << 20);
    close(fd);
}

/* As syscall(3): the number and six arguments. */
static const uint8_t any_call[] = {0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x48, 0x89, 0xd6, 0x48, 0x89, 0xca, 0x4d, 0x89,
                                   0xc2, 0x4d, 0x89, 0xc8, 0x4c, 0x8b, 0x4c, 0x24, 0x08, 0x0f, 0x05, 0x48, 0x3d, 0x01,
                                   0xf0, 0xff, 0xff, 0xc3};
#define BEHIND_CALL 25
typedef long (*call_t)(long, ...);

static sigjmp_buf jump;
static void *volatile fault_at, *volatile fault_rip;
static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)signal;
    fault_at = info->si_addr;
    fault_rip = (void *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    siglongjmp(jump, 1);
}

/* System calls that change what is mapped where they will return to. */
static void calls_that_unmap_what_they_return_to(void) {
    uint8_t contents[4096];
    memset(contents, 0x90, sizeof contents);
    memcpy(contents + 64, any_call, sizeof any_call);
    int fd = memfd_create("call", 0);
    CHECK_INT(write(fd, contents, sizeof contents), sizeof contents);
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
    for (int round = 0; round < 3; round++) {
        uint8_t *room = mmap(NULL, 16 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(room != MAP_FAILED && munmap(room, 16 << 20) == 0);
        uint8_t *page = room + (8 << 20);
        CHECK(mmap(page, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0) == page);
        call_t call = (call_t)(page + 64);
        CHECK_INT(call((long)SYS_getpid), pid);
        CHECK_INT(call((long)SYS_getpid), pid);
        for (long side = -1; side <= 1; side += 2) {
            uint8_t *here = side < 0 ? page - (4 << 20) : page + 4096;
            CHECK(call((long)SYS_mmap, here, 4L << 20, (long)(PROT_READ | PROT_WRITE),
                       (long)(MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED), -1L, 0L) == (long)here);
            memset(here, 0xf4, 4 << 20);
            CHECK_INT(call((long)SYS_getpid), pid);
        }
        // Back to itself once more, then from under its feet.
        if (round == 2) {
            CHECK(munmap(room, 16 << 20) == 0);
            CHECK(mmap(page, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0) == page);
            CHECK_INT(call((long)SYS_getpid), pid);
        }
        if (sigsetjmp(jump, 1) == 0) {
            call((long)SYS_munmap, page, 4096L);
            CHECK(!"came back");
        }
        CHECK(fault_at == page + 64 + BEHIND_CALL);
        CHECK(fault_rip == page + 64 + BEHIND_CALL);
        munmap(room, 16 << 20);
    }
    close(fd);
}

int main(void) {
    pid = getpid(), parent = getppid();
    GROUP(writable_and_executable_at_once);
    GROUP(writable_or_executable_in_turns);
    GROUP(own_text_rewritten);
    GROUP(text_of_a_file);
    GROUP(mappings_over_everything_near);
    GROUP(calls_that_unmap_what_they_return_to);
    return finish();
}
