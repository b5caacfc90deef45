// 100 threads at one syscall site, meeting each site while it is still fresh.
#include "sites.h"

#define THREADS 100
static long rounds;
static pthread_barrier_t barrier;
static atomic_long total;

static void *body(void *arg) {
    long index = (long)arg, wrong = 0;
    long tid = syscall(SYS_gettid);
    for (int site = 0; site < SITES; site++) {
        pthread_barrier_wait(&barrier);
        for (int i = 0; i < 10; i++) {
            wrong += mov_sites[site]() != tid;
            wrong += reg_sites[site]() != tid;
            // Half of the threads enter in the middle of what may be replaced.
            wrong += split_sites[site](index & 1) != tid;
        }
    }
    pthread_barrier_wait(&barrier);
    for (long i = 0; i < rounds; i++) wrong += mov_sites[0]() != tid;
    total += rounds;
    CHECK_INT(wrong, 0);
    return NULL;
}

int main(int argc, char **argv) {
    rounds = argument(argc, argv, 1, 20000);
    pthread_t threads[THREADS];
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (long i = 0; i < THREADS; i++) threads[i] = start(body, (void *)i);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    CHECK_INT(total, THREADS * rounds);
    return finish();
}
