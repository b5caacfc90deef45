// Signal-driven input and output of pipes and sockets.
#include "check.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static atomic_int plain, detailed, last_fd, last_code, last_band;

static void on_plain(int sig) { plain += sig == SIGIO; }
static void on_detailed(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)context;
    last_fd = info->si_fd;
    last_code = info->si_code;
    last_band = info->si_band;
    detailed++;
}

static void owners(void) {
    int fds[2];
    CHECK(pipe(fds) == 0);
    CHECK_INT(fcntl(fds[0], F_GETOWN), 0);
    CHECK_INT(fcntl(fds[0], F_SETOWN, getpid()), 0);
    CHECK_INT(fcntl(fds[0], F_GETOWN), getpid());
    CHECK_INT(fcntl(fds[0], F_SETOWN, -getpgrp()), 0);
    struct f_owner_ex owner;
    CHECK_INT(fcntl(fds[0], F_GETOWN_EX, &owner), 0);
    CHECK_INT(owner.type, F_OWNER_PGRP);
    CHECK_INT(owner.pid, getpgrp());
    owner.type = F_OWNER_TID;
    owner.pid = getpid();
    CHECK_INT(fcntl(fds[0], F_SETOWN_EX, &owner), 0);
    owner.type = 9;
    CHECK_ERRNO(fcntl(fds[0], F_SETOWN_EX, &owner), EINVAL);
    CHECK_ERRNO(fcntl(fds[0], F_SETOWN_EX, (void *)8), EFAULT);
    CHECK_INT(fcntl(fds[0], F_GETOWN_EX, &owner), 0);
    CHECK_INT(owner.type, F_OWNER_TID);
    CHECK_ERRNO(fcntl(fds[0], F_SETOWN, 1 << 21), ESRCH);
    CHECK_ERRNO(fcntl(fds[0], F_SETOWN, 1 << 31), EINVAL);
    CHECK_INT(fcntl(fds[0], F_SETOWN, 0), 0);
    CHECK_INT(fcntl(fds[0], F_GETOWN), 0);
    CHECK_ERRNO(fcntl(fds[0], F_SETSIG, 65), EINVAL);
    CHECK_ERRNO(fcntl(fds[0], F_SETSIG, -1), EINVAL);
    CHECK_INT(fcntl(fds[0], F_SETSIG, SIGRTMIN), 0);
    CHECK_INT(fcntl(fds[0], F_GETSIG), SIGRTMIN);
    CHECK_INT(fcntl(fds[1], F_GETSIG), 0);
    close(fds[0]);
    close(fds[1]);
    // A file that cannot do it does not say so.
    int null = open("/dev/null", O_RDWR);
    CHECK_INT(fcntl(null, F_SETFL, O_ASYNC), 0);
    CHECK_INT(fcntl(null, F_GETFL) & O_ASYNC, 0);
    close(null);
}

static void signals(void) {
    int fds[2];
    CHECK(pipe(fds) == 0);
    signal(SIGIO, on_plain);
    CHECK_INT(fcntl(fds[0], F_SETOWN, getpid()), 0);
    CHECK_INT(write(fds[1], "a", 1), 1);
    CHECK_INT(plain, 0);
    CHECK_INT(fcntl(fds[0], F_SETFL, O_ASYNC | O_NONBLOCK), 0);
    CHECK_INT(fcntl(fds[0], F_GETFL), O_ASYNC | O_NONBLOCK);
    CHECK_INT(write(fds[1], "b", 1), 1);
    CHECK_INT(plain, 1);
    CHECK_INT(write(fds[1], "c", 1), 1);
    CHECK_INT(plain, 2);

    struct sigaction action = {.sa_sigaction = on_detailed, .sa_flags = SA_SIGINFO};
    sigaction(SIGRTMIN + 2, &action, NULL);
    CHECK_INT(fcntl(fds[0], F_SETSIG, SIGRTMIN + 2), 0);
    CHECK_INT(write(fds[1], "d", 1), 1);
    CHECK_INT(detailed, 1);
    CHECK_INT(last_fd, fds[0]);
    CHECK_INT(last_code, POLL_IN);
    CHECK_INT(last_band, POLLIN | POLLRDNORM);
    char bytes[8];
    CHECK_INT(read(fds[0], bytes, sizeof bytes), 4);

    // The other end: room again, and the reader's leaving.
    CHECK_INT(fcntl(fds[1], F_SETOWN, getpid()), 0);
    CHECK_INT(fcntl(fds[1], F_SETSIG, SIGRTMIN + 2), 0);
    int on = 1;
    CHECK_INT(ioctl(fds[1], FIOASYNC, &on), 0);
    CHECK_INT(write(fds[1], "e", 1), 1);
    detailed = 0;
    CHECK_INT(read(fds[0], bytes, sizeof bytes), 1);
    CHECK_INT(detailed, 1);
    CHECK_INT(last_fd, fds[1]);
    CHECK_INT(last_code, POLL_OUT);
    CHECK_INT(last_band, POLLOUT | POLLWRNORM | POLLWRBAND);
    CHECK_INT(fcntl(fds[0], F_SETFL, 0), 0);
    detailed = 0;
    CHECK_INT(write(fds[1], "f", 1), 1);
    CHECK_INT(detailed, 0);
    close(fds[0]);
    CHECK_INT(detailed, 1);
    CHECK_INT(last_fd, fds[1]);
    close(fds[1]);
}

static void of_another_process(void) {
    int fds[2], back[2];
    CHECK(pipe(fds) == 0 && pipe(back) == 0);
    plain = 0;
    pid_t child = fork();
    if (child == 0) {
        char c;
        read(back[0], &c, 1);
        write(fds[1], "x", 1);
        _exit(0);
    }
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGIO);
    sigprocmask(SIG_BLOCK, &set, &old);
    CHECK_INT(fcntl(fds[0], F_SETOWN, getpid()), 0);
    CHECK_INT(fcntl(fds[0], F_SETFL, O_ASYNC), 0);
    CHECK_INT(write(back[1], "g", 1), 1);
    siginfo_t info;
    CHECK_INT(sigwaitinfo(&set, &info), SIGIO);
    CHECK_INT(info.si_code, SI_KERNEL);
    sigprocmask(SIG_SETMASK, &old, NULL);
    CHECK_INT(waitpid(child, NULL, 0), child);
}

/* Asks for SIGRTMIN + 2 of what happens to `fd`. */
static void ask(int fd) {
    int on = 1, me = getpid(), owner = 0;
    CHECK_INT(ioctl(fd, FIOSETOWN, &me), 0);
    CHECK_INT(ioctl(fd, SIOCGPGRP, &owner), 0);
    CHECK_INT(owner, me);
    CHECK_INT(fcntl(fd, F_SETSIG, SIGRTMIN + 2), 0);
    CHECK_INT(ioctl(fd, FIOASYNC, &on), 0);
    CHECK_INT(fcntl(fd, F_GETFL) & O_ASYNC, O_ASYNC);
    detailed = 0;
}

static void of_a_pair(const int fds[2]) {
    static char bytes[1 << 16];
    ask(fds[0]);
    CHECK_INT(write(fds[1], "a", 1), 1);
    CHECK_INT(detailed, 1);
    CHECK_INT(last_fd, fds[0]);
    CHECK_INT(last_code, POLL_IN);
    CHECK_INT(last_band, POLLIN | POLLRDNORM);
    CHECK_INT(read(fds[0], bytes, sizeof bytes), 1);
    // Room that nobody missed is no news.
    CHECK_INT(write(fds[0], "b", 1), 1);
    CHECK_INT(read(fds[1], bytes, sizeof bytes), 1);
    CHECK_INT(detailed, 1);
    CHECK_INT(fcntl(fds[0], F_SETFL, O_ASYNC | O_NONBLOCK), 0);
    while (write(fds[0], bytes, sizeof bytes) > 0)
        ;
    CHECK_INT(errno, EAGAIN);
    CHECK_INT(detailed, 1);
    fcntl(fds[1], F_SETFL, O_NONBLOCK);
    while (read(fds[1], bytes, sizeof bytes) > 0)
        ;
    CHECK(detailed > 1);
    CHECK_INT(last_code, POLL_OUT);
    CHECK_INT(last_band, POLLOUT | POLLWRNORM | POLLWRBAND);
    CHECK_INT(fcntl(fds[0], F_SETFL, 0), 0);
    detailed = 0;
    CHECK_INT(write(fds[1], "c", 1), 1);
    CHECK_INT(detailed, 0);
    close(fds[1]);
    close(fds[0]);
}

static void sockets(void) {
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    of_a_pair(fds);

    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(listener, (void *)&at, sizeof at) == 0 && listen(listener, 1) == 0);
    CHECK(getsockname(listener, (void *)&at, &len) == 0);
    ask(listener);
    fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    // Linux may end the call for the signal.
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    CHECK(connect(fds[0], (void *)&at, sizeof at) == 0);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    CHECK_INT(detailed, 1);
    CHECK_INT(last_fd, listener);
    CHECK_INT(last_code, POLL_IN);
    fds[1] = accept(listener, NULL, NULL);
    of_a_pair(fds);
    close(listener);
}

int main(void) {
    GROUP(owners);
    GROUP(signals);
    GROUP(of_another_process);
    GROUP(sockets);
    return finish();
}
