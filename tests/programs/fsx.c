// Random reads, writes, mappings and size changes of one file against a model in memory: fsx FILE SEED OPERATIONS.
//
// Every operation is checked at once; what is printed at the end (sizes and a hash of all contents met) is the same wherever
// it runs.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX (256 << 10)
#define LOG 4000

static unsigned char model[MAX], scratch[MAX];
static long size;
static int fds[2];
static const char *path;
static uint64_t state, hash = 1469598103934665603ull;
static char history[LOG][96];
static long operations;

static uint32_t any(uint32_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return below ? (uint32_t)(state >> 11) % below : 0;
}

static void note(const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(history[operations % LOG], sizeof *history, format, list);
    va_end(list);
}

static void fail(const char *what) {
    printf("operation %ld: %s: %s\n", operations, what, strerror(errno));
    for (long i = operations < 40 ? 0 : operations - 40; i <= operations; i++) printf("  %ld %s\n", i, history[i % LOG]);
    exit(1);
}

static void expect(int holds, const char *what) {
    if (!holds) fail(what);
}

static void mix(const void *bytes, size_t len) {
    for (size_t i = 0; i < len; i++) hash = (hash ^ ((const unsigned char *)bytes)[i]) * 1099511628211ull;
}

static void same(const unsigned char *bytes, long at, long len, const char *what) {
    for (long i = 0; i < len; i++)
        if (bytes[i] != model[at + i]) {
            printf("%s: byte %ld is %02x, should be %02x (range %ld..%ld, size %ld)\n", what, at + i, bytes[i], model[at + i], at,
                   at + len, size);
            fail(what);
        }
    mix(bytes, (size_t)len);
}

/* A place and a length; small ones, page-sized ones and large ones, often at the end of the file. */
static void range(long *at, long *len) {
    static const int lengths[] = { 1, 16, 100, 1024, 4096, 8192, 65536 };
    *len = 1 + any((uint32_t)lengths[any(7)]);
    switch (any(4)) {
    case 0: *at = size; break;
    case 1: *at = any(MAX / 4096) * 4096L; break;
    default: *at = any(MAX);
    }
    if (*at >= MAX) *at = MAX - 1;
    if (*at + *len > MAX) *len = MAX - *at;
}

static void grown(long end) {
    if (end > size) size = end;
}

static void fill(long len) {
    for (long i = 0; i < len; i++) scratch[i] = (unsigned char)any(256);
}

static int fd(void) { return fds[any(2)]; }

static void check_size(void) {
    struct stat info;
    expect(fstat(fd(), &info) == 0 && info.st_size == size, "size by fstat");
    expect(stat(path, &info) == 0 && info.st_size == size, "size by stat");
    expect(lseek(fd(), 0, SEEK_END) == size, "size by lseek");
}

static void do_write(void) {
    long at, len;
    range(&at, &len);
    fill(len);
    int way = any(4);
    note("write way %d at %ld len %ld", way, at, len);
    int to = fd();
    if (way == 0) {
        expect(lseek(to, at, SEEK_SET) == at, "lseek");
        expect(write(to, scratch, (size_t)len) == len, "write");
    } else if (way == 1) {
        struct iovec parts[2] = { { scratch, (size_t)len / 2 }, { scratch + len / 2, (size_t)(len - len / 2) } };
        expect(pwritev(to, parts, 2, at) == len, "pwritev");
    } else if (way == 2) {
        long step = 1 + any(600), done = 0;
        while (done < len) {
            long now = len - done < step ? len - done : step;
            expect(pwrite(to, scratch + done, (size_t)now, at + done) == now, "pwrite in steps");
            done += now;
        }
    } else {
        expect(pwrite(to, scratch, (size_t)len, at) == len, "pwrite");
    }
    memcpy(model + at, scratch, (size_t)len);
    grown(at + len);
}

static void do_append(void) {
    long len = 1 + any(3000);
    if (size + len > MAX) return;
    note("append %ld", len);
    fill(len);
    int to = open(path, O_WRONLY | O_APPEND);
    expect(to >= 0 && write(to, scratch, (size_t)len) == len, "append");
    expect(close(to) == 0, "close");
    memcpy(model + size, scratch, (size_t)len);
    size += len;
}

static void do_read(void) {
    long at, len;
    range(&at, &len);
    long want = at >= size ? 0 : at + len > size ? size - at : len;
    note("read at %ld len %ld", at, len);
    int from = fd();
    ssize_t got;
    if (any(2)) {
        expect(lseek(from, at, SEEK_SET) == at, "lseek");
        got = read(from, scratch, (size_t)len);
    } else {
        got = pread(from, scratch, (size_t)len, at);
    }
    expect(got == want, "length of read");
    same(scratch, at, want, "read");
}

static void do_truncate(void) {
    long to = any(3) ? any(MAX) : size + any(5000);
    if (to > MAX) to = MAX;
    note("truncate %ld to %ld", size, to);
    expect((any(2) ? ftruncate(fd(), to) : truncate(path, to)) == 0, "truncate");
    if (to < size) memset(model + to, 0, (size_t)(MAX - to));
    size = to;
}

static void do_map(int writes) {
    if (size == 0) return;
    long at, len;
    range(&at, &len);
    if (at >= size) at = any((uint32_t)size);
    if (at + len > size) len = size - at;
    long base = at & ~4095L;
    int shared = writes || any(2);
    note("map %s at %ld len %ld", writes ? "write" : "read", at, len);
    unsigned char *map = mmap(NULL, (size_t)(at + len - base), writes ? PROT_READ | PROT_WRITE : PROT_READ,
                              shared ? MAP_SHARED : MAP_PRIVATE, fd(), base);
    expect(map != MAP_FAILED, "mmap");
    same(map + (at - base), at, len, "mapping");
    if (writes) {
        fill(len);
        memcpy(map + (at - base), scratch, (size_t)len);
        memcpy(model + at, scratch, (size_t)len);
        if (any(3) == 0) expect(msync(map, (size_t)(at + len - base), MS_SYNC) == 0, "msync");
        // Behind the end of the file a mapping shows zeros, and what is stored there is not the file's.
        long end = (size + 4095) & ~4095L;
        if (at + len == size && end > size && any(2)) {
            unsigned char *tail = mmap(NULL, (size_t)(end - base), PROT_READ, MAP_SHARED, fd(), base);
            expect(tail != MAP_FAILED && tail[size - base] == 0, "behind the end");
            munmap(tail, (size_t)(end - base));
        }
    }
    expect(munmap(map, (size_t)(at + len - base)) == 0, "munmap");
}

static void do_punch(void) {
    long at, len;
    range(&at, &len);
    note("punch at %ld len %ld", at, len);
    if (fallocate(fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, len) != 0) {
        expect(errno == EOPNOTSUPP, "punch");
        return;
    }
    if (at < size) memset(model + at, 0, (size_t)(at + len > size ? size - at : len));
}

static void do_allocate(void) {
    long at, len;
    range(&at, &len);
    int keep = any(2);
    note("allocate at %ld len %ld keep %d", at, len, keep);
    expect(fallocate(fd(), keep ? FALLOC_FL_KEEP_SIZE : 0, at, len) == 0, "fallocate");
    if (!keep) grown(at + len);
}

static void do_copy(void) {
    long at, len;
    range(&at, &len);
    if (at >= size) return;
    if (at + len > size) len = size - at;
    long to = any(MAX);
    if (to + len > MAX) to = MAX - len;
    if (to < at + len && at < to + len) return;
    note("copy_file_range %ld to %ld len %ld", at, to, len);
    off_t in = at, out = to;
    long done = 0;
    while (done < len) {
        ssize_t got = copy_file_range(fds[0], &in, fds[1], &out, (size_t)(len - done), 0);
        expect(got > 0, "copy_file_range");
        done += got;
    }
    memcpy(model + to, model + at, (size_t)len);
    grown(to + len);
}

static void do_sendfile(void) {
    if (size == 0) return;
    long at = any((uint32_t)size), len = 1 + any(20000);
    if (at + len > size) len = size - at;
    note("sendfile from %ld len %ld", at, len);
    int pipes[2];
    expect(pipe2(pipes, 0) == 0, "pipe");
    long done = 0;
    off_t from = at;
    while (done < len) {
        long step = len - done < 4096 ? len - done : 4096;
        expect(sendfile(pipes[1], fd(), &from, (size_t)step) == step, "sendfile");
        expect(read(pipes[0], scratch + done, (size_t)step) == step, "read of the pipe");
        done += step;
    }
    close(pipes[0]);
    close(pipes[1]);
    same(scratch, at, len, "sendfile");
}

static void do_sync(void) {
    switch (any(3)) {
    case 0: expect(fsync(fd()) == 0, "fsync"); break;
    case 1: expect(fdatasync(fd()) == 0, "fdatasync"); break;
    case 2: expect(sync_file_range(fd(), any(1000), any(1000), any(8)) == 0, "sync_file_range"); break;
    }
}

static void do_reopen(void) {
    int which = any(2);
    note("reopen %d", which);
    expect(close(fds[which]) == 0, "close");
    fds[which] = open(path, O_RDWR | (any(4) ? 0 : O_SYNC));
    expect(fds[which] >= 0, "open");
}

/* Another process writes; all of it is seen here. */
static void do_fork(void) {
    long at, len;
    range(&at, &len);
    fill(len);
    note("child writes at %ld len %ld", at, len);
    pid_t pid = fork();
    expect(pid >= 0, "fork");
    if (pid == 0) {
        int to = open(path, O_WRONLY);
        _exit(to < 0 || pwrite(to, scratch, (size_t)len, at) != len);
    }
    int status;
    expect(waitpid(pid, &status, 0) == pid && status == 0, "the child's write");
    memcpy(model + at, scratch, (size_t)len);
    grown(at + len);
}

static void do_rename(void) {
    char other[300];
    snprintf(other, sizeof other, "%s.moved", path);
    note("rename there and back");
    expect(rename(path, other) == 0, "rename");
    struct stat info;
    expect(stat(other, &info) == 0 && info.st_size == size, "size under another name");
    expect(stat(path, &info) == -1 && errno == ENOENT, "the old name");
    expect(rename(other, path) == 0, "rename back");
}

static void all(void) {
    note("whole file");
    int from = open(path, O_RDONLY);
    expect(from >= 0, "open");
    long done = 0;
    ssize_t got;
    while ((got = read(from, scratch, 40000)) > 0) {
        same(scratch, done, got, "whole file");
        done += got;
    }
    expect(got == 0 && done == size, "length of the whole file");
    close(from);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    path = argv[1];
    state = strtoull(argv[2], NULL, 10) * 0x9e3779b97f4a7c15ull + 1;
    long count = atol(argv[3]);
    fds[0] = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    fds[1] = open(path, O_RDWR);
    expect(fds[0] >= 0 && fds[1] >= 0, "open");
    for (operations = 0; operations < count; operations++) {
        switch (any(24)) {
        case 0 ... 5: do_write(); break;
        case 6: do_append(); break;
        case 7 ... 11: do_read(); break;
        case 12: do_truncate(); break;
        case 13: case 14: do_map(0); break;
        case 15: case 16: do_map(1); break;
        case 17: do_punch(); break;
        case 18: do_allocate(); break;
        case 19: do_copy(); break;
        case 20: do_sendfile(); break;
        case 21: do_reopen(); break;
        case 22: if (any(8) == 0) do_fork(); else if (any(4) == 0) do_rename(); break;
        case 23: do_sync(); break;
        }
        check_size();
        if (operations % 200 == 199) {
            all();
            printf("%ld: size %ld hash %016llx\n", operations, size, (unsigned long long)hash);
        }
    }
    all();
    printf("size %ld hash %016llx\n", size, (unsigned long long)hash);
    return unlink(path) != 0;
}
