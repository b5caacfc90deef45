// Descriptors of signals and processes, and what one process may do of another's.
#include "check.h"
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x1000
#endif

static int pidfd_open(pid_t pid, unsigned flags) { return syscall(SYS_pidfd_open, pid, flags); }
static int pidfd_signal(int fd, int sig, siginfo_t *info, unsigned flags) {
    return syscall(SYS_pidfd_send_signal, fd, sig, info, flags);
}
static int pidfd_getfd(int fd, int target, unsigned flags) {
    return syscall(SYS_pidfd_getfd, fd, target, flags);
}

static int readable(int fd) {
    struct pollfd p = {fd, POLLIN, 0};
    CHECK(poll(&p, 1, 0) >= 0);
    return p.revents;
}

static void signal_descriptors(void) {
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 1);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGKILL);
    CHECK(sigprocmask(SIG_BLOCK, &set, &old) == 0);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_INT(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_ERRNO(signalfd(-1, &set, 1), EINVAL);
    CHECK_ERRNO(signalfd(0, &set, 0), EINVAL);
    CHECK_ERRNO(signalfd(1000, &set, 0), EBADF);
    CHECK_ERRNO(syscall(SYS_signalfd4, -1, &set, 4, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_signalfd4, -1, 8L, 8, 0), EFAULT);

    struct signalfd_siginfo infos[4];
    CHECK_ERRNO(read(fd, infos, 127), EINVAL);
    CHECK_ERRNO(read(fd, infos, sizeof infos), EAGAIN);
    CHECK_INT(readable(fd), 0);
    kill(getpid(), SIGUSR1);
    union sigval value = {.sival_int = 4711};
    sigqueue(getpid(), SIGRTMIN + 1, value);
    value.sival_int = 4712;
    sigqueue(getpid(), SIGRTMIN + 1, value);
    CHECK_INT(readable(fd), POLLIN);
    CHECK_INT(read(fd, infos, 2 * 128 + 5), 2 * 128);
    CHECK_INT(infos[0].ssi_signo, SIGUSR1);
    CHECK_INT(infos[0].ssi_pid, getpid());
    CHECK_INT(infos[0].ssi_code, SI_USER);
    CHECK_INT(infos[1].ssi_signo, SIGRTMIN + 1);
    CHECK_INT(infos[1].ssi_int, 4711);
    CHECK_INT(infos[1].ssi_code, SI_QUEUE);
    CHECK_INT(read(fd, infos, sizeof infos), 128);
    CHECK_INT(infos[0].ssi_int, 4712);

    // A child's end, waited for in an epoll set and in a blocking read.
    int ep = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event) == 0);
    pid_t child = fork();
    if (child == 0) _exit(9);
    CHECK_INT(epoll_wait(ep, &event, 1, 10000), 1);
    CHECK_INT(read(fd, infos, sizeof infos), 128);
    CHECK_INT(infos[0].ssi_signo, SIGCHLD);
    CHECK_INT(infos[0].ssi_pid, child);
    CHECK_INT(infos[0].ssi_status, 9);
    CHECK_INT(infos[0].ssi_code, CLD_EXITED);
    CHECK_INT(waitpid(child, NULL, 0), child);
    close(ep);

    fcntl(fd, F_SETFL, 0);
    child = fork();
    if (child == 0) {
        kill(getppid(), SIGUSR1);
        _exit(0);
    }
    CHECK_INT(read(fd, infos, 128), 128);
    CHECK_INT(infos[0].ssi_pid, child);
    CHECK_INT(waitpid(child, NULL, 0), child);
    CHECK_INT(read(fd, infos, 128), 128);
    CHECK_INT(infos[0].ssi_signo, SIGCHLD);

    // Another set for the same descriptor.
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    CHECK_INT(signalfd(fd, &set, 0), fd);
    kill(getpid(), SIGUSR1);
    CHECK_INT(readable(fd), 0);
    close(fd);
    struct timespec now = {0, 0};
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    CHECK_INT(sigtimedwait(&set, NULL, &now), SIGUSR1);
    sigprocmask(SIG_SETMASK, &old, NULL);
}

static void process_descriptors(void) {
    CHECK_ERRNO(pidfd_open(0, 0), EINVAL);
    CHECK_ERRNO(pidfd_open(-1, 0), EINVAL);
    CHECK_ERRNO(pidfd_open(getpid(), 1), EINVAL);
    CHECK_ERRNO(pidfd_open(1 << 21, 0), ESRCH);

    int pipes[2];
    CHECK(pipe(pipes) == 0);
    pid_t child = fork();
    if (child == 0) {
        char c;
        read(pipes[0], &c, 1);
        for (;;) pause();
    }
    int fd = pidfd_open(child, 0);
    CHECK(fd >= 0);
    CHECK_INT(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_INT(readable(fd), 0);
    char c;
    CHECK_ERRNO(read(fd, &c, 1), EINVAL);
    CHECK_INT(pidfd_signal(fd, 0, NULL, 0), 0);
    CHECK_ERRNO(pidfd_signal(fd, 65, NULL, 0), EINVAL);
    CHECK_ERRNO(pidfd_signal(fd, 0, NULL, 64), EINVAL);
    CHECK_ERRNO(pidfd_signal(pipes[0], 0, NULL, 0), EBADF);
    siginfo_t info = {.si_signo = SIGUSR1, .si_code = SI_USER};
    CHECK_ERRNO(pidfd_signal(fd, SIGUSR2, &info, 0), EINVAL);
    CHECK_ERRNO(pidfd_signal(fd, SIGUSR1, &info, 0), EPERM);

    // A descriptor of the child's.
    int copy = pidfd_getfd(fd, pipes[1], 0);
    CHECK(copy >= 0);
    CHECK_INT(fcntl(copy, F_GETFD), FD_CLOEXEC);
    CHECK_INT(syscall(SYS_kcmp, getpid(), child, KCMP_FILE, copy, pipes[1]), 0);
    CHECK_ERRNO(pidfd_getfd(fd, 999, 0), EBADF);
    CHECK_ERRNO(pidfd_getfd(fd, 0, 1), EINVAL);
    CHECK_INT(write(copy, "x", 1), 1);

    CHECK(waitid(P_PIDFD, fd, &info, WEXITED | WNOHANG) == 0);
    CHECK_INT(pidfd_signal(fd, SIGTERM, NULL, 0), 0);
    struct pollfd p = {fd, POLLIN, 0};
    CHECK_INT(poll(&p, 1, 10000), 1);
    CHECK_INT(p.revents, POLLIN);
    CHECK_INT(pidfd_signal(fd, 0, NULL, 0), 0);
    CHECK(waitid(P_PIDFD, fd, &info, WEXITED) == 0);
    CHECK_INT(info.si_pid, child);
    CHECK_INT(info.si_status, SIGTERM);
    CHECK_ERRNO(pidfd_signal(fd, 0, NULL, 0), ESRCH);
    CHECK_ERRNO(waitid(P_PIDFD, fd, &info, WEXITED), ECHILD);
    CHECK_ERRNO(waitid(P_PIDFD, pipes[0], &info, WEXITED), EBADF);
    close(fd);
    close(copy);

    // From clone itself.
    int made = -1;
    pid_t cloned = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, 0, &made, 0, 0);
    if (cloned == 0) _exit(5);
    CHECK(cloned > 0 && made >= 0);
    CHECK(waitid(P_PIDFD, made, &info, WEXITED) == 0);
    CHECK_INT(info.si_status, 5);
    CHECK_ERRNO(syscall(SYS_clone, CLONE_PIDFD | CLONE_PARENT_SETTID | SIGCHLD, 0, &made, 0, 0), EINVAL);
    close(made);
    fd = pidfd_open(getpid(), O_NONBLOCK);
    CHECK_INT(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    close(fd);
    close(pipes[0]);
    close(pipes[1]);
}

static char shared_text[64] = "from the parent";

static void memory_of_others(void) {
    int pipes[2], back[2];
    CHECK(pipe(pipes) == 0 && pipe(back) == 0);
    pid_t child = fork();
    if (child == 0) {
        char c;
        strcpy(shared_text, "from the child");
        write(back[1], "r", 1);
        read(pipes[0], &c, 1);
        _exit(strcmp(shared_text, "FROM the child") ? 1 : 0);
    }
    char c, here[64] = "";
    CHECK_INT(read(back[0], &c, 1), 1);
    struct iovec local[2] = {{here, 5}, {here + 5, 20}};
    struct iovec remote[2] = {{shared_text, 8}, {shared_text + 8, 7}};
    CHECK_INT(process_vm_readv(child, local, 2, remote, 2, 0), 15);
    CHECK(strcmp(here, "from the child") == 0);
    CHECK(strcmp(shared_text, "from the parent") == 0);
    struct iovec from = {"FROM", 4}, to = {shared_text, 4};
    CHECK_INT(process_vm_writev(child, &from, 1, &to, 1, 0), 4);
    CHECK_ERRNO(process_vm_readv(child, local, 2, remote, 2, 1), EINVAL);
    CHECK_ERRNO(process_vm_readv(1 << 21, local, 2, remote, 2, 0), ESRCH);
    CHECK_ERRNO(process_vm_readv(child, local, 2000, remote, 2, 0), EINVAL);
    CHECK_INT(process_vm_readv(child, local, 0, remote, 2, 0), 0);
    struct iovec nowhere[2] = {{shared_text, 4}, {(void *)8, 4}};
    CHECK_INT(process_vm_readv(child, local, 2, nowhere, 2, 0), 4);
    CHECK_ERRNO(process_vm_readv(child, local, 2, nowhere + 1, 1, 0), EFAULT);
    // Read-only there: a store of its own would fault too.
    struct iovec text = {(void *)memory_of_others, 4};
    CHECK_ERRNO(process_vm_writev(child, &from, 1, &text, 1, 0), EFAULT);

    CHECK(syscall(SYS_kcmp, getpid(), child, KCMP_VM, 0, 0) > 0);
    CHECK_INT(syscall(SYS_kcmp, child, child, KCMP_VM, 0, 0), 0);
    CHECK_INT(syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILES, 0, 0), 0);
    CHECK_INT(syscall(SYS_kcmp, getpid(), child, KCMP_FILE, pipes[0], pipes[0]), 0);
    CHECK(syscall(SYS_kcmp, getpid(), child, KCMP_FILE, pipes[0], pipes[1]) > 0);
    CHECK_ERRNO(syscall(SYS_kcmp, getpid(), child, KCMP_FILE, 999, pipes[1]), EBADF);
    CHECK_ERRNO(syscall(SYS_kcmp, getpid(), 1 << 21, KCMP_VM, 0, 0), ESRCH);
    CHECK_ERRNO(syscall(SYS_kcmp, getpid(), child, 100, 0, 0), EINVAL);

    int status;
    CHECK_INT(write(pipes[1], "g", 1), 1);
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
}

int main(void) {
    GROUP(signal_descriptors);
    GROUP(process_descriptors);
    GROUP(memory_of_others);
    return finish();
}
