// Write one byte to a pipe and read it, in one thread.
#include "bench.h"

int main(void) {
    int pipes[2];
    char byte = 1;
    must(pipe(pipes) == 0, "pipe");
    MEASURE(300000, must(write(pipes[1], &byte, 1) == 1 && read(pipes[0], &byte, 1) == 1, "pipe"));
    return 0;
}
