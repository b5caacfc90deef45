// getppid by syscall(), whose number comes from a register.
#include "bench.h"

int main(void) {
    MEASURE(500000, syscall(SYS_getppid));
    return 0;
}
