// flags: -Wno-array-bounds -Wno-stringop-overflow
// Attacks on the library OS a process shares its privilege level with. Whatever happens, it happens to this
// container only. Not compared with runc, where the kernel refuses all of this.
#include "check.h"

static uint64_t state = 88172645463325252ull;
static uint64_t next(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}

/* Each attack runs in a child too, so that the parent goes on as long as the container lives. */
static void attempt(void (*attack)(uint64_t), uint64_t argument) {
    pid_t pid = fork();
    if (pid == 0) {
        attack(argument);
        _exit(0);
    }
    int status;
    if (pid > 0) waitpid(pid, &status, 0);
}

static const uint64_t regions[] = {0xffffffff80000000, 0xffff808000000000, 0xffffff8000000000, 0xffffffffff600000,
                                   0xffffffffc0000000, 0xffff888000000000, 0xfffffffffffff000, 0xffff800000000000};
#define REGIONS (sizeof regions / sizeof *regions)

static void write_at(uint64_t address) {
    *(volatile uint64_t *)address = next();
}

static void write_run(uint64_t address) {
    for (uint64_t i = 0; i < 1 << 20; i += 8) *(volatile uint64_t *)(address + i) = next();
}

static void read_run(uint64_t address) {
    for (uint64_t i = 0; i < 1 << 20; i += 8) (void)*(volatile uint64_t *)(address + i);
}

static void jump_to(uint64_t address) {
    __asm__ volatile("jmp *%0" ::"r"(address) : "memory");
}

static void ring(uint64_t argument) {
    uint16_t port = 0x500 + (argument & 0xff);
    uint32_t value = (uint32_t)next();
    switch (argument >> 8) {
    case 0: __asm__ volatile("outb %b0, %1" ::"a"(value), "Nd"(port)); break;
    case 1: __asm__ volatile("outw %w0, %1" ::"a"(value), "Nd"(port)); break;
    case 2: __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port)); break;
    case 3: __asm__ volatile("inb %1, %b0" : "+a"(value) : "Nd"(port)); break;
    case 4: __asm__ volatile("inw %1, %w0" : "+a"(value) : "Nd"(port)); break;
    case 5: __asm__ volatile("inl %1, %0" : "+a"(value) : "Nd"(port)); break;
    case 6: { // strings, and a count
        uint64_t count = 1000, from = (uint64_t)regions;
        __asm__ volatile("rep outsb" : "+c"(count), "+S"(from) : "d"(port) : "memory");
        break;
    }
    }
}

static void random_writes(void) {
    for (int i = 0; i < 2000; i++) attempt(write_at, regions[next() % REGIONS] + (next() % (64 << 20) & ~7ull));
}

static void overwrite(void) {
    for (unsigned i = 0; i < REGIONS; i++) attempt(write_run, regions[i]);
}

static void read_everything(void) {
    for (unsigned i = 0; i < REGIONS; i++) attempt(read_run, regions[i]);
}

static void jumps(void) {
    for (int i = 0; i < 300; i++) attempt(jump_to, regions[next() % REGIONS] + next() % (4 << 20));
    for (uint64_t offset = 0; offset < 4096; offset += 5) attempt(jump_to, 0xffffffff80000000 + offset);
}

static void doorbells(void) {
    for (uint64_t width = 0; width < 7; width++)
        for (uint64_t port = 0; port < 256; port++) attempt(ring, width << 8 | port);
}

/* Without a child: the first process itself rings, often. */
static void doorbell_storm(void) {
    for (int i = 0; i < 20000; i++) ring(next() % 3 << 8 | next() % 16);
}

static void *spin_and_ring(void *arg) {
    (void)arg;
    for (int i = 0; i < 2000; i++) ring(2 << 8 | next() % 16);
    return NULL;
}

static void doorbells_of_threads(void) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) threads[i] = start(spin_and_ring, NULL);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}

/* Takes every signal, holds the processor, wants all memory. */
static void fork_bomb(void) {
    for (int i = 0; i < 3000; i++) {
        pid_t pid = fork();
        if (pid == 0)
            for (;;) pause();
        if (pid < 0) break;
    }
}

static void eat_memory(void) {
    for (;;) {
        char *block = mmap(NULL, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED) break;
        memset(block, 1, 16 << 20);
    }
}

static const struct {
    const char *name;
    void (*run)(void);
} modes[] = {
#define ROW(name) {#name, name},
    ROW(random_writes) ROW(overwrite) ROW(read_everything) ROW(jumps) ROW(doorbells)
    ROW(doorbell_storm) ROW(doorbells_of_threads) ROW(fork_bomb) ROW(eat_memory)
};

int main(int argc, char **argv) {
    for (unsigned i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (argc > 1 && strcmp(argv[1], modes[i].name) != 0) continue;
        modes[i].run();
        return 1; // survived: as good as any other end, but defined
    }
    return 2;
}
