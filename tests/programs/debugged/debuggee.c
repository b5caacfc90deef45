/* What gdb is shown: calls, a signal handler that interrupts a blocked read, threads, a fork. Steps go by pipes, so that
   it does the same in every run. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

static int total;
static volatile int watched = 1;
static struct point {
    int x, y;
    const char *name;
} origin = {3, 4, "origin"};
static int fds[2];

NOINLINE int factorial(int n) {
    return n < 2 ? 1 : n * factorial(n - 1);
}

/* A place close to what is watched. */
NOINLINE void mark(void) {
    __asm__ volatile("");
}

NOINLINE void in_handler(int signo) {
    total += signo;
}

static void handler(int signo) {
    in_handler(signo);
    if (write(fds[1], "x", 1) != 1) abort();
}

NOINLINE static long blocked(void) {
    char byte;
    long got = read(fds[0], &byte, 1);
    total++;
    return got;
}

NOINLINE static void *worker(void *arg) {
    total += blocked();
    return arg;
}

/* Sends the signal once the thread `tid` sleeps. */
static void kick(pthread_t thread, int tid) {
    char path[64], text[512], *state;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    do {
        FILE *file = fopen(path, "r");
        if (!file || !fgets(text, sizeof text, file)) abort();
        fclose(file);
        state = strrchr(text, ')');
    } while (!state || state[2] != 'S');
    pthread_kill(thread, SIGUSR1);
}

static void *kicker(void *arg) {
    kick(*(pthread_t *)arg, getpid());
    return NULL;
}

int main(int argc, char **argv) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    /* Translated before anyone looks, if anything is. */
    for (int i = 0; i < 20; i++) getppid();
    sigaction(SIGUSR1, &action, NULL);
    if (pipe(fds)) abort();
    printf("%d\n", factorial(5));
    mark();
    watched = 2;
    watched = watched * 10;
    origin.x = watched + origin.y;
    pthread_t self = pthread_self(), thread;
    pthread_create(&thread, NULL, kicker, &self);
    worker(argv);
    pthread_join(thread, NULL);
    fflush(stdout);
    if (fork() == 0) _exit(5);
    int status;
    wait(&status);
    printf("status %x total %d argc %d\n", status, total, argc);
    return 7;
}
