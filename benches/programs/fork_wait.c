// fork, exit in the child, wait.
#include "bench.h"

static void once(void) {
    pid_t pid = fork();
    must(pid >= 0, "fork");
    if (pid == 0) _exit(0);
    int status;
    must(waitpid(pid, &status, 0) == pid && status == 0, "waitpid");
}

int main(void) {
    MEASURE(1000, once());
    return 0;
}
