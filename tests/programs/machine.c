// Calls and files about the machine and the session, as a container without privileges has them.
#include "check.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/swap.h>
#include <sys/reboot.h>

/* What the container may not ask is told before its arguments are looked at. */
static void refused(void) {
    CHECK_ERRNO(swapon("/nowhere", 0), EPERM);
    CHECK_ERRNO(swapoff("/nowhere"), EPERM);
    CHECK_ERRNO(syscall(SYS_reboot, 1, 2, 3, 0), EPERM);
    CHECK_ERRNO(syscall(SYS_pivot_root, "/", "/"), EPERM);
    CHECK_ERRNO(syscall(SYS_acct, "/nowhere"), EPERM);
}

struct attr {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
    uint32_t util_min, util_max;
};

static void scheduling(void) {
    struct attr attr, other;
    memset(&attr, 0xee, sizeof attr);
    CHECK_INT(syscall(SYS_sched_getattr, 0, &attr, 48, 0), 0);
    CHECK_INT(attr.size, 48);
    CHECK_INT(attr.policy, SCHED_OTHER);
    CHECK_INT(attr.nice, 0);
    CHECK_ERRNO(syscall(SYS_sched_getattr, 0, &attr, 47, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_sched_getattr, 0, &attr, 4097, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_sched_getattr, 0, NULL, 48, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_sched_getattr, 0, &attr, 48, 1), EINVAL);
    CHECK_ERRNO(syscall(SYS_sched_getattr, 1 << 21, &attr, 48, 0), ESRCH);

    attr = (struct attr){.size = 48, .policy = SCHED_BATCH, .nice = 7};
    CHECK_INT(syscall(SYS_sched_setattr, 0, &attr, 0), 0);
    CHECK_INT(sched_getscheduler(0), SCHED_BATCH);
    errno = 0;
    CHECK_INT(nice(0), 7);
    memset(&other, 0xee, sizeof other);
    CHECK_INT(syscall(SYS_sched_getattr, 0, &other, 48, 0), 0);
    CHECK_INT(other.policy, SCHED_BATCH);
    CHECK_INT(other.nice, 7);
    // Better than it is, which it may not be.
    attr.nice = 3;
    CHECK_ERRNO(syscall(SYS_sched_setattr, 0, &attr, 0), EPERM);
    attr.nice = 8;
    attr.flags = 1;
    CHECK_INT(syscall(SYS_sched_setattr, 0, &attr, 0), 0);
    CHECK_INT(sched_getscheduler(0), SCHED_BATCH | SCHED_RESET_ON_FORK);
    attr.policy = SCHED_OTHER;
    CHECK_INT(syscall(SYS_sched_setattr, 0, &attr, 0), 0);
    CHECK_ERRNO(syscall(SYS_sched_setattr, 0, &attr, 1), EINVAL);
    attr.flags = 1 << 20;
    CHECK_ERRNO(syscall(SYS_sched_setattr, 0, &attr, 0), EINVAL);
    attr.flags = 1;
    attr.size = 40;
    CHECK_ERRNO(syscall(SYS_sched_setattr, 0, &attr, 0), E2BIG);
    CHECK(attr.size >= 48);
    char large[100] = {100};
    CHECK_INT(((struct attr *)large)->size, 100);
    ((struct attr *)large)->flags = 1;
    ((struct attr *)large)->nice = 9;
    CHECK_INT(syscall(SYS_sched_setattr, 0, large, 0), 0);
    large[99] = 1;
    CHECK_ERRNO(syscall(SYS_sched_setattr, 0, large, 0), E2BIG);
}

static void ranges(void) {
    int fds[2], file = open("/tmp/range", O_RDWR | O_CREAT, 0600);
    CHECK_INT(write(file, "abc", 3), 3);
    CHECK_INT(sync_file_range(file, 0, 0, SYNC_FILE_RANGE_WRITE), 0);
    CHECK_INT(sync_file_range(file, 1, 1, 7), 0);
    CHECK_INT(sync_file_range(file, 1000, 1, 0), 0);
    CHECK_ERRNO(sync_file_range(file, 0, 0, 8), EINVAL);
    CHECK_ERRNO(sync_file_range(file, -1, 0, 0), EINVAL);
    CHECK_ERRNO(sync_file_range(file, 1, INT64_MAX, 0), EINVAL);
    CHECK_ERRNO(sync_file_range(-1, -1, 0, 0), EBADF);
    CHECK(pipe(fds) == 0);
    CHECK_ERRNO(sync_file_range(fds[0], 0, 0, 0), ESPIPE);
    unlink("/tmp/range");
}

static long number(const char *path) {
    char text[32] = {0};
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0 && read(fd, text, sizeof text - 1) > 0);
    close(fd);
    return strtol(text, NULL, 10);
}

static int put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY), done = write(fd, text, strlen(text));
    int error = errno;
    close(fd);
    errno = error;
    return done;
}

static void login(void) {
    CHECK_INT(number("/proc/self/loginuid"), UINT32_MAX);
    CHECK_ERRNO(put("/proc/self/loginuid", "x"), EINVAL);
    CHECK_INT(put("/proc/self/loginuid", "4294967295"), 10);
    CHECK_INT(put("/proc/self/loginuid", "12"), 2);
    CHECK_INT(number("/proc/self/loginuid"), 12);
    long session = number("/proc/self/sessionid");
    CHECK(session != UINT32_MAX);
    CHECK_ERRNO(put("/proc/self/loginuid", "13"), EPERM);
    pid_t child = fork();
    if (child == 0) {
        CHECK_INT(number("/proc/self/loginuid"), 12);
        CHECK_INT(number("/proc/self/sessionid"), session);
        _exit(failures != 0);
    }
    int status;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
}

static void cpus(void) {
    int count = 0;
    DIR *dir = opendir("/sys/devices/system/cpu");
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        int number;
        count += sscanf(entry->d_name, "cpu%d", &number) == 1;
    }
    CHECK_INT(count, sysconf(_SC_NPROCESSORS_CONF));
    CHECK_INT(number("/sys/devices/system/cpu/cpu0/topology/core_id"), 0);
    CHECK_INT(number("/sys/devices/system/cpu/cpu0/topology/physical_package_id"), 0);
    CHECK_INT(number("/sys/devices/system/node/node0/cpulist"), 0);
}

int main(void) {
    GROUP(refused);
    GROUP(ranges);
    GROUP(login);
    GROUP(cpus);
    GROUP(scheduling);
    return finish();
}
