// Create a thread and join it.
#include "bench.h"

static void *body(void *arg) {
    return arg;
}

static void once(void) {
    pthread_t thread;
    must(pthread_create(&thread, NULL, body, NULL) == 0, "pthread_create");
    must(pthread_join(thread, NULL) == 0, "pthread_join");
}

int main(void) {
    MEASURE(5000, once());
    return 0;
}
