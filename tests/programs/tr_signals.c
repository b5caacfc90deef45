// Signals, cancellation, unwinding and new processes in the middle of translated system calls: every context that a
// handler sees must be one the program could have without translation.
#include "check.h"
#include <setjmp.h>
#include <spawn.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unwind.h>

/* Sites with labels: name_load, name_call (the syscall), name_back (behind it), name_end. rbx and rcx hold marks. */
#define SITE(name, load, call)                                                               \
    __asm__(".text\n.p2align 6\n.globl " #name ", " #name "_call, " #name "_back, " #name "_end\n" \
            ".type " #name ", @function\n" #name ":\n.cfi_startproc\nmov $0x77, %ecx\n" load "\n"   \
            #name "_call: syscall\n" #name "_back: " call "\nret\n.cfi_endproc\n" #name "_end: nop\n");  \
    long name(long, ...);                                                                    \
    extern char name##_call[], name##_back[], name##_end[]

SITE(load_form, "mov $39, %eax", "mov %eax, %eax");
SITE(compare_form, "mov $39, %eax\nmov %eax, %eax", "cmp $-4095, %rax\njae 1f\n1: mov %eax, %eax");
SITE(before_form, "mov $39, %eax\nlea 0x12345678(%rax), %rsi", "nop");
SITE(read_form, "xor %eax, %eax", "cmp $-4096, %rax\nja 1f\n1:");
SITE(read_form_2, "xor %eax, %eax", "cmp $-4096, %rax\nja 1f\n1:");
SITE(read_form_3, "xor %eax, %eax", "cmp $-4096, %rax\nja 1f\n1:");
SITE(read_form_4, "xor %eax, %eax", "cmp $-4096, %rax\nja 1f\n1:");
SITE(vfork_form, "pop %rdx\nmov $58, %eax\nnop", "mov %rdx, -8(%rsp)\nlea -8(%rsp), %rsp\ncmp $-4095, %rax\njae 1f\n1:");

/* The program's own code: from the first function the linker places to the last. */
extern char __executable_start[], etext[];

static const struct {
    char *begin, *call, *back, *end;
    long number;
} forms[] = {
    {(char *)load_form, load_form_call, load_form_back, load_form_end, 39},
    {(char *)compare_form, compare_form_call, compare_form_back, compare_form_end, 39},
    {(char *)before_form, before_form_call, before_form_back, before_form_end, 39},
};
static atomic_long inside, ticks, wrong;

static void on_tick(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    const greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    char *rip = (char *)r[REG_RIP];
    ticks++;
    if (rip < __executable_start || rip >= etext) wrong++;
    for (int i = 0; i < 3; i++) {
        if (rip < forms[i].begin || rip >= forms[i].end) continue;
        inside++;
        // At each instruction the registers are what those before it have made of them.
        if (rip > forms[i].begin && rip <= forms[i].call && r[REG_RCX] != 0x77) wrong++;
        if (rip == forms[i].call && r[REG_RAX] != forms[i].number) wrong++;
        if (rip >= forms[i].back && (char *)r[REG_RCX] != forms[i].back) wrong++;
        if (rip >= forms[i].back && (r[REG_R11] & 0x202) != 0x202) wrong++;
    }
}

static void timer_signals_hit_every_instruction(void) {
    struct sigaction action = {.sa_sigaction = on_tick, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    struct itimerval timer = {{0, 300}, {0, 300}};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    pid_t pid = getpid();
    while (ticks < 800)
        for (int i = 0; i < 1000; i++)
            if (load_form(0) != pid || compare_form(0) != pid || before_form(0) != pid) wrong++;
    timer = (struct itimerval){0};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    CHECK_INT(wrong, 0);
    CHECK(inside > 0);
}

/* What the last handler saw: where in read_form, and rax. */
static volatile long seen_at, seen_rax, seen_rcx;
static char *volatile form;
static sigjmp_buf jump;
static volatile int leave;

static void on_usr1(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    const greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    seen_at = (char *)r[REG_RIP] - form;
    seen_rax = r[REG_RAX];
    seen_rcx = (char *)r[REG_RCX] - form;
    if (leave) siglongjmp(jump, 1);
}

static pid_t own;
static void *sender(void *arg) {
    int *ends = arg;
    char name[64], state = 0;
    snprintf(name, sizeof name, "/proc/%d/stat", own);
    while (state != 'S') { // until it sleeps in the read
        FILE *file = fopen(name, "r");
        if (!file || fscanf(file, "%*d (%*[^)]) %c", &state) != 1) exit(98);
        fclose(file);
    }
    syscall(SYS_tgkill, own, own, SIGUSR1);
    if (ends) {
        while (seen_at == -1) sched_yield();
        CHECK_INT(write(ends[1], "x", 1), 1);
    }
    return NULL;
}

static void interrupted_reads_start_again_or_fail(void) {
    int ends[2];
    char byte;
    own = getpid();
    CHECK(pipe(ends) == 0);
    form = (char *)read_form;
    // The first call is the one that is patched, later ones come through the thunk.
    for (int round = 0; round < 6; round++) {
        int again = round % 2;
        struct sigaction action = {.sa_sigaction = on_usr1, .sa_flags = SA_SIGINFO | (again ? SA_RESTART : 0)};
        CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
        seen_at = -1;
        pthread_t thread = start(sender, again ? ends : NULL);
        long result = read_form(ends[0], &byte, 1L);
        CHECK_INT(result, again ? 1 : -EINTR);
        pthread_join(thread, NULL);
        CHECK_INT(seen_at, again ? read_form_call - form : read_form_back - form);
        CHECK_INT(seen_rax, again ? 0 : -EINTR);
        CHECK_INT(seen_rcx, read_form_back - form);
    }
    close(ends[0]), close(ends[1]);
}

static void handlers_jump_out_of_reads(void) {
    int ends[2];
    char byte;
    CHECK(pipe(ends) == 0);
    struct sigaction action = {.sa_sigaction = on_usr1, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    form = (char *)read_form_2;
    leave = 1;
    for (volatile int round = 0; round < 30; round++) {
        seen_at = -1;
        pthread_t thread = start(sender, NULL);
        if (sigsetjmp(jump, 1) == 0) {
            read_form_2(ends[0], &byte, 1L);
            CHECK(!"came back");
        }
        pthread_join(thread, NULL);
        CHECK_INT(seen_at, read_form_2_back - form);
    }
    leave = 0;
    close(ends[0]), close(ends[1]);
}

static int pipes[100][2];
static atomic_int entered, done;
static void *one_reader(void *arg) {
    char byte = 0;
    entered++;
    long result = read_form_3(pipes[(long)arg][0], &byte, 1L);
    if (result != 1 || byte != (char)(long)arg) failures++;
    done++;
    return NULL;
}

static void a_hundred_threads_at_a_site_that_is_patched(void) {
    pthread_t threads[100];
    for (long i = 0; i < 100; i++) {
        CHECK(pipe(pipes[i]) == 0);
        threads[i] = start(one_reader, (void *)i);
    }
    while (entered < 100) sched_yield();
    for (int i = 0; i < 100; i++) sched_yield();
    // The first to come back patches the site under the feet of the others.
    for (long i = 0; i < 100; i++) {
        char byte = (char)i;
        CHECK_INT(write(pipes[(i * 37) % 100][1], &byte, 0), 0);
        byte = (char)((i * 37) % 100);
        CHECK_INT(write(pipes[(i * 37) % 100][1], &byte, 1), 1);
        if (i == 0)
            while (done == 0) sched_yield();
    }
    for (int i = 0; i < 100; i++) {
        pthread_join(threads[i], NULL);
        close(pipes[i][0]), close(pipes[i][1]);
    }
}

static atomic_int cleaned;
static void cleanup(void *arg) { (void)arg, cleaned++; }
static void *cancelled(void *arg) {
    int *ends = arg;
    char byte;
    pthread_cleanup_push(cleanup, NULL);
    entered++;
    if (ends[2]) pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    for (;;) {
        if (ends[2] == 2) read_form_4(ends[0], &byte, 1L);
        else if (read(ends[0], &byte, 1) == -1) failures++;
    }
    pthread_cleanup_pop(0);
    return NULL;
}

static void threads_are_cancelled_in_reads(void) {
    int ends[3];
    CHECK(pipe(ends) == 0);
    int expected = 0;
    for (int round = 0; round < 60; round++) {
        ends[2] = round % 3;
        entered = 0;
        pthread_t thread = start(cancelled, ends);
        while (!entered) sched_yield();
        if (round & 1)
            for (int i = 0; i < 20; i++) sched_yield();
        CHECK_INT(pthread_cancel(thread), 0);
        void *result;
        pthread_join(thread, &result);
        CHECK(result == PTHREAD_CANCELED);
        CHECK_INT(cleaned, ++expected);
    }
    close(ends[0]), close(ends[1]);
}

extern char **environ;
static void children_of_vfork_and_spawn(void) {
    for (int round = 0; round < 20; round++) {
        pid_t child = (pid_t)vfork_form(0);
        if (child == 0) _exit(round);
        int status;
        CHECK_INT(waitpid(child, &status, 0), child);
        CHECK_INT(WEXITSTATUS(status), round);
        char *argv[] = {"sh", "-c", "exit 7", NULL};
        CHECK_INT(posix_spawn(&child, "/bin/sh", NULL, NULL, argv, environ), 0);
        CHECK_INT(waitpid(child, &status, 0), child);
        CHECK_INT(WEXITSTATUS(status), 7);
    }
}

/* The frames above a handler: of the read itself, of its caller, ... */
static volatile int frames, found_read, found_caller;
static void __attribute__((noinline)) caller_of_read(int fd);
static _Unwind_Reason_Code count_frame(struct _Unwind_Context *context, void *arg) {
    (void)arg;
    char *ip = (char *)_Unwind_GetIP(context);
    int before = 0;
    void *function = _Unwind_FindEnclosingFunction((void *)(_Unwind_GetIPInfo(context, &before) - !before));
    frames++;
    if (ip >= (char *)read_form_2 && ip <= read_form_2_end) found_read++;
    if (function == (void *)caller_of_read) found_caller++;
    return frames > 100 ? _URC_END_OF_STACK : _URC_NO_REASON;
}
static void on_usr2(int signal) {
    (void)signal;
    frames = found_read = found_caller = 0;
    _Unwind_Backtrace(count_frame, NULL);
}
static void *sender_2(void *arg) {
    (void)arg;
    char name[64], state = 0;
    snprintf(name, sizeof name, "/proc/%d/stat", own);
    while (state != 'S') {
        FILE *file = fopen(name, "r");
        if (!file || fscanf(file, "%*d (%*[^)]) %c", &state) != 1) exit(98);
        fclose(file);
    }
    syscall(SYS_tgkill, own, own, SIGUSR2);
    return NULL;
}
static void caller_of_read(int fd) {
    char byte;
    CHECK_INT(read_form_2(fd, &byte, 1L), -EINTR);
    __asm__ volatile("");
}
static void a_handler_unwinds_through_a_read(void) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    struct sigaction action = {.sa_handler = on_usr2};
    CHECK(sigaction(SIGUSR2, &action, NULL) == 0);
    for (int round = 0; round < 3; round++) {
        pthread_t thread = start(sender_2, NULL);
        caller_of_read(ends[0]);
        pthread_join(thread, NULL);
        CHECK_INT(found_read, 1);
        CHECK_INT(found_caller, 1);
        CHECK(frames >= 5 && frames < 100);
    }
    close(ends[0]), close(ends[1]);
}

/* Whoever jumps to an instruction that was displaced finds it. */
static void jumps_between_displaced_instructions(void) {
    pid_t pid = getpid();
    CHECK_INT(compare_form(0), pid);
    for (int round = 0; round < 20; round++) {
        long result;
        // To the syscall itself, and behind it, with rax as if it had been made.
        __asm__ volatile("lea 1f(%%rip), %%rax\npush %%rax\nmov $39, %%eax\njmp compare_form_call\n1:"
                         : "=a"(result) : : "rcx", "r11", "rdx", "rsi", "rdi", "memory", "cc");
        CHECK_INT(result, pid);
        __asm__ volatile("lea 1f(%%rip), %%rax\npush %%rax\nmov $5, %%eax\njmp compare_form_back\n1:"
                         : "=a"(result) : : "rcx", "r11", "rdx", "rsi", "rdi", "memory", "cc");
        CHECK_INT(result, 5);
    }
    CHECK_INT(compare_form(0), pid);
}

int main(void) {
    GROUP(interrupted_reads_start_again_or_fail);
    GROUP(handlers_jump_out_of_reads);
    GROUP(a_hundred_threads_at_a_site_that_is_patched);
    GROUP(threads_are_cancelled_in_reads);
    GROUP(children_of_vfork_and_spawn);
    GROUP(a_handler_unwinds_through_a_read);
    GROUP(jumps_between_displaced_instructions);
    GROUP(timer_signals_hit_every_instruction);
    return finish();
}
