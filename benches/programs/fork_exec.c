// fork, execve of this static program in the child, exit, wait.
#include "bench.h"

static void once(void) {
    pid_t pid = fork();
    must(pid >= 0, "fork");
    if (pid == 0) {
        execl("/proc/self/exe", "fork_exec", "child", NULL);
        _exit(1);
    }
    int status;
    must(waitpid(pid, &status, 0) == pid && status == 0, "waitpid");
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1) return 0;
    MEASURE(500, once());
    return 0;
}
