// flags: -Wno-array-bounds
// Dies of a fault, by name.
#include <string.h>

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "";
    if (strcmp(how, "read_null") == 0) (void)*(volatile char *)0;
    if (strcmp(how, "ud2") == 0) __asm__ volatile("ud2");
    if (strcmp(how, "hlt") == 0) __asm__ volatile("hlt");
    if (strcmp(how, "divide_by_zero") == 0) __asm__ volatile("xor %%ecx, %%ecx\n\tdiv %%ecx" ::: "eax", "ecx", "edx");
    return 3;
}
