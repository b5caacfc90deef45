// Threads that make calls as fast as they can. Thread T makes close(10000000 * (T + 1) + I) for I = 0, 1, ..., all of
// which fail: a trace shows by the argument whether each is there, and in order.
//
//     burst THREADS CALLS
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static long calls;

static void *run(void *argument) {
    long first = 10000000L * ((long)argument + 1);
    for (long i = 0; i < calls; i++) {
        if (syscall(SYS_close, first + i) != -1 || errno != EBADF)
            abort();
    }
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t threads[16];
    long count = argc > 1 ? atol(argv[1]) : 2;
    calls = argc > 2 ? atol(argv[2]) : 1000;
    if (count > 16 || calls > 10000000)
        return 2;
    for (long i = 0; i < count; i++) {
        if (pthread_create(&threads[i], NULL, run, (void *)i) != 0)
            return 1;
    }
    for (long i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    puts("done");
    return 0;
}
