// Random changes of a tree of names, every result printed as a running hash: names DIRECTORY SEED OPERATIONS [FROM TO].
//
// Between operations FROM and TO each is printed, to find where two systems part. What file systems are free to choose (sizes
// and link counts of directories, order of listings) is left out, and so are sticky directories, where fs.protected_* count.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static uint64_t state, hash = 1469598103934665603ull;
static long operation, first = -1, last = -1;
static int root;

static uint32_t any(uint32_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return below ? (uint32_t)(state >> 11) % below : 0;
}

static void result(const char *format, ...) {
    char line[8192];
    va_list list;
    va_start(list, format);
    int len = vsnprintf(line, sizeof line, format, list);
    va_end(list);
    for (int i = 0; i < len && i < (int)sizeof line; i++) hash = (hash ^ (unsigned char)line[i]) * 1099511628211ull;
    if (operation >= first && operation <= last) printf("%ld %s\n", operation, line);
}

static const char *outcome(long value) {
    static char text[32];
    if (value < 0) return strerrorname_np(errno);
    snprintf(text, sizeof text, "%ld", value);
    return text;
}

/* One of a few names up to three deep, sometimes with odd ends. */
static const char *name(char *buffer) {
    static const char *const tails[] = { "", "", "", "", "", "", "", "", "/", "/.", "/..", "//" };
    int depth = 1 + (int)any(3), at = 0;
    for (int i = 0; i < depth; i++) at += sprintf(buffer + at, "%s%c%u", i ? "/" : "", "abcdl"[any(5)], any(3));
    strcpy(buffer + at, tails[any(12)]);
    return buffer;
}

static void show(const char *path, int flags) {
    struct stat info;
    int got = fstatat(root, path, &info, flags);
    if (got < 0) {
        result("stat %s %s", path, outcome(got));
    } else if (S_ISDIR(info.st_mode)) {
        result("stat %s %o %u:%u", path, info.st_mode, info.st_uid, info.st_gid);
    } else {
        result("stat %s %o %u:%u links %lu size %ld", path, info.st_mode, info.st_uid, info.st_gid, (unsigned long)info.st_nlink,
               (long)info.st_size);
    }
}

static int by_name(const void *a, const void *b) { return strcmp(a, b); }

static void list(const char *path) {
    static char names[1000][64];
    int count = 0, fd = openat(root, path, O_RDONLY | O_DIRECTORY);
    if (fd < 0) {
        result("list %s %s", path, outcome(fd));
        return;
    }
    DIR *dir = fdopendir(fd);
    struct dirent *entry;
    while ((entry = readdir(dir)) && count < 1000)
        snprintf(names[count++], 64, "%.50s:%d", entry->d_name, entry->d_type);
    closedir(dir);
    qsort(names, (size_t)count, sizeof *names, by_name);
    char all[4096] = "";
    for (int i = 0; i < count && strlen(all) < 4000; i++) strcat(strcat(all, " "), names[i]);
    result("list %s%s", path, all);
}

static void step(void) {
    char a[64], b[64], text[256];
    name(a);
    name(b);
    int fd;
    ssize_t len;
    switch (any(26)) {
    case 0: case 1: case 2: case 3:
        result("mkdir %s %s", a, outcome(mkdirat(root, a, 0700 + any(0100))));
        break;
    case 4: case 5: case 6: case 7: {
        static const int ways[] = { 0, O_EXCL, O_TRUNC, O_NOFOLLOW, O_APPEND, O_DIRECTORY };
        int flags = O_RDWR | O_CREAT | ways[any(6)];
        fd = openat(root, a, flags, 0600 + any(0100));
        result("create %s %x %s", a, flags, fd < 0 ? outcome(fd) : "ok");
        if (fd >= 0) {
            len = write(fd, text, any(sizeof text));
            close(fd);
        }
        break;
    }
    case 8: case 9:
        result("unlink %s %s", a, outcome(unlinkat(root, a, 0)));
        break;
    case 10:
        result("rmdir %s %s", a, outcome(unlinkat(root, a, AT_REMOVEDIR)));
        break;
    case 11: case 12: case 13: {
        unsigned flags = any(4) ? 0 : 1 + any(2);
        result("rename %s %s %u %s", a, b, flags, outcome(renameat2(root, a, root, b, flags)));
        break;
    }
    case 14: case 15:
        result("link %s %s %s", a, b, outcome(linkat(root, a, root, b, any(2) ? AT_SYMLINK_FOLLOW : 0)));
        break;
    case 16: case 17:
        result("symlink %s %s %s", a, b, outcome(symlinkat(a, root, b)));
        break;
    case 18:
        len = readlinkat(root, a, text, sizeof text);
        result("readlink %s %s %.*s", a, outcome(len), len < 0 ? 0 : (int)len, text);
        break;
    case 19:
        result("chmod %s %s", a, outcome(fchmodat(root, a, any(010000) & ~(unsigned)S_ISVTX, 0)));
        break;
    case 20:
        result("chown %s %s", a, outcome(fchownat(root, a, any(3), any(3), any(2) ? AT_SYMLINK_NOFOLLOW : 0)));
        break;
    case 21:
        fd = openat(root, a, O_WRONLY | O_NONBLOCK);
        result("open %s %s", a, fd < 0 ? outcome(fd) : "ok");
        if (fd >= 0) {
            result("truncate %s %s", a, outcome(ftruncate(fd, any(100000))));
            close(fd);
        }
        break;
    case 22:
        result("fifo %s %s", a, outcome(mknodat(root, a, S_IFIFO | 0600, 0)));
        break;
    case 23: {
        // A name taken away while the file is open, and given back.
        fd = openat(root, ".", O_TMPFILE | O_RDWR, 0640);
        if (fd < 0) {
            result("tmpfile %s", outcome(fd));
            break;
        }
        len = write(fd, text, 77);
        snprintf(text, sizeof text, "/proc/self/fd/%d", fd);
        result("tmpfile %s %s", a, outcome(linkat(AT_FDCWD, text, root, a, AT_SYMLINK_FOLLOW)));
        close(fd);
        break;
    }
    case 24:
        fd = openat(root, a, O_RDONLY | O_NONBLOCK);
        if (fd < 0) break;
        snprintf(text, sizeof text, "user.n%u", any(3));
        switch (any(4)) {
        case 0: result("setxattr %s %s %s", a, text, outcome(fsetxattr(fd, text, b, strlen(b), any(3)))); break;
        case 1: result("removexattr %s %s %s", a, text, outcome(fremovexattr(fd, text))); break;
        case 2:
            len = fgetxattr(fd, text, b, sizeof b);
            result("getxattr %s %s %s %.*s", a, text, outcome(len), len < 0 ? 0 : (int)len, b);
            break;
        default: result("listxattr %s %s", a, outcome(flistxattr(fd, NULL, 0)));
        }
        close(fd);
        break;
    case 25:
        result("access %s %s", a, outcome(faccessat(root, a, (int)any(8), 0)));
        break;
    }
    show(a, AT_SYMLINK_NOFOLLOW);
    show(b, 0);
    if (any(4) == 0) list(any(3) ? "." : a);
}

static void clear(int at) {
    DIR *dir = fdopendir(dup(at));
    struct dirent *entry;
    rewinddir(dir);
    while ((entry = readdir(dir))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (unlinkat(at, entry->d_name, 0) == 0) continue;
        int below = openat(at, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        if (below >= 0) {
            clear(below);
            close(below);
        }
        unlinkat(at, entry->d_name, AT_REMOVEDIR);
    }
    closedir(dir);
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    umask(022);
    mkdir(argv[1], 0755);
    root = open(argv[1], O_RDONLY | O_DIRECTORY);
    if (root < 0) perror(argv[1]), exit(1);
    state = strtoull(argv[2], NULL, 10) * 0x9e3779b97f4a7c15ull + 1;
    if (argc > 5) first = atol(argv[4]), last = atol(argv[5]);
    long count = atol(argv[3]);
    for (operation = 0; operation < count; operation++) {
        step();
        if (operation % 250 == 249) printf("%ld: %016llx\n", operation, (unsigned long long)hash);
    }
    clear(root);
    list(".");
    printf("%016llx\n", (unsigned long long)hash);
    return rmdir(argv[1]) != 0;
}
