// flags: -fno-omit-frame-pointer -fno-optimize-sibling-calls -lunwind -llzma
// libunwind walks from a handler through the signal frame and the call it interrupted, untranslated and translated, out to main.
#define UNW_LOCAL_ONLY
#include "check.h"
#include <libunwind.h>

static int rounds, pipes[2];

static void walk(void) {
    unw_context_t context;
    unw_cursor_t cursor;
    unw_getcontext(&context);
    unw_init_local(&cursor, &context);
    printf("round %d:", rounds);
    int signals = 0, step;
    while ((step = unw_step(&cursor)) > 0) {
        char name[64] = "?";
        unw_word_t offset;
        unw_get_proc_name(&cursor, name, sizeof name, &offset);
        if (unw_is_signal_frame(&cursor) > 0) {
            signals++;
            printf(" <signal>");
        } else if (!strncmp(name, "outer", 5) || !strcmp(name, "main") || !strcmp(name, "handler") || strstr(name, "read")) {
            printf(" %s", name);
        }
        if (!strcmp(name, "main")) break;
    }
    printf(" %s, %d signal frames\n", step > 0 ? "main reached" : "lost", signals);
}

static void handler(int signo) {
    (void)signo;
    walk();
    // The interrupted read goes on and gets this.
    CHECK_INT(write(pipes[1], "x", 1), 1);
}

static __attribute__((noinline)) long outer_read(void) {
    char byte;
    long got = read(pipes[0], &byte, 1);
    atomic_signal_fence(memory_order_seq_cst);
    return got;
}

static __attribute__((noinline)) long outer_most(void) {
    long got = outer_read();
    atomic_signal_fence(memory_order_seq_cst);
    return got;
}

static void *kick(void *arg) {
    char path[64], state;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
    do {
        FILE *file = fopen(path, "r");
        CHECK_INT(fscanf(file, "%*d %*s %c", &state), 1);
        fclose(file);
        sched_yield();
    } while (state != 'S');
    pthread_kill(*(pthread_t *)arg, SIGUSR1);
    return NULL;
}

int main(void) {
    CHECK_INT(pipe(pipes), 0);
    struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };
    sigaction(SIGUSR1, &action, NULL);
    pthread_t self = pthread_self();
    for (rounds = 0; rounds < 5; rounds++) {
        pthread_t thread = start(kick, &self);
        CHECK_INT(outer_most(), 1);
        pthread_join(thread, NULL);
    }
    return finish();
}
