// stat of a file that is known.
#include "bench.h"
#include <sys/stat.h>

int main(void) {
    struct stat stat_;
    must(close(open("/tmp/stat", O_CREAT | O_WRONLY, 0644)) == 0, "open");
    MEASURE(500000, must(stat("/tmp/stat", &stat_) == 0, "stat"));
    return 0;
}
