// System V IPC and POSIX message queues: every call, its errors and what the kernel tells of the objects.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAY(call)                                                   \
    do {                                                            \
        errno = 0;                                                  \
        long got = (long)(call);                                    \
        if (got == -1) printf("%s: %s\n", #call, strerrorname_np(errno)); \
        else printf("%s: %ld\n", #call, got);                       \
    } while (0)

#define CHILD(...)                                    \
    do {                                              \
        fflush(stdout);                               \
        pid_t child = fork();                         \
        if (child == 0) {                             \
            __VA_ARGS__;                              \
            fflush(stdout);                           \
            _exit(0);                                 \
        }                                             \
        int status;                                   \
        waitpid(child, &status, 0);                   \
        if (status) printf("child: %x\n", status);    \
    } while (0)

struct text { long kind; char bytes[8300]; };
static struct text text;

static void perm(const struct ipc_perm *perm) {
    printf("key %x ids %d %d %d %d mode %o\n", perm->__key, perm->uid, perm->gid, perm->cuid, perm->cgid, perm->mode);
}

static void show(const char *path) {
    char line[400];
    FILE *from = fopen(path, "r");
    if (!from) {
        printf("%s: %s\n", path, strerrorname_np(errno));
        return;
    }
    /* Times and process numbers differ. */
    while (fgets(line, sizeof line, from)) {
        char word[6][30];
        int count = sscanf(line, "%29s %29s %29s %29s %29s %29s", word[0], word[1], word[2], word[3], word[4], word[5]);
        for (int i = 0; i < count && i < 4; i++) printf("%s ", word[i]);
        printf("%zu\n", strlen(line));
    }
    fclose(from);
}

static void on_signal(int signo) { (void)signo; }

static void soon(void) {
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGALRM, &action, NULL);
    ualarm(20000, 0);
}

static int put(int id, long kind, const char *bytes, size_t len, int flags) {
    text.kind = kind;
    memcpy(text.bytes, bytes, len < 100 ? len : 0);
    return msgsnd(id, &text, len, flags);
}

static long get(int id, size_t len, long kind, int flags) {
    memset(&text, 0, sizeof text);
    long got = msgrcv(id, &text, len, kind, flags);
    if (got >= 0) printf("  kind %ld: %.20s\n", text.kind, text.bytes);
    return got;
}

static void messages(void) {
    struct msqid_ds info;
    struct msginfo limits;
    SAY(msgget(0x1234, 0600));
    SAY(msgget(0x1234, IPC_CREAT | 0640));
    SAY(msgget(0x1234, IPC_CREAT | IPC_EXCL | 0600));
    SAY(msgget(0x1234, 0666));
    int id = msgget(0x1234, 0);
    int other = msgget(IPC_PRIVATE, 0600);
    SAY(other);
    SAY(msgctl(other, IPC_RMID, NULL));
    SAY(msgctl(other, IPC_STAT, &info));
    SAY(msgget(IPC_PRIVATE, 0600));
    SAY(msgctl(other, IPC_STAT, &info));
    SAY(put(id, 5, "five", 5, 0));
    SAY(put(id, 3, "three", 6, 0));
    SAY(put(id, 7, "seven", 6, 0));
    SAY(put(id, 3, "three again", 12, 0));
    SAY(put(id, 1, "", 0, 0));
    SAY(put(id, 0, "", 0, 0));
    SAY(put(id, -1, "", 0, 0));
    SAY(put(id, 1, "", 8193, 0));
    SAY(put(-1, 1, "", 1, 0));
    SAY(put(id + 40000, 1, "", 1, 0));
    SAY(msgsnd(id, NULL, 1, 0));
    SAY(msgctl(id, IPC_STAT, &info));
    perm(&info.msg_perm);
    printf("%lu messages, %lu bytes of %lu, sent %d by me %d, received %d\n", info.msg_qnum, info.__msg_cbytes,
           info.msg_qbytes, info.msg_stime != 0, info.msg_lspid == getpid(), info.msg_lrpid);
    show("/proc/sysvipc/msg");
    SAY(get(id, 100, 3, 0));
    SAY(get(id, 3, 7, 0));
    SAY(get(id, 3, 7, MSG_NOERROR));
    SAY(get(id, 100, -4, 0));
    SAY(get(id, 100, -4, 0));
    SAY(get(id, 100, 5, MSG_EXCEPT | IPC_NOWAIT));
    SAY(get(id, 100, 0, MSG_COPY | IPC_NOWAIT));
    SAY(get(id, 100, 1, MSG_COPY | IPC_NOWAIT));
    SAY(get(id, 100, 0, MSG_COPY));
    SAY(get(id, 100, 0, 0));
    SAY(get(id, 100, 0, IPC_NOWAIT));
    SAY(msgrcv(id, &text, -1, 0, 0));
    soon();
    SAY(get(id, 100, 0, 0));
    /* A full queue, and its room. */
    int count = 0;
    while (put(id, 1 + count % 3, "x", 1000, IPC_NOWAIT) == 0) count++;
    printf("%d messages: %s\n", count, strerrorname_np(errno));
    soon();
    SAY(put(id, 1, "x", 1000, 0));
    CHILD(usleep(20000); get(id, 2000, 2, 0));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        usleep(20000);
        msgrcv(id, &text, 2000, 3, 0);
        _exit(0);
    }
    put(id, 9, "waited", 1000, 0);
    waitpid(child, NULL, 0);
    SAY(get(id, 2000, 9, IPC_NOWAIT));
    info.msg_qbytes = 20000;
    CHILD(setuid(1000); SAY(msgctl(id, IPC_STAT, &info)); SAY(put(id, 1, "x", 1, IPC_NOWAIT)); SAY(get(id, 10, 0, IPC_NOWAIT));
          SAY(msgctl(id, IPC_RMID, NULL)); SAY(msgget(0x1234, 0400)); SAY(msgget(0x1234, 0)));
    msgctl(id, IPC_STAT, &info);
    info.msg_qbytes = 100;
    info.msg_perm.uid = 1000;
    info.msg_perm.mode = 0777;
    SAY(msgctl(id, IPC_SET, &info));
    CHILD(setgid(1000); setuid(1000); SAY(msgctl(id, IPC_STAT, &info)); perm(&info.msg_perm);
          info.msg_qbytes = 16385; SAY(msgctl(id, IPC_SET, &info)); SAY(put(id, 1, "x", 1, IPC_NOWAIT)));
    SAY(msgctl(0, IPC_INFO, (struct msqid_ds *)&limits));
    printf("%d %d %d %d %d %d %d %d\n", limits.msgpool, limits.msgmap, limits.msgmax, limits.msgmnb, limits.msgmni,
           limits.msgssz, limits.msgtql, limits.msgseg);
    SAY(msgctl(0, MSG_INFO, (struct msqid_ds *)&limits));
    printf("%d %d %d\n", limits.msgpool, limits.msgmap, limits.msgtql);
    SAY(msgctl(0, MSG_STAT, &info));
    SAY(msgctl(5, MSG_STAT, &info));
    SAY(msgctl(id, 99, &info));
    SAY(msgctl(id, IPC_STAT, (void *)8));
    fflush(stdout);
    child = fork();
    if (child == 0) {
        SAY(msgrcv(id, &text, 100, 77, 0));
        fflush(stdout);
        _exit(0);
    }
    usleep(20000);
    SAY(msgctl(id, IPC_RMID, NULL));
    waitpid(child, NULL, 0);
}

static int operate(int id, int count, ...) {
    struct sembuf operations[8];
    va_list list;
    va_start(list, count);
    for (int i = 0; i < count; i++) {
        operations[i].sem_num = (unsigned short)va_arg(list, int);
        operations[i].sem_op = (short)va_arg(list, int);
        operations[i].sem_flg = (short)va_arg(list, int);
    }
    va_end(list);
    return semop(id, operations, (size_t)count);
}

static void values(int id) {
    unsigned short all[4];
    if (semctl(id, 0, GETALL, all) < 0) printf("GETALL: %s\n", strerrorname_np(errno));
    else printf("values %d %d %d %d\n", all[0], all[1], all[2], all[3]);
}

static void *in_thread(void *id) {
    operate(*(int *)id, 1, 3, 4, SEM_UNDO);
    return NULL;
}

static void semaphores(void) {
    struct semid_ds info;
    struct seminfo limits;
    unsigned short all[4] = {1, 2, 3, 4};
    SAY(semget(0x77, 0, IPC_CREAT | 0600));
    SAY(semget(0x77, -1, IPC_CREAT | 0600));
    SAY(semget(0x77, 32001, IPC_CREAT | 0600));
    SAY(semget(0x77, 4, IPC_CREAT | 0600));
    SAY(semget(0x77, 5, 0600));
    SAY(semget(0x77, 0, 0600));
    int id = semget(0x77, 4, 0600);
    values(id);
    SAY(semctl(id, 0, SETALL, all));
    values(id);
    SAY(operate(id, 2, 0, 5, 0, 1, -2, 0));
    values(id);
    SAY(operate(id, 3, 0, 1, 0, 1, -1, IPC_NOWAIT, 2, 1, 0));
    values(id);
    SAY(operate(id, 1, 1, 0, 0));
    SAY(operate(id, 1, 0, 0, IPC_NOWAIT));
    SAY(operate(id, 1, 4, 1, 0));
    SAY(operate(id, 1, 0, 32767, 0));
    SAY(operate(id, 0));
    SAY(semop(id, NULL, 1));
    SAY(semop(id, NULL, 501));
    SAY(operate(-1, 1, 0, 1, 0));
    SAY(semctl(id, 2, SETVAL, 9));
    SAY(semctl(id, 2, GETVAL));
    SAY(semctl(id, 2, SETVAL, -1));
    SAY(semctl(id, 2, SETVAL, 32768));
    SAY(semctl(id, 4, GETVAL));
    SAY(semctl(id, 2, GETPID) == getpid());
    SAY(semctl(id, 3, GETPID) == getpid());
    struct timespec short_time = {0, 20000000}, bad = {0, -1};
    struct sembuf take = {1, -5, 0};
    SAY(semtimedop(id, &take, 1, &short_time));
    SAY(semtimedop(id, &take, 1, &bad));
    soon();
    SAY(semop(id, &take, 1));
    fflush(stdout);
    /* Two sleepers, and who they wait for. */
    pid_t zero = fork();
    if (zero == 0) _exit(operate(id, 1, 0, 0, 0) != 0);
    pid_t more = fork();
    if (more == 0) _exit(operate(id, 2, 1, -3, 0, 0, 1, 0) != 0);
    while (semctl(id, 0, GETZCNT) != 1 || semctl(id, 1, GETNCNT) != 1) usleep(1000);
    SAY(semctl(id, 0, GETNCNT));
    SAY(operate(id, 1, 0, -6, 0));
    waitpid(zero, NULL, 0);
    SAY(operate(id, 1, 1, 3, 0));
    waitpid(more, NULL, 0);
    values(id);
    /* Undoing. */
    CHILD(operate(id, 2, 0, 5, SEM_UNDO, 3, -1, SEM_UNDO); operate(id, 1, 0, 2, 0); values(id));
    values(id);
    CHILD(operate(id, 1, 2, -9, SEM_UNDO); semctl(id, 2, SETVAL, 4));
    values(id);
    CHILD(operate(id, 1, 2, 3, SEM_UNDO); operate(id, 1, 2, -6, 0));
    values(id);
    CHILD(pthread_t thread; pthread_create(&thread, NULL, in_thread, &id); pthread_join(thread, NULL); values(id));
    values(id);
    CHILD(operate(id, 1, 3, 1, SEM_UNDO); CHILD(operate(id, 1, 3, 1, 0)); values(id));
    values(id);
    CHILD(operate(id, 1, 3, 2, SEM_UNDO); SAY(unshare(CLONE_SYSVSEM)); values(id));
    CHILD(int i; for (i = 0; operate(id, 2, 3, 32000, SEM_UNDO, 3, -32000, 0) == 0; i++); printf("%d: %s\n", i, strerrorname_np(errno)));
    CHILD(setuid(1000); SAY(semctl(id, 0, GETVAL)); SAY(operate(id, 1, 0, 1, 0)); SAY(semctl(id, 0, IPC_RMID)));
    SAY(semctl(id, 0, IPC_STAT, &info));
    perm(&info.sem_perm);
    printf("%lu semaphores, operated on %d\n", info.sem_nsems, info.sem_otime != 0);
    info.sem_perm.mode = 0644;
    SAY(semctl(id, 0, IPC_SET, &info));
    CHILD(setuid(1000); SAY(semctl(id, 0, GETVAL)); SAY(operate(id, 1, 0, 1, 0)); SAY(operate(id, 1, 1, 0, IPC_NOWAIT)));
    show("/proc/sysvipc/sem");
    SAY(semctl(0, 0, IPC_INFO, &limits));
    printf("%d %d %d %d %d %d %d %d %d %d\n", limits.semmap, limits.semmni, limits.semmns, limits.semmnu, limits.semmsl,
           limits.semopm, limits.semume, limits.semusz, limits.semvmx, limits.semaem);
    SAY(semctl(0, 0, SEM_INFO, &limits));
    printf("%d %d\n", limits.semusz, limits.semaem);
    SAY(semctl(0, 0, SEM_STAT, &info));
    SAY(semctl(id, 0, 99));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        SAY(operate(id, 1, 0, -30000, 0));
        fflush(stdout);
        _exit(0);
    }
    while (semctl(id, 0, GETNCNT) != 1) usleep(1000);
    SAY(semctl(id, 0, IPC_RMID));
    waitpid(child, NULL, 0);
    SAY(operate(id, 1, 0, 1, 0));
}

static void segments(void) {
    struct shmid_ds info;
    struct shminfo limits;
    struct shm_info usage;
    SAY(shmget(0x55, 0, IPC_CREAT | 0600));
    SAY(shmget(0x55, 5000, 0));
    SAY(shmget(0x55, 5000, IPC_CREAT | 0600));
    SAY(shmget(0x55, 5001, 0600));
    SAY(shmget(0x55, 0, 0600));
    int id = shmget(0x55, 100, 0600);
    char *at = shmat(id, NULL, 0), *second = shmat(id, NULL, SHM_RDONLY);
    printf("%d %d\n", at != (void *)-1, second != (void *)-1);
    strcpy(at + 4500, "shared");
    printf("%s\n", second + 4500);
    SAY(mprotect(second, 4096, PROT_READ | PROT_WRITE));
    CHILD(strcpy(at, "from the child"); SAY(shmctl(id, IPC_STAT, &info)); printf("%lu\n", info.shm_nattch));
    printf("%s\n", second);
    SAY(shmctl(id, IPC_STAT, &info));
    perm(&info.shm_perm);
    printf("%zu bytes, attached %lu, by me %d %d, times %d %d\n", info.shm_segsz, info.shm_nattch, info.shm_cpid == getpid(),
           info.shm_lpid != 0, info.shm_atime != 0, info.shm_ctime != 0);
    show("/proc/sysvipc/shm");
    SAY((long)shmat(id, at, 0));
    SAY((long)shmat(id, at + 1, 0));
    SAY((long)shmat(id, NULL, SHM_REMAP));
    SAY((long)shmat(id + 1, NULL, 0));
    char *over = mmap(NULL, 16384, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SAY((char *)shmat(id, over + 4096 + 100, SHM_RND | SHM_REMAP) - over);
    printf("%s\n", over + 4096);
    SAY(shmdt(over + 4096));
    SAY(shmdt(over));
    SAY(shmdt(second + 1));
    SAY(shmdt(second));
    SAY(shmdt(second));
    SAY(munmap(at, 4096));
    SAY(strcmp(at + 4500, "shared"));
    SAY(shmdt(at));
    SAY(shmctl(id, IPC_STAT, &info));
    printf("attached %lu, detached %d\n", info.shm_nattch, info.shm_dtime != 0);
    CHILD(setuid(1000); SAY((long)shmat(id, NULL, 0)); SAY(shmctl(id, IPC_RMID, NULL)); SAY(shmctl(id, IPC_STAT, &info)));
    at = shmat(id, NULL, 0);
    printf("%s\n", at);
    SAY(shmctl(id, SHM_LOCK, NULL));
    SAY(shmctl(id, IPC_STAT, &info));
    perm(&info.shm_perm);
    SAY(shmctl(id, IPC_RMID, NULL));
    SAY(shmctl(id, IPC_STAT, &info));
    perm(&info.shm_perm);
    SAY(shmget(0x55, 100, 0600));
    second = shmat(id, NULL, 0);
    printf("%d\n", second == (void *)-1 ? errno : 0);
    SAY(shmdt(at));
    SAY(shmdt(second));
    SAY(shmctl(id, IPC_STAT, &info));
    SAY(shmctl(0, IPC_INFO, (struct shmid_ds *)&limits));
    printf("%lx %lu %lu %lu %lx\n", limits.shmmax, limits.shmmin, limits.shmmni, limits.shmseg, limits.shmall);
    id = shmget(IPC_PRIVATE, 3 << 20, 0600);
    at = shmat(id, NULL, 0);
    for (int i = 0; i < 768; i++) at[i * 4096] = (char)i;
    SAY(shmctl(0, SHM_INFO, (struct shmid_ds *)&usage));
    printf("%d segments, %lu pages, %lu there\n", usage.used_ids, usage.shm_tot, usage.shm_rss);
    /* Exit detaches; a mark in memory is shared by relatives and strangers. */
    CHILD(at[5] = 42);
    CHILD(char *mine = shmat(id, NULL, 0); printf("%d\n", mine[5]); shmctl(id, IPC_RMID, NULL));
    SAY(shmctl(id, IPC_STAT, &info));
    printf("attached %lu mode %o\n", info.shm_nattch, info.shm_perm.mode);
    shmdt(at);
    SAY(shmctl(id, IPC_STAT, &info));
}

static volatile sig_atomic_t notified;
static void on_message(int signo, siginfo_t *info, void *context) {
    (void)context;
    notified = signo == SIGUSR1 && info->si_code == SI_MESGQ ? info->si_value.sival_int : -1;
}

static void posix(void) {
    char bytes[9000] = "";
    unsigned priority;
    struct mq_attr attributes = {.mq_maxmsg = 3, .mq_msgsize = 100};
    SAY(mq_open("/none", O_RDONLY));
    SAY(syscall(SYS_mq_open, "/none", O_RDONLY, 0, NULL));
    SAY(syscall(SYS_mq_open, "a/b", O_RDONLY | O_CREAT, 0600, NULL));
    SAY(syscall(SYS_mq_open, "", O_RDONLY | O_CREAT, 0600, NULL));
    attributes.mq_maxmsg = 11;
    SAY(mq_open("/q", O_RDWR | O_CREAT, 0600, &attributes));
    attributes.mq_maxmsg = 0;
    SAY(mq_open("/q", O_RDWR | O_CREAT, 0600, &attributes));
    attributes.mq_maxmsg = 3;
    mqd_t queue = mq_open("/q", O_RDWR | O_CREAT | O_EXCL, 0640, &attributes);
    printf("%d\n", queue >= 0);
    SAY(fcntl(queue, F_GETFD));
    SAY(mq_open("/q", O_RDWR | O_CREAT | O_EXCL, 0600, NULL));
    SAY(mq_send(queue, "low", 3, 1));
    SAY(mq_send(queue, "high", 4, 9));
    SAY(mq_send(queue, "low too", 7, 1));
    SAY(mq_getattr(queue, &attributes));
    printf("%ld %ld %ld %ld\n", attributes.mq_flags, attributes.mq_maxmsg, attributes.mq_msgsize, attributes.mq_curmsgs);
    attributes.mq_flags = O_NONBLOCK;
    SAY(mq_setattr(queue, &attributes, NULL));
    SAY(mq_send(queue, "x", 1, 0));
    struct pollfd poller = {queue, POLLIN | POLLOUT, 0};
    SAY(poll(&poller, 1, 0));
    printf("%x\n", poller.revents);
    SAY(mq_receive(queue, bytes, 99, NULL));
    for (int i = 0; i < 4; i++) {
        priority = 77;
        memset(bytes, 0, 100);
        SAY(mq_receive(queue, bytes, 100, &priority));
        printf("%s %u\n", bytes, priority);
    }
    SAY(mq_send(queue, bytes, 101, 0));
    SAY(mq_send(queue, bytes, 1, 32768));
    attributes.mq_flags = 0;
    mq_setattr(queue, &attributes, NULL);
    struct timespec when;
    clock_gettime(CLOCK_REALTIME, &when);
    when.tv_nsec += 20000000;
    if (when.tv_nsec >= 1000000000) when.tv_sec++, when.tv_nsec -= 1000000000;
    SAY(mq_timedreceive(queue, bytes, 100, NULL, &when));
    when.tv_nsec = -1;
    SAY(mq_timedreceive(queue, bytes, 100, NULL, &when));
    soon();
    SAY(mq_receive(queue, bytes, 100, NULL));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        usleep(20000);
        mq_send(queue, "from the child", 15, 3);
        _exit(0);
    }
    SAY(mq_receive(queue, bytes, 100, NULL));
    printf("%s\n", bytes);
    waitpid(child, NULL, 0);
    /* Notification. */
    struct sigaction action = {.sa_sigaction = on_message, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 4711};
    SAY(mq_notify(queue, &event));
    SAY(mq_notify(queue, &event));
    CHILD(SAY(mq_notify(queue, &event)); SAY(mq_notify(queue, NULL)));
    SAY(mq_send(queue, "one", 3, 0));
    SAY(mq_send(queue, "two", 3, 0));
    printf("notified %d\n", (int)notified);
    SAY(mq_notify(queue, &event));
    SAY(mq_notify(queue, NULL));
    mqd_t only = mq_open("/q", O_RDONLY);
    SAY(mq_send(only, "x", 1, 0));
    SAY(mq_receive(0, bytes, 100, NULL));
    CHILD(setuid(1000); SAY(mq_open("/q", O_RDONLY)); SAY(mq_unlink("/q")); SAY(mq_unlink("/none"));
          SAY(mq_open("/of1000", O_RDWR | O_CREAT, 0600, NULL) >= 0); SAY(mq_unlink("/of1000")));
    struct stat info;
    SAY(fstat(queue, &info));
    printf("%o %ld\n", info.st_mode, (long)info.st_size);
    memset(bytes, 0, sizeof bytes);
    SAY(read(queue, bytes, 200));
    printf("%s", bytes);
    SAY(lseek(queue, 0, SEEK_SET));
    SAY(access("/dev/mqueue/q", F_OK));
    SAY(close(open("/dev/mqueue/made", O_CREAT | O_RDWR, 0600)));
    only = mq_open("/made", O_RDWR);
    SAY(mq_getattr(only, &attributes));
    printf("%ld %ld\n", attributes.mq_maxmsg, attributes.mq_msgsize);
    SAY(unlink("/dev/mqueue/made"));
    SAY(mkdir("/dev/mqueue/d", 0700));
    SAY(mq_unlink("/q"));
    SAY(mq_unlink("/q"));
    SAY(mq_receive(queue, bytes, 100, NULL));
}

static void name_spaces(void) {
    struct msqid_ds info;
    char before[80] = "", after[80] = "", host[80];
    int id = msgget(0x99, IPC_CREAT | 0600);
    CHILD(int own = open("/proc/self/ns/ipc", O_RDONLY); readlink("/proc/self/ns/ipc", before, 79);
          if (unshare(CLONE_NEWIPC)) { printf("unshare: %s\n", strerrorname_np(errno)); _exit(0); }
          readlink("/proc/self/ns/ipc", after, 79); printf("%d %.5s\n", strcmp(before, after) != 0, after);
          SAY(msgctl(id, IPC_STAT, &info)); SAY(msgget(0x99, 0600)); SAY(setns(own, CLONE_NEWUTS)); SAY(setns(own, CLONE_NEWIPC));
          SAY(msgget(0x99, 0600) == id); SAY(setns(0, 0)));
    CHILD(if (unshare(CLONE_NEWUTS)) { printf("unshare: %s\n", strerrorname_np(errno)); _exit(0); }
          SAY(sethostname("inner", 5)); gethostname(host, 80); printf("%s\n", host));
    gethostname(host, 80);
    printf("%s\n", host);
    SAY(unshare(CLONE_FILES | CLONE_FS));
    SAY(unshare(0x10));
    msgctl(id, IPC_RMID, NULL);
}

int main(void) {
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    messages();
    semaphores();
    segments();
    posix();
    name_spaces();
    return 0;
}
