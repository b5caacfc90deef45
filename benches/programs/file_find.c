// Walk a tree of 2,000 files in 100 directories and look at each file; an operation is one of them.
#include "bench.h"
#include <dirent.h>
#include <sys/stat.h>

enum { DIRECTORIES = 100, FILES = 20, ROUNDS = 10 };

static void walk(void) {
    char path[300];
    struct stat stat_;
    DIR *top = opendir("/tmp/find");
    must(top != NULL, "opendir");
    for (struct dirent *entry; (entry = readdir(top));) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/tmp/find/%s", entry->d_name);
        DIR *directory = opendir(path);
        must(directory != NULL, path);
        for (struct dirent *file; (file = readdir(directory));)
            must(fstatat(dirfd(directory), file->d_name, &stat_, AT_SYMLINK_NOFOLLOW) == 0, file->d_name);
        closedir(directory);
    }
    closedir(top);
}

int main(void) {
    char path[100];
    must(mkdir("/tmp/find", 0755) == 0, "mkdir");
    for (int i = 0; i < DIRECTORIES; i++) {
        sprintf(path, "/tmp/find/%d", i);
        must(mkdir(path, 0755) == 0, path);
        for (int j = 0; j < FILES; j++) {
            sprintf(path, "/tmp/find/%d/%d", i, j);
            must(close(open(path, O_CREAT | O_WRONLY, 0644)) == 0, path);
        }
    }
    walk();
    int64_t start = now();
    for (int i = 0; i < ROUNDS; i++)
        walk();
    report(start, (long)ROUNDS * DIRECTORIES * FILES, (ROUNDS + 1l) * DIRECTORIES * FILES);
    return 0;
}
