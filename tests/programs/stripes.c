// Several writers of one file at the same time, each in bytes of its own: stripes FILE ME OF SEED OPERATIONS.
//
// The file is cut into stripes of 1,000 bytes, so that pages are shared; stripe N is written by writer N % OF only, in every way
// a file is written. Each writer knows what its own stripes hold and checks that at once and in the end. A stripe begins with
// how often it was written: what is seen of others never goes backwards. `stripes FILE ME OF 0 0` only hashes ME's stripes.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { STRIPE = 1000, STRIPES = 600, BYTES = STRIPE * STRIPES };

static uint64_t state;
static long me, of, operation;
static char model[STRIPES][STRIPE], scratch[STRIPE];
static uint64_t seen[STRIPES];
static char *map;
static int fd, other;

static uint32_t any(uint32_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 11) % below;
}

static void expect(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "writer %ld, operation %ld: %s (%s)\n", me, operation, what, strerrorname_np(errno));
    exit(1);
}

static void check(int stripe, const char *how) {
    uint64_t count;
    memcpy(&count, scratch, sizeof count);
    if (stripe % of == me) {
        expect(memcmp(scratch, model[stripe], STRIPE) == 0, how);
    } else {
        expect(count >= seen[stripe], "what another has written is gone again");
        seen[stripe] = count;
    }
}

static void look(int stripe, int how) {
    off_t at = (off_t)stripe * STRIPE;
    int from = any(2) ? fd : other;
    switch (how) {
    case 0:
        expect(pread(from, scratch, STRIPE, at) == STRIPE, "pread");
        break;
    case 1:
        memcpy(scratch, map + at, STRIPE);
        break;
    case 2: {
        struct iovec parts[2] = {{scratch, 10}, {scratch + 10, STRIPE - 10}};
        expect(preadv(from, parts, 2, at) == STRIPE, "preadv");
        break;
    }
    case 3:
        expect(lseek(from, at, SEEK_SET) == at && read(from, scratch, STRIPE) == STRIPE, "read");
        break;
    }
    check(stripe, "one's own bytes are not what was written");
}

static void change(int stripe) {
    off_t at = (off_t)stripe * STRIPE;
    uint64_t count;
    memcpy(&count, model[stripe], sizeof count);
    count++;
    for (int i = 0; i < STRIPE; i++) model[stripe][i] = (char)any(256);
    memcpy(model[stripe], &count, sizeof count);
    int to = any(2) ? fd : other;
    switch (any(5)) {
    case 0:
    case 1:
        expect(pwrite(to, model[stripe], STRIPE, at) == STRIPE, "pwrite");
        break;
    case 2:
        memcpy(map + at, model[stripe], STRIPE);
        break;
    case 3: {
        struct iovec parts[2] = {{model[stripe], 333}, {model[stripe] + 333, STRIPE - 333}};
        expect(pwritev(to, parts, 2, at) == STRIPE, "pwritev");
        break;
    }
    case 4:
        expect(lseek(to, at, SEEK_SET) == at && write(to, model[stripe], STRIPE) == STRIPE, "write");
        break;
    }
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    me = atol(argv[2]);
    of = atol(argv[3]);
    uint64_t seed = strtoull(argv[4], NULL, 10);
    long count = atol(argv[5]);
    state = (seed * 64 + (uint64_t)me) * 0x9e3779b97f4a7c15ull + 1;
    fd = open(argv[1], O_RDWR);
    other = open(argv[1], O_RDWR);
    expect(fd >= 0 && other >= 0, "open");
    map = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    expect(map != MAP_FAILED, "mmap");
    for (int stripe = (int)me; stripe < STRIPES; stripe += (int)of) {
        expect(pread(fd, model[stripe], STRIPE, (off_t)stripe * STRIPE) == STRIPE, "the file's first contents");
    }
    for (operation = 0; operation < count; operation++) {
        int mine = (int)(me + of * any(STRIPES / (uint32_t)of));
        switch (any(8)) {
        case 0 ... 2: change(mine); break;
        case 3: look(mine, (int)any(4)); break;
        case 4 ... 6: look((int)any(STRIPES), (int)any(4)); break;
        case 7:
            if (any(20) == 0) {
                expect(any(2) ? msync(map, BYTES, MS_SYNC) == 0 : fdatasync(other) == 0, "sync");
            } else if (any(20) == 0) {
                struct stat info;
                expect(fstat(fd, &info) == 0 && info.st_size == BYTES, "the size");
            } else if (any(20) == 0) {
                close(other);
                other = open(argv[1], O_RDWR | O_CLOEXEC);
                expect(other >= 0, "open again");
            }
        }
    }
    uint64_t hash = 1469598103934665603ull;
    for (int stripe = (int)me; stripe < STRIPES; stripe += (int)of) {
        look(stripe, stripe % 4);
        for (int i = 0; i < STRIPE; i++) hash = (hash ^ (unsigned char)scratch[i]) * 1099511628211ull;
    }
    printf("writer %ld: %016llx\n", me, (unsigned long long)hash);
    return 0;
}
