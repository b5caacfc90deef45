// Processes, waiting, exec, descriptors, pipes.
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>

static int status_of(pid_t pid) {
    int status = -1;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    return status;
}

static void a_tree_of_forks(void) {
    // Each of 6 levels forks two and adds up what they report.
    pid_t top = fork();
    if (top == 0) {
        int sum = 1;
        for (int level = 0; level < 6; level++) {
            pid_t pid = fork();
            if (pid == 0) sum = 1;
            else {
                int status;
                waitpid(pid, &status, 0);
                sum += WEXITSTATUS(status);
            }
        }
        _exit(sum);
    }
    CHECK_INT(WEXITSTATUS(status_of(top)), 64);
}

static void waiting_variants(void) {
    pid_t quick = fork();
    if (quick == 0) _exit(3);
    siginfo_t info = {0};
    CHECK(waitid(P_PID, quick, &info, WEXITED | WNOWAIT) == 0);
    CHECK_INT(info.si_pid, quick);
    CHECK_INT(info.si_code, CLD_EXITED);
    CHECK_INT(info.si_status, 3);
    // It is a zombie and can be waited for once more; signals to it succeed.
    CHECK(kill(quick, 0) == 0);
    int status;
    struct rusage usage;
    CHECK_INT(wait4(-1, &status, 0, &usage), quick);
    CHECK_INT(WEXITSTATUS(status), 3);
    CHECK_ERRNO(kill(quick, 0), ESRCH);
    CHECK_ERRNO(waitpid(-1, &status, 0), ECHILD);
    CHECK_ERRNO(waitpid(1 << 21, &status, 0), ECHILD);
    CHECK_ERRNO(waitpid(-1, &status, 0x4000), EINVAL);

    pid_t slow = fork();
    if (slow == 0)
        for (;;) pause();
    CHECK_INT(waitpid(slow, &status, WNOHANG), 0);
    kill(slow, SIGSTOP);
    CHECK_INT(waitpid(slow, &status, WUNTRACED), slow);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    kill(slow, SIGCONT);
    CHECK_INT(waitpid(slow, &status, WCONTINUED), slow);
    CHECK(WIFCONTINUED(status));
    kill(slow, SIGKILL);
    CHECK_INT(waitid(P_ALL, 0, &info, WEXITED), 0);
    CHECK_INT(info.si_code, CLD_KILLED);
    CHECK_INT(info.si_status, SIGKILL);
}

static void children_by_group(void) {
    pid_t own = fork();
    if (own == 0) {
        setpgid(0, 0);
        for (;;) pause();
    }
    setpgid(own, own);
    CHECK_INT(getpgid(own), own);
    CHECK(kill(-own, SIGTERM) == 0);
    int status;
    CHECK_INT(waitpid(-own, &status, 0), own);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    pid_t leader = fork();
    if (leader == 0) _exit(setsid() == getpid() && getsid(0) == getpid() && getpgrp() == getpid() ? 0 : 1);
    CHECK_INT(status_of(leader), 0);
}

static void an_orphan_goes_to_init(void) {
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    pid_t middle = fork();
    if (middle == 0) {
        pid_t parent = getpid();
        if (fork() == 0) {
            while (getppid() == parent) sched_yield();
            pid_t now = getppid();
            (void)!write(pipes[1], &now, sizeof now);
            _exit(0);
        }
        _exit(0);
    }
    CHECK_INT(status_of(middle), 0);
    pid_t adopter = 0;
    CHECK(read(pipes[0], &adopter, sizeof adopter) == sizeof adopter);
    CHECK_INT(adopter, 1);
    close(pipes[0]), close(pipes[1]);
}

static void ignored_children_leave_no_zombies(void) {
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGCHLD, SIG_IGN);
        for (int i = 0; i < 10; i++)
            if (fork() == 0) _exit(0);
        _exit(wait(NULL) == -1 && errno == ECHILD ? 0 : 1);
    }
    CHECK_INT(status_of(pid), 0);
}

static volatile sig_atomic_t children;
static volatile int child_code, child_status;
static void on_child(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    child_code = info->si_code, child_status = info->si_status;
    children++;
}

static void sigchld_tells(void) {
    struct sigaction action = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGCHLD, &action, NULL);
    pid_t pid = fork();
    if (pid == 0) _exit(9);
    CHECK_INT(WEXITSTATUS(status_of(pid)), 9);
    CHECK_INT(children, 1);
    CHECK_INT(child_code, CLD_EXITED);
    CHECK_INT(child_status, 9);
    signal(SIGCHLD, SIG_DFL);
}

static void vfork_and_exec(void) {
    for (volatile int i = 0; i < 50; i++) {
        volatile int changed = 0;
        pid_t pid = vfork();
        if (pid == 0) {
            changed = 1; // one memory: the parent sees it
            execl("/proc/self/exe", "procs", "exit", "17", NULL);
            _exit(1);
        }
        CHECK_INT(changed, 1);
        CHECK_INT(WEXITSTATUS(status_of(pid)), 17);
    }
    pid_t pid = vfork();
    if (pid == 0) _exit(18);
    CHECK_INT(WEXITSTATUS(status_of(pid)), 18);
}

static void exec_errors(void) {
    char *arguments[] = {"x", NULL};
    CHECK_ERRNO(execv("/nothing", arguments), ENOENT);
    CHECK_ERRNO(execv("/etc/passwd", arguments), EACCES);
    CHECK_ERRNO(execv("/etc", arguments), EACCES);
    CHECK_ERRNO(execv("/etc/passwd/x", arguments), ENOTDIR);
    CHECK_ERRNO(execv("", arguments), ENOENT);
    CHECK_ERRNO(execv("/home/ada/garbage", arguments), ENOEXEC);
    CHECK_ERRNO(syscall(SYS_execve, 16, arguments, NULL), EFAULT);
    CHECK_ERRNO(syscall(SYS_execve, "/bin/true", 16, NULL), EFAULT);
}

static void close_on_exec(void) {
    int kept = open("/etc/passwd", O_RDONLY), closed = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    CHECK(kept >= 0 && closed >= 0);
    CHECK_INT(fcntl(closed, F_GETFD), FD_CLOEXEC);
    CHECK_INT(fcntl(kept, F_GETFD), 0);
    char numbers[2][16];
    sprintf(numbers[0], "%d", kept), sprintf(numbers[1], "%d", closed);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", "procs", "descriptors", numbers[0], numbers[1], NULL);
        _exit(1);
    }
    CHECK_INT(status_of(pid), 0);
    close(kept), close(closed);
}

static void arguments_and_environment_arrive(void) {
    pid_t pid = fork();
    if (pid == 0) {
        char *arguments[] = {"procs", "arguments", "", "two words", "\xff\x01", NULL};
        char *environment[] = {"A=1", "EMPTY=", "B=x=y", NULL};
        execve("/proc/self/exe", arguments, environment);
        _exit(1);
    }
    CHECK_INT(status_of(pid), 0);
}

static void pipes_break(void) {
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    close(pipes[0]);
    pid_t pid = fork();
    if (pid == 0) {
        (void)!write(pipes[1], "x", 1);
        _exit(0);
    }
    int status = status_of(pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
    signal(SIGPIPE, SIG_IGN);
    CHECK_ERRNO(write(pipes[1], "x", 1), EPIPE);
    signal(SIGPIPE, SIG_DFL);
    close(pipes[1]);
    CHECK(pipe(pipes) == 0);
    close(pipes[1]);
    char byte;
    CHECK_INT(read(pipes[0], &byte, 1), 0);
    CHECK_ERRNO(write(pipes[0], "x", 1), EBADF);
    close(pipes[0]);
}

static void pipes_fill(void) {
    int pipes[2];
    CHECK(pipe2(pipes, O_NONBLOCK | O_CLOEXEC) == 0);
    char block[4096] = {1};
    char byte;
    CHECK_ERRNO(read(pipes[0], &byte, 1), EAGAIN);
    long written = 0;
    ssize_t count;
    while ((count = write(pipes[1], block, sizeof block)) > 0) written += count;
    CHECK_INT(errno, EAGAIN);
    CHECK_INT(written, 65536);
    long got = 0;
    while ((count = read(pipes[0], block, sizeof block)) > 0) got += count;
    CHECK_INT(got, 65536);
    CHECK_INT(fcntl(pipes[0], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    CHECK_INT(fcntl(pipes[1], F_GETFL) & O_ACCMODE, O_WRONLY);
    close(pipes[0]), close(pipes[1]);
    // Through a full pipe, byte by byte in order.
    CHECK(pipe(pipes) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(pipes[0]);
        for (int i = 0; i < 300; i++) {
            memset(block, i, sizeof block);
            if (write(pipes[1], block, sizeof block) != sizeof block) _exit(1);
        }
        _exit(0);
    }
    close(pipes[1]);
    long wrong = 0, total = 0;
    while ((count = read(pipes[0], block, 1000)) > 0)
        for (ssize_t i = 0; i < count; i++, total++) wrong += block[i] != (char)(total / 4096);
    CHECK_INT(total, 300 * 4096);
    CHECK_INT(wrong, 0);
    CHECK_INT(status_of(pid), 0);
    close(pipes[0]);
}

static void polling(void) {
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    struct pollfd both[2] = {{.fd = pipes[0], .events = POLLIN}, {.fd = pipes[1], .events = POLLOUT}};
    CHECK_INT(poll(both, 1, 0), 0);
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    CHECK_INT(poll(both, 1, 20), 0);
    clock_gettime(CLOCK_MONOTONIC, &after);
    CHECK((after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec >= 20000000);
    CHECK_INT(poll(both, 2, -1), 1);
    CHECK_INT(both[1].revents, POLLOUT);
    CHECK_INT(both[0].revents, 0);
    pid_t pid = fork();
    if (pid == 0) _exit(write(pipes[1], "x", 1) == 1 ? 0 : 1);
    CHECK_INT(poll(both, 1, -1), 1);
    CHECK_INT(both[0].revents, POLLIN);
    CHECK_INT(status_of(pid), 0);
    close(pipes[1]);
    both[1].fd = 99;
    CHECK_INT(poll(both, 2, -1), 2);
    CHECK_INT(both[0].revents, POLLIN | POLLHUP);
    CHECK_INT(both[1].revents, POLLNVAL);
    close(pipes[0]);
}

static void duplicates(void) {
    int file = open("/etc/passwd", O_RDONLY);
    int copy = dup(file), high = fcntl(file, F_DUPFD, 100);
    CHECK(copy > file);
    CHECK_INT(high, 100);
    CHECK_INT(dup2(file, 101), 101);
    CHECK_INT(dup2(file, file), file);
    CHECK_ERRNO(dup3(file, file, 0), EINVAL);
    CHECK_INT(dup3(file, 102, O_CLOEXEC), 102);
    CHECK_INT(fcntl(102, F_GETFD), FD_CLOEXEC);
    char first[10], second[10];
    CHECK(read(file, first, 10) == 10);
    CHECK(read(copy, second, 10) == 10); // one offset
    CHECK(memcmp(first, second, 10) != 0);
    CHECK_INT(lseek(101, 0, SEEK_CUR), 20);
    CHECK_ERRNO(dup(99), EBADF);
    CHECK_ERRNO(dup2(file, 1 << 20), EBADF);
    CHECK_ERRNO(close(99), EBADF);
    CHECK_ERRNO(fcntl(file, F_DUPFD, 1 << 20), EINVAL);
    int ends[5] = {file, copy, high, 101, 102};
    for (int i = 0; i < 5; i++) CHECK(close(ends[i]) == 0);
    CHECK_INT(open("/etc/passwd", O_RDONLY), file); // the lowest free number
    close(file);
}

static void descriptors_run_out(void) {
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    struct rlimit less = {40, limit.rlim_max};
    CHECK(setrlimit(RLIMIT_NOFILE, &less) == 0);
    int last = -1, fd;
    while ((fd = open("/dev/null", O_RDONLY)) >= 0) last = fd;
    CHECK_INT(errno, EMFILE);
    CHECK_INT(last, 39);
    int pipes[2];
    CHECK_ERRNO(pipe(pipes), EMFILE);
    for (fd = 3; fd <= last; fd++) close(fd);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static void unknown_syscalls(void) {
    CHECK_ERRNO(syscall(100000), ENOSYS);
    CHECK_ERRNO(syscall(-1), ENOSYS);
    CHECK_ERRNO(syscall(400), ENOSYS);
}

static int role(int argc, char **argv) {
    if (strcmp(argv[1], "exit") == 0) return atoi(argv[2]);
    if (strcmp(argv[1], "descriptors") == 0)
        return !(fcntl(atoi(argv[2]), F_GETFD) == 0 && fcntl(atoi(argv[3]), F_GETFD) == -1);
    extern char **environ;
    return !(argc == 5 && argv[2][0] == 0 && strcmp(argv[3], "two words") == 0 && strcmp(argv[4], "\xff\x01") == 0
             && strcmp(environ[0], "A=1") == 0 && strcmp(environ[1], "EMPTY=") == 0
             && strcmp(environ[2], "B=x=y") == 0 && environ[3] == NULL);
}

int main(int argc, char **argv) {
    if (argc > 1) return role(argc, argv);
    GROUP(a_tree_of_forks);
    GROUP(waiting_variants);
    GROUP(children_by_group);
    GROUP(ignored_children_leave_no_zombies);
    GROUP(sigchld_tells);
    GROUP(vfork_and_exec);
    GROUP(exec_errors);
    GROUP(close_on_exec);
    GROUP(arguments_and_environment_arrive);
    GROUP(pipes_break);
    GROUP(pipes_fill);
    GROUP(polling);
    GROUP(duplicates);
    GROUP(descriptors_run_out);
    GROUP(unknown_syscalls);
    GROUP(an_orphan_goes_to_init);
    return finish();
}
