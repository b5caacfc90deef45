// Memory runs out: who is killed, and that the others live. For a container with little memory.
#include "check.h"
#include <fcntl.h>

#define MIB (1ul << 20)

static void set_adj(int adj) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY);
    char text[16];
    int len = snprintf(text, sizeof text, "%d\n", adj);
    CHECK(fd >= 0 && write(fd, text, (size_t)len) == len);
    close(fd);
}

static void use(unsigned long bytes) {
    volatile char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (unsigned long at = 0; at < bytes; at += 4096) p[at] = 1;
}

/* Uses up memory until there is no more. */
static void eat(void) {
    for (;;) {
        char *p = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) _exit(3);
        memset(p, 1, 4 * MIB);
    }
}

static int wait_for(pid_t pid) {
    int status = -1;
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static void the_eater_is_killed(void) {
    for (int round = 0; round < 3; round++) {
        pid_t pid = fork();
        if (pid == 0) eat();
        printf("status %x\n", wait_for(pid));
    }
}

static void whoever_is_marked_goes_first(void) {
    int ready[2];
    char byte;
    CHECK(pipe(ready) == 0);
    pid_t marked = fork();
    if (marked == 0) {
        set_adj(1000);
        use(8 * MIB);
        if (write(ready[1], "x", 1) != 1) _exit(1);
        for (;;) pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    pid_t eater = fork();
    if (eater == 0) eat();
    printf("marked %x, eater %x\n", wait_for(marked), wait_for(eater));
}

static void a_blocked_thread_does_not_save_its_process(void) {
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    pid_t blocked = fork();
    if (blocked == 0) {
        char byte;
        set_adj(500);
        use(30 * MIB);
        if (read(pipes[0], &byte, 1) == 1) _exit(0);
        _exit(1);
    }
    pid_t eater = fork();
    if (eater == 0) eat();
    printf("blocked %x, eater %x\n", wait_for(blocked), wait_for(eater));
}

static void files_in_memory_count(void) {
    pid_t pid = fork();
    if (pid == 0) {
        set_adj(500);
        int fd = memfd_create("large", 0);
        static char block[64 << 10];
        memset(block, 1, sizeof block);
        for (;;)
            if (write(fd, block, sizeof block) < 0) _exit(errno == ENOMEM || errno == ENOSPC ? 4 : 5);
    }
    int status = wait_for(pid);
    printf("%s\n", (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) || status == 4 << 8 ? "ended" : "odd");
    // It is all given back.
    char *p = mmap(NULL, 24 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(p, 1, 24 * MIB);
    CHECK(munmap(p, 24 * MIB) == 0);
}

static void rules_of_the_adjustment(void) {
    int fd = open("/proc/self/oom_score_adj", O_RDWR);
    CHECK_ERRNO(write(fd, "1001", 4), EINVAL);
    CHECK_ERRNO(write(fd, "x", 1), EINVAL);
    CHECK(write(fd, "300\n", 4) == 4);
    char text[16] = "";
    CHECK(pread(fd, text, 15, 0) > 0);
    printf("%s", text);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        char inherited[16] = "";
        int own = open("/proc/self/oom_score_adj", O_RDONLY);
        if (read(own, inherited, 15) > 0) printf("inherited %s", inherited);
        fflush(stdout);
        _exit(0);
    }
    wait_for(pid);
    CHECK(write(fd, "0", 1) == 1);
    CHECK_ERRNO(write(fd, "-1", 2), EACCES);
    close(fd);
}

int main(void) {
    GROUP(rules_of_the_adjustment);
    GROUP(the_eater_is_killed);
    GROUP(whoever_is_marked_goes_first);
    GROUP(a_blocked_thread_does_not_save_its_process);
    GROUP(files_in_memory_count);
    return finish();
}
