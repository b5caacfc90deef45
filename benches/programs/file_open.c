// Open a file that is known, and close it.
#include "bench.h"

int main(void) {
    must(close(open("/tmp/open", O_CREAT | O_WRONLY, 0644)) == 0, "open");
    MEASURE(200000, must(close(open("/tmp/open", O_RDONLY)) == 0, "open"));
    return 0;
}
