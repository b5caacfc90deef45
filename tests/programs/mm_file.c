// flags: -Wno-nonnull
// Mappings of files against read, write, truncate and each other.
#include "check.h"
#include <fcntl.h>
#include <setjmp.h>
#include <sys/stat.h>

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)

static sigjmp_buf back;
static volatile int seen_signal, seen_code;
static void *volatile seen_addr;

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)context;
    seen_signal = signal, seen_code = info->si_code, seen_addr = info->si_addr;
    siglongjmp(back, 1);
}

/* Reads (or writes, if value is not negative) a byte; the byte, or minus the signal. */
static int touch(volatile char *address, int value) {
    seen_signal = 0, seen_code = 0, seen_addr = NULL;
    if (sigsetjmp(back, 1) == 0) {
        if (value >= 0) *address = (char)value;
        return (unsigned char)*address;
    }
    if (seen_addr != address) printf("si_addr is off by %ld\n", (long)((char *)seen_addr - address));
    return -(seen_signal * 100 + seen_code);
}

static int make(const char *path, unsigned long size) {
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0);
    char byte = 'a';
    for (unsigned long at = 0; at < size; at += PAGE, byte++) {
        char page[PAGE];
        memset(page, byte, PAGE);
        unsigned long len = size - at < PAGE ? size - at : PAGE;
        CHECK_INT(write(fd, page, len), len);
    }
    return fd;
}

static char *map(int fd, unsigned long len, int prot, int flags, long offset) {
    char *p = mmap(NULL, len, prot, flags, fd, offset);
    if (p == MAP_FAILED) {
        printf("mmap of %d: %s\n", fd, strerror(errno));
        exit(1);
    }
    return p;
}

static void truncation(int flags) {
    int fd = make("/tmp/mm_truncation", 5 * PAGE);
    char *p = map(fd, 8 * PAGE, RW, flags, 0);
    printf("before: %d %d %d\n", touch(p, -1), touch(p + 4 * PAGE, -1), touch(p + 5 * PAGE, -1));
    touch(p + 2 * PAGE, 'X');
    touch(p + 3 * PAGE, 'Y');
    CHECK(ftruncate(fd, (long)(2 * PAGE + 100)) == 0);
    printf("cut: %d %d %d %d %d\n", touch(p + PAGE, -1), touch(p + 2 * PAGE, -1), touch(p + 2 * PAGE + 99, -1),
           touch(p + 2 * PAGE + 100, -1), touch(p + 3 * PAGE - 1, -1));
    printf("gone: %d %d %d\n", touch(p + 3 * PAGE, -1), touch(p + 4 * PAGE, 'Z'), touch(p + 7 * PAGE + 5, -1));
    CHECK(ftruncate(fd, (long)(6 * PAGE)) == 0);
    printf("longer: %d %d %d %d\n", touch(p + 2 * PAGE + 100, -1), touch(p + 3 * PAGE, -1), touch(p + 5 * PAGE, -1),
           touch(p + 6 * PAGE, -1));
    char page[PAGE];
    CHECK_INT(pread(fd, page, PAGE, (long)(2 * PAGE)), PAGE);
    printf("read: %d %d\n", page[0], page[100]);
    CHECK(ftruncate(fd, 0) == 0);
    printf("empty: %d %d\n", touch(p, -1), touch(p + 2 * PAGE, 1));
    CHECK(munmap(p, 8 * PAGE) == 0);
    close(fd);
    unlink("/tmp/mm_truncation");
}

static void truncation_of_a_shared_mapping(void) { truncation(MAP_SHARED); }
static void truncation_of_a_private_mapping(void) { truncation(MAP_PRIVATE); }

static void truncation_reaches_other_processes(void) {
    int fd = make("/tmp/mm_others", 4 * PAGE);
    char *p = map(fd, 4 * PAGE, RW, MAP_SHARED, 0);
    int go[2], done[2];
    CHECK(pipe(go) == 0 && pipe(done) == 0);
    for (int i = 0; i < 4; i++) touch(p + (unsigned long)i * PAGE, -1);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        for (int i = 0; i < 4; i++) touch(p + (unsigned long)i * PAGE, -1);
        if (write(done[1], "x", 1) != 1 || read(go[0], &byte, 1) != 1) _exit(1);
        printf("child: %d %d %d\n", touch(p, -1), touch(p + PAGE, -1), touch(p + 3 * PAGE, -1));
        fflush(stdout);
        _exit(0);
    }
    char byte;
    CHECK(read(done[0], &byte, 1) == 1);
    CHECK(ftruncate(fd, (long)PAGE) == 0);
    CHECK(write(go[1], "x", 1) == 1);
    int status;
    waitpid(pid, &status, 0);
    CHECK_INT(status, 0);
    munmap(p, 4 * PAGE);
    close(fd);
}

static void shared_mappings_and_the_file_are_one(void) {
    int fd = make("/tmp/mm_one", 3 * PAGE);
    char *a = map(fd, 3 * PAGE, RW, MAP_SHARED, 0);
    char *b = map(fd, PAGE, PROT_READ, MAP_SHARED, (long)PAGE);
    char *c = map(fd, 3 * PAGE, RW, MAP_PRIVATE, 0);
    printf("%c %c %c\n", a[PAGE], b[0], c[PAGE]);
    CHECK(pwrite(fd, "W", 1, (long)PAGE) == 1);
    printf("after write: %c %c %c\n", a[PAGE], b[0], c[PAGE]);
    a[PAGE + 1] = 'M';
    char bytes[2];
    CHECK(pread(fd, bytes, 2, (long)PAGE) == 2);
    printf("after store: %c%c %c %c\n", bytes[0], bytes[1], b[1], c[PAGE + 1]);
    c[PAGE] = 'P';
    CHECK(pwrite(fd, "Q", 1, (long)PAGE) == 1);
    CHECK(pread(fd, bytes, 1, (long)PAGE) == 1);
    printf("private: %c %c %c %c\n", a[PAGE], b[0], c[PAGE], bytes[0]);
    // Reading a file into its own mapping, and writing from it.
    CHECK_INT(pread(fd, a, PAGE, (long)(2 * PAGE)), PAGE);
    printf("read into: %c %c\n", a[0], c[0]);
    CHECK_INT(pwrite(fd, a + 2 * PAGE, 10, 5), 10);
    printf("written from: %c %c\n", a[5], c[5]);
    // Beyond the end of a file that grows by writing.
    char *d = map(fd, 5 * PAGE, RW, MAP_SHARED, 0);
    printf("beyond: %d\n", touch(d + 4 * PAGE, -1));
    CHECK(pwrite(fd, "E", 1, (long)(4 * PAGE + 7)) == 1);
    printf("grown: %d %d %d\n", touch(d + 4 * PAGE, -1), touch(d + 4 * PAGE + 7, -1), touch(d + 3 * PAGE, -1));
    touch(d + 4 * PAGE + 100, 'T'); // behind the end, in the last page
    struct stat stat;
    CHECK(fstat(fd, &stat) == 0);
    printf("size: %ld\n", (long)stat.st_size);
    munmap(a, 3 * PAGE), munmap(b, PAGE), munmap(c, 3 * PAGE), munmap(d, 5 * PAGE);
    close(fd);
    unlink("/tmp/mm_one");
}

/* A file of the image: its pages become the container's own when they are first written. */
static void files_of_the_image_change_under_mappings(void) {
    int reader = open("/etc/passwd", O_RDONLY), writer = open("/etc/passwd", O_RDWR);
    CHECK(reader >= 0 && writer >= 0);
    char *shared = map(reader, PAGE, PROT_READ, MAP_SHARED, 0);
    char *private = map(reader, PAGE, RW, MAP_PRIVATE, 0);
    char *own = map(reader, PAGE, RW, MAP_PRIVATE, 0);
    char first = shared[0], second = private[0];
    own[0] = '!';
    fflush(stdout);
    int go[2], done[2];
    CHECK(pipe(go) == 0 && pipe(done) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        char byte, before = shared[0];
        if (write(done[1], "x", 1) != 1 || read(go[0], &byte, 1) != 1) _exit(1);
        printf("child: %c%c %c\n", before, shared[0], private[0]);
        fflush(stdout);
        _exit(0);
    }
    char byte;
    CHECK(read(done[0], &byte, 1) == 1);
    CHECK(pwrite(writer, "Z", 1, 0) == 1);
    printf("%c%c then %c %c %c\n", first, second, shared[0], private[0], own[0]);
    char *writable = map(writer, PAGE, RW, MAP_SHARED, 0);
    writable[1] = 'Y';
    printf("store: %c %c %c\n", shared[1], private[1], own[1]);
    CHECK(write(go[1], "x", 1) == 1);
    int status;
    waitpid(pid, &status, 0);
    CHECK_INT(status, 0);
    munmap(shared, PAGE), munmap(private, PAGE), munmap(own, PAGE), munmap(writable, PAGE);
    close(reader), close(writer);
}

static void rights_come_from_the_descriptor(void) {
    close(make("/tmp/mm_rights", PAGE));
    int read_only = open("/tmp/mm_rights", O_RDONLY), write_only = open("/tmp/mm_rights", O_WRONLY);
    CHECK_ERRNO((long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, write_only, 0), EACCES);
    CHECK_ERRNO((long)mmap(NULL, PAGE, PROT_WRITE, MAP_PRIVATE, write_only, 0), EACCES);
    CHECK_ERRNO((long)mmap(NULL, PAGE, RW, MAP_SHARED, read_only, 0), EACCES);
    char *p = map(read_only, PAGE, PROT_READ, MAP_SHARED, 0);
    CHECK_ERRNO(mprotect(p, PAGE, RW), EACCES);
    CHECK(munmap(p, PAGE) == 0);
    p = map(read_only, PAGE, RW, MAP_PRIVATE, 0);
    printf("%d\n", touch(p, 'k'));
    CHECK(munmap(p, PAGE) == 0);
    int directory = open("/tmp", O_RDONLY);
    CHECK_ERRNO((long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, directory, 0), ENODEV);
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    CHECK_ERRNO((long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, pipes[0], 0), ENODEV);
    CHECK_ERRNO((long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, read_only, 5), EINVAL);
    CHECK_ERRNO((long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, read_only, -(long)PAGE), EOVERFLOW);
    close(read_only), close(write_only), close(directory), close(pipes[0]), close(pipes[1]);
}

static void zeros_from_the_device(void) {
    int zero = open("/dev/zero", O_RDWR);
    char *private = map(zero, 3 * PAGE, RW, MAP_PRIVATE, 0);
    char *shared = map(zero, 3 * PAGE, RW, MAP_SHARED, 0);
    char *other = map(zero, PAGE, RW, MAP_SHARED, 0);
    private[5] = 1, shared[5] = 2, other[5] = 3;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        printf("%d %d %d %d\n", private[5], shared[5], other[5], shared[2 * PAGE]);
        private[5] = 11, shared[5] = 12, other[5] = 13;
        fflush(stdout);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    printf("%d %d %d\n", private[5], shared[5], other[5]);
    CHECK(munmap(private, 3 * PAGE) == 0 && munmap(shared, 3 * PAGE) == 0 && munmap(other, PAGE) == 0);
    int null = open("/dev/null", O_RDWR);
    char *p = mmap(NULL, PAGE, RW, MAP_PRIVATE, null, 0);
    printf("/dev/null: %d\n", p == MAP_FAILED ? -errno : touch(p, -1));
    close(zero), close(null);
}

static void holes_show_as_zeros(void) {
    int fd = make("/tmp/mm_holes", 6 * PAGE);
    char *p = map(fd, 6 * PAGE, RW, MAP_SHARED, 0);
    char *q = map(fd, 6 * PAGE, RW, MAP_PRIVATE, 0);
    int sum = 0;
    for (int i = 0; i < 6; i++) sum += p[(unsigned long)i * PAGE] + q[(unsigned long)i * PAGE];
    q[3 * PAGE] = 'o';
    CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (long)PAGE + 10, (long)(3 * PAGE)) == 0);
    printf("%d: %d %d %d %d %d | %d %d\n", sum, p[PAGE + 9], p[PAGE + 10], p[2 * PAGE], p[4 * PAGE + 9], p[4 * PAGE + 10],
           q[2 * PAGE], q[3 * PAGE]);
    p[2 * PAGE] = 'h';
    char byte;
    CHECK(pread(fd, &byte, 1, (long)(2 * PAGE)) == 1);
    printf("%d %d\n", byte, q[2 * PAGE]);
    int result = madvise(p + 5 * PAGE, PAGE, MADV_REMOVE);
    printf("remove: %d %d\n", result, p[5 * PAGE]);
    munmap(p, 6 * PAGE), munmap(q, 6 * PAGE);
    close(fd);
    unlink("/tmp/mm_holes");
}

static void memory_files(void) {
    int fd = memfd_create("name", MFD_ALLOW_SEALING);
    CHECK(fd >= 0);
    CHECK(ftruncate(fd, (long)(2 * PAGE)) == 0);
    char *p = map(fd, 2 * PAGE, RW, MAP_SHARED, 0);
    p[0] = 'm';
    char byte = 0;
    CHECK(pread(fd, &byte, 1, 0) == 1);
    printf("%c %d\n", byte, touch(p + PAGE, -1));
    CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
    CHECK(munmap(p, 2 * PAGE) == 0);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK) == 0);
    CHECK_ERRNO((long)mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0), EPERM);
    CHECK_ERRNO(ftruncate(fd, 0), EPERM);
    p = map(fd, PAGE, RW, MAP_PRIVATE, 0);
    printf("%c %d\n", p[0], touch(p, 'n'));
    CHECK(munmap(p, PAGE) == 0);
    close(fd);
    int shm = shm_open("/mm_name", O_RDWR | O_CREAT, 0600);
    CHECK(shm >= 0 && ftruncate(shm, (long)PAGE) == 0);
    p = map(shm, PAGE, RW, MAP_SHARED, 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        int again = shm_open("/mm_name", O_RDWR, 0);
        char *q = mmap(NULL, PAGE, RW, MAP_SHARED, again, 0);
        q[7] = 77;
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    printf("%d %d\n", status, p[7]);
    CHECK(shm_unlink("/mm_name") == 0);
    munmap(p, PAGE);
    close(shm);
}

static void mappings_outlive_names_and_descriptors(void) {
    int fd = make("/tmp/mm_unlinked", 2 * PAGE);
    char *p = map(fd, 2 * PAGE, RW, MAP_SHARED, 0);
    close(fd);
    unlink("/tmp/mm_unlinked");
    p[PAGE] = 'u';
    printf("%c %c\n", p[0], p[PAGE]);
    CHECK(msync(p, 2 * PAGE, MS_SYNC) == 0);
    CHECK_ERRNO(msync(p, 2 * PAGE, MS_SYNC | MS_ASYNC), EINVAL);
    CHECK(munmap(p, 2 * PAGE) == 0);
    CHECK_ERRNO(msync(p, PAGE, MS_SYNC), ENOMEM);
}

static void copies_into_mappings_stop_at_the_end(void) {
    int fd = make("/tmp/mm_copies", PAGE);
    char *p = map(fd, 2 * PAGE, RW, MAP_SHARED, 0);
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    static char bytes[200];
    CHECK_INT(write(pipes[1], bytes, 200), 200);
    CHECK_ERRNO(read(pipes[0], p + PAGE + 10, 10), EFAULT);
    CHECK_ERRNO(write(pipes[1], p + PAGE, 10), EFAULT);
    munmap(p, 2 * PAGE);
    close(fd), close(pipes[0]), close(pipes[1]);
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    GROUP(truncation_of_a_shared_mapping);
    GROUP(truncation_of_a_private_mapping);
    GROUP(truncation_reaches_other_processes);
    GROUP(shared_mappings_and_the_file_are_one);
    GROUP(files_of_the_image_change_under_mappings);
    GROUP(rights_come_from_the_descriptor);
    GROUP(zeros_from_the_device);
    GROUP(holes_show_as_zeros);
    GROUP(memory_files);
    GROUP(mappings_outlive_names_and_descriptors);
    GROUP(copies_into_mappings_stop_at_the_end);
    return finish();
}
