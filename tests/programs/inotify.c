// inotify(7): which events every file call makes, in which order, with which names.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int in;

static void print(const struct inotify_event *event) {
    static const struct { unsigned bit; const char *name; } names[] = {
        { IN_ACCESS, "ACCESS" }, { IN_MODIFY, "MODIFY" }, { IN_ATTRIB, "ATTRIB" }, { IN_CLOSE_WRITE, "CLOSE_WRITE" },
        { IN_CLOSE_NOWRITE, "CLOSE_NOWRITE" }, { IN_OPEN, "OPEN" }, { IN_MOVED_FROM, "MOVED_FROM" },
        { IN_MOVED_TO, "MOVED_TO" }, { IN_CREATE, "CREATE" }, { IN_DELETE, "DELETE" }, { IN_DELETE_SELF, "DELETE_SELF" },
        { IN_MOVE_SELF, "MOVE_SELF" }, { IN_UNMOUNT, "UNMOUNT" }, { IN_Q_OVERFLOW, "Q_OVERFLOW" }, { IN_IGNORED, "IGNORED" },
        { IN_ISDIR, "ISDIR" },
    };
    printf("  wd %d", event->wd);
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (event->mask & names[i].bit) printf(" %s", names[i].name);
    if (event->len) printf(" \"%s\" (%u)", event->name, event->len);
    if (event->cookie) printf(" cookie");
    printf("\n");
}

static void drain(const char *what) {
    static char buffer[65536] __attribute__((aligned(8)));
    unsigned from = 0, cookies = 0;
    printf("%s\n", what);
    int queued = -1;
    ioctl(in, FIONREAD, &queued);
    ssize_t got, all = 0;
    while ((got = read(in, buffer, sizeof buffer)) > 0) {
        all += got;
        for (char *at = buffer; at < buffer + got;) {
            const struct inotify_event *event = (void *)at;
            print(event);
            if (event->mask & IN_MOVED_FROM) from = event->cookie;
            if (event->mask & IN_MOVED_TO) cookies += event->cookie == from;
            at += sizeof *event + event->len;
        }
    }
    if (cookies) printf("  %u renames joined\n", cookies);
    if (queued != all) printf("  FIONREAD said %d, read gave %zd\n", queued, all);
}

static void result(const char *what, long value) {
    printf("%s: %s\n", what, value >= 0 ? "ok" : strerrorname_np(errno));
}

static int make(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) perror(path), exit(1);
    return fd;
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (mkdir("/tmp/w", 0755) || mkdir("/tmp/w/sub", 0755) || mkdir("/tmp/other", 0755)) perror("mkdir"), exit(1);
    if (chdir("/tmp/w")) exit(1);
    in = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    char byte[16];
    result("nothing to read", read(in, byte, sizeof byte));
    int dir = inotify_add_watch(in, "/tmp/w", IN_ALL_EVENTS);
    printf("watch %d\n", dir);

    int fd = make("f");
    drain("create");
    if (write(fd, "0123456789", 10) != 10) exit(1);
    if (write(fd, "0123456789", 10) != 10) exit(1);
    drain("write twice");
    if (pread(fd, byte, 4, 0) != 4) exit(1);
    if (pread(fd, byte, 4, 100) != 0) exit(1);
    drain("read, and read at the end");
    ftruncate(fd, 5);
    drain("ftruncate");
    fchmod(fd, 0600);
    fchown(fd, 0, 0);
    drain("chmod, chown");
    struct timespec both[2] = { { 1, 0 }, { 2, 0 } };
    struct timespec atime[2] = { { 3, 0 }, { 0, UTIME_OMIT } };
    struct timespec mtime[2] = { { 0, UTIME_OMIT }, { 4, 0 } };
    futimens(fd, both);
    drain("both times");
    futimens(fd, atime);
    drain("atime");
    futimens(fd, mtime);
    drain("mtime");
    if (fallocate(fd, 0, 0, 4096) == 0) drain("fallocate");
    int second = dup(fd);
    close(fd);
    drain("close one of two");
    close(second);
    drain("close the other");
    close(open("f", O_RDONLY));
    drain("open and close");
    close(open("f", O_PATH));
    drain("O_PATH");
    close(open("f", O_WRONLY | O_TRUNC));
    drain("O_TRUNC");
    truncate("f", 3);
    drain("truncate");

    int file = inotify_add_watch(in, "f", IN_ALL_EVENTS);
    printf("watch of the file is another: %d\n", file != dir);
    fd = open("f", O_RDWR);
    if (write(fd, "x", 1) != 1) exit(1);
    close(fd);
    drain("both watches");
    link("f", "g");
    drain("link");
    symlink("f", "s");
    drain("symlink");
    mkfifo("p", 0600);
    drain("fifo");
    rename("f", "f2");
    drain("rename in place");
    rename("f2", "/tmp/other/f3");
    drain("rename away");
    rename("/tmp/other/f3", "sub/f4");
    drain("rename elsewhere");
    int sub = inotify_add_watch(in, "sub", IN_ALL_EVENTS);
    printf("sub watched: %d\n", sub > 0);
    rename("sub/f4", "f");
    drain("rename from one watched directory to another");
    close(make("victim"));
    drain("another");
    int victim = inotify_add_watch(in, "victim", IN_ALL_EVENTS);
    printf("victim watched: %d\n", victim > 0);
    rename("g", "victim");
    drain("rename over a watched file");
    rename("f", "victim");
    drain("rename of two names of the same file");
    close(make("x1"));
    close(make("x2"));
    drain("two");
    renameat2(AT_FDCWD, "x1", AT_FDCWD, "x2", RENAME_EXCHANGE);
    drain("exchange");
    unlink("x1");
    drain("unlink");
    unlink("victim");
    drain("unlink of one of several names");
    fd = open("f", O_RDONLY);
    drain("open");
    unlink("f");
    drain("unlink of the last name while open");
    close(fd);
    drain("close of what has no name");
    result("its watch is gone", inotify_rm_watch(in, file));

    mkdir("d", 0755);
    drain("mkdir");
    int d = inotify_add_watch(in, "d", IN_ALL_EVENTS | IN_ONLYDIR);
    printf("d watched: %d\n", d > 0);
    close(make("d/inner"));
    drain("create in d");
    chmod("d", 0700);
    drain("chmod of d");
    fd = open("d", O_RDONLY | O_DIRECTORY);
    char list[1024];
    while (getdents64(fd, list, sizeof list) > 0)
        ;
    close(fd);
    drain("list d");
    rename("d", "e");
    drain("rename d");
    close(open("e/inner", O_RDONLY));
    drain("open in e");
    unlink("e/inner");
    rmdir("e");
    drain("remove e");

    fd = make("q");
    drain("q");
    result("user.xattr or not", 0);
    if (fsetxattr(fd, "trusted.a", "1", 1, 0) == 0 || errno == EPERM || errno == EOPNOTSUPP) drain("done");
    int out = make("r");
    if (write(fd, "abcdef", 6) != 6) exit(1);
    drain("r");
    off_t at = 0;
    if (sendfile(out, fd, &at, 3) != 3) exit(1);
    drain("sendfile");
    close(fd);
    close(out);
    drain("closed");

    // Masks.
    int same = inotify_add_watch(in, "/tmp/w", IN_CREATE);
    printf("same descriptor: %d\n", same == dir);
    close(make("m1"));
    drain("only CREATE");
    inotify_add_watch(in, "/tmp/w", IN_MASK_ADD | IN_DELETE);
    close(make("m2"));
    unlink("m2");
    drain("CREATE and DELETE");
    result("MASK_CREATE", inotify_add_watch(in, "/tmp/w", IN_CREATE | IN_MASK_CREATE));
    result("MASK_CREATE and MASK_ADD", inotify_add_watch(in, "/tmp/w", IN_CREATE | IN_MASK_CREATE | IN_MASK_ADD));
    inotify_add_watch(in, "/tmp/w", IN_CREATE | IN_ONESHOT);
    close(make("o1"));
    close(make("o2"));
    drain("one shot");
    result("no mask", inotify_add_watch(in, "/tmp/w", 0));
    result("ONLYDIR", inotify_add_watch(in, "m1", IN_OPEN | IN_ONLYDIR));
    result("nothing there", inotify_add_watch(in, "nothing", IN_OPEN));
    result("not inotify", inotify_add_watch(0, "m1", IN_OPEN));
    result("bad descriptor", inotify_add_watch(99, "m1", IN_OPEN));
    result("bad watch", inotify_rm_watch(in, 77));
    result("bad flags", inotify_init1(1));
    int m1 = inotify_add_watch(in, "m1", IN_OPEN);
    result("remove", inotify_rm_watch(in, m1));
    drain("removed");
    int link = inotify_add_watch(in, "s", IN_ATTRIB | IN_DELETE_SELF | IN_DONT_FOLLOW);
    printf("link watched: %d\n", link > 0);
    unlink("s");
    drain("unlink of a link");

    // Unlinked children.
    inotify_add_watch(in, "/tmp/w", IN_ALL_EVENTS | IN_EXCL_UNLINK);
    fd = make("gone");
    unlink("gone");
    if (write(fd, "x", 1) != 1) exit(1);
    close(fd);
    drain("EXCL_UNLINK");
    inotify_add_watch(in, "/tmp/w", IN_ALL_EVENTS);
    fd = make("gone");
    unlink("gone");
    if (write(fd, "x", 1) != 1) exit(1);
    close(fd);
    drain("unlinked and written");

    // Reading.
    close(make("a-name-that-is-longer-than-a-header"));
    result("too small a buffer", read(in, byte, sizeof byte));
    struct pollfd poller = { in, POLLIN, 0 };
    printf("poll %d %x\n", poll(&poller, 1, 0), poller.revents);
    drain("long name");
    printf("poll %d\n", poll(&poller, 1, 0));

    // Another process, and exec.
    fflush(stdout);
    if (fork() == 0) {
        execl("/bin/true", "true", NULL);
        _exit(1);
    }
    wait(NULL);
    inotify_add_watch(in, "/bin/busybox", IN_OPEN | IN_CLOSE);
    int blocking = inotify_init();
    inotify_add_watch(blocking, "/tmp/other", IN_CREATE);
    if (fork() == 0) {
        close(make("/tmp/other/late"));
        _exit(0);
    }
    struct { struct inotify_event event; char name[64]; } late;
    ssize_t got = read(blocking, &late, sizeof late);
    printf("blocking read %zd\n", got);
    print(&late.event);
    wait(NULL);
    drain("end");
    return 0;
}
