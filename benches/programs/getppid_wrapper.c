// getppid by libc's wrapper.
#include "bench.h"

int main(void) {
    MEASURE(2000000, getppid());
    return 0;
}
