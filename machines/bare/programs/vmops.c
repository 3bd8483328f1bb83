/* What one operation of the virtual memory costs, in ticks of the time-stamp counter: under QEMU's
   instruction counter those are instructions. Static, one thread; runs on Linux and on the kernel
   beside it. Prints "name ticks-per-operation", the least of several rounds.
   musl-gcc -O2 -static -fno-builtin -o vmops vmops.c */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096L
#define ROUNDS 3

typedef unsigned long word;

static word ticks, began;

static inline word now(void)
{
    unsigned low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
    return (word)high << 32 | low;
}

static inline void start(void) { began = now(); }
static inline void stop(void) { ticks += now() - began; }

/* Calls without the C library's wrappers around them. */
static inline long call(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static void fail(const char *what)
{
    perror(what);
    _exit(1);
}

static char *take(long pages)
{
    char *at = (char *)call(SYS_mmap, 0, pages * PAGE, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if ((long)at < 0 && (long)at > -4096)
        fail("mmap");
    return at;
}

static inline void give(char *at, long pages) { call(SYS_munmap, (long)at, pages * PAGE, 0, 0, 0, 0); }

static inline void store(char *at, long pages)
{
    for (long n = 0; n < pages; n++)
        *(volatile char *)(at + n * PAGE) = 1;
}

static inline void load(char *at, long pages)
{
    for (long n = 0; n < pages; n++)
        (void)*(volatile char *)(at + n * PAGE);
}

static long nothing(long n)
{
    start();
    stop();
    return n;
}

static long getppid_(long n)
{
    start();
    for (long i = 0; i < n; i++)
        call(SYS_getppid, 0, 0, 0, 0, 0, 0);
    stop();
    return n;
}

static long anon_write(long n)
{
    char *at = take(n);
    start();
    store(at, n);
    stop();
    give(at, n);
    return n;
}

static long anon_read(long n)
{
    char *at = take(n);
    start();
    load(at, n);
    stop();
    give(at, n);
    return n;
}

static long zero_to_own(long n)
{
    char *at = take(n);
    load(at, n);
    start();
    store(at, n);
    stop();
    give(at, n);
    return n;
}

/* A child that stays while the parent writes, or has gone before. */
static long cow(long n, int stays)
{
    char *at = take(n), byte = 0;
    int ready[2], go[2];
    store(at, n);
    if (pipe(ready) || pipe(go))
        fail("pipe");
    pid_t child = fork();
    if (child == 0) {
        close(go[1]);
        if (stays && (write(ready[1], &byte, 1) != 1 || read(go[0], &byte, 1) < 0))
            _exit(1);
        _exit(0);
    }
    if (stays) {
        if (read(ready[0], &byte, 1) != 1)
            fail("read");
    } else {
        waitpid(child, 0, 0);
    }
    start();
    store(at, n);
    stop();
    close(go[0]);
    close(go[1]);
    if (stays)
        waitpid(child, 0, 0);
    close(ready[0]);
    close(ready[1]);
    give(at, n);
    return n;
}

static long cow_copy(long n) { return cow(n, 1); }
static long cow_reuse(long n) { return cow(n, 0); }

static int new_file(long pages)
{
    static char bytes[PAGE];
    int file = open("/tmp/vmops", O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (file < 0)
        fail("/tmp/vmops");
    memset(bytes, 7, PAGE);
    for (long n = 0; n < pages; n++)
        if (write(file, bytes, PAGE) != PAGE)
            fail("write");
    unlink("/tmp/vmops");
    return file;
}

static int fault_around(const char *bytes)
{
    int file = open("/sys/kernel/debug/fault_around_bytes", O_WRONLY);
    if (file < 0)
        return -1;
    long done = write(file, bytes, strlen(bytes));
    close(file);
    return done < 0 ? -1 : 0;
}

static long file_fault(long n, int flags, int writes)
{
    int file = new_file(n);
    char *at = mmap(0, n * PAGE, PROT_READ | PROT_WRITE, flags, file, 0);
    if (at == MAP_FAILED)
        fail("mmap of a file");
    start();
    if (writes)
        store(at, n);
    else
        load(at, n);
    stop();
    give(at, n);
    close(file);
    return n;
}

static long file_around(long n) { return file_fault(n, MAP_SHARED, 0); }
static long file_private_write(long n) { return file_fault(n, MAP_PRIVATE, 1); }

static long file_single(long n)
{
    if (fault_around("4096"))
        return 0;
    file_fault(n, MAP_SHARED, 0);
    fault_around("65536");
    return n;
}

static long transfer(long n, long number)
{
    static char bytes[PAGE] __attribute__((aligned(4096)));
    int file = new_file(256);
    memset(bytes, 1, PAGE);
    start();
    for (long i = 0; i < n; i++)
        call(number, file, (long)bytes, PAGE, (i & 255) * PAGE, 0, 0);
    stop();
    close(file);
    return n;
}

static long pread_(long n) { return transfer(n, SYS_pread64); }
static long pwrite_(long n) { return transfer(n, SYS_pwrite64); }

static long mmap_munmap(long n)
{
    start();
    for (long i = 0; i < n; i++)
        give(take(1), 1);
    stop();
    return n;
}

static long touched(long pages, long n)
{
    start();
    for (long i = 0; i < n; i++) {
        char *at = take(pages);
        store(at, pages);
        give(at, pages);
    }
    stop();
    return n;
}

static long touch_1(long n) { return touched(1, n); }
static long touch_16(long n) { return touched(16, n); }
static long touch_512(long n) { return touched(512, n); }

static long munmap_page(long n)
{
    char *at = take(n);
    store(at, n);
    start();
    give(at, n);
    stop();
    return n;
}

static inline void protect(char *at, long pages, long rights)
{
    call(SYS_mprotect, (long)at, pages * PAGE, rights, 0, 0, 0);
}

static long mprotect_split(long n)
{
    char *at = take(16);
    store(at, 16);
    start();
    for (long i = 0; i < n; i++) {
        protect(at + 8 * PAGE, 1, PROT_READ);
        protect(at + 8 * PAGE, 1, PROT_READ | PROT_WRITE);
    }
    stop();
    give(at, 16);
    return n;
}

static long mprotect_whole(long n)
{
    char *all = mmap(0, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *at = all + PAGE;
    protect(at, 1, PROT_READ | PROT_WRITE);
    store(at, 1);
    start();
    for (long i = 0; i < n; i++) {
        protect(at, 1, PROT_READ);
        protect(at, 1, PROT_READ | PROT_WRITE);
    }
    stop();
    give(all, 3);
    return n;
}

static long moved(long pages, long n)
{
    char *room = mmap(0, 4096 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *from = (char *)(((word)room + 0x1fffff) & ~0x1fffffUL), *to = from + 1024 * PAGE;
    give(room, 4096);
    if (mmap(from, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != from)
        fail("mmap at a fixed place");
    store(from, pages);
    start();
    for (long i = 0; i < n; i++) {
        call(SYS_mremap, (long)from, pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, (long)to, 0);
        char *was = from;
        from = to;
        to = was;
    }
    stop();
    give(from, pages);
    return n;
}

static long mremap_1(long n) { return moved(1, n); }
static long mremap_16(long n) { return moved(16, n); }

static long mremap_grow(long n)
{
    for (long i = 0; i < n; i++) {
        char *at = take(16);
        store(at, 16);
        char *wall = mmap(at + 16 * PAGE, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        start();
        char *to = (char *)call(SYS_mremap, (long)at, 16 * PAGE, 32 * PAGE, MREMAP_MAYMOVE, 0, 0);
        stop();
        give(to, 32);
        if (wall == at + 16 * PAGE)
            give(wall, 1);
    }
    return n;
}

static long brk_pair(long n)
{
    long first = call(SYS_brk, 0, 0, 0, 0, 0, 0), from = (first + PAGE - 1) & ~(PAGE - 1), end = from + 16 * PAGE;
    call(SYS_brk, end, 0, 0, 0, 0, 0);
    store((char *)from, 16);
    start();
    for (long i = 0; i < n; i++) {
        call(SYS_brk, end + PAGE, 0, 0, 0, 0, 0);
        call(SYS_brk, end, 0, 0, 0, 0, 0);
    }
    stop();
    call(SYS_brk, first, 0, 0, 0, 0, 0);
    return n;
}

static long dontneed_1(long n)
{
    char *at = take(16);
    store(at, 16);
    start();
    for (long i = 0; i < n; i++) {
        call(SYS_madvise, (long)(at + 8 * PAGE), PAGE, MADV_DONTNEED, 0, 0, 0);
        store(at + 8 * PAGE, 1);
    }
    stop();
    give(at, 16);
    return n;
}

static long dontneed_512(long n)
{
    char *at = take(512);
    store(at, 512);
    start();
    for (long i = 0; i < n; i++) {
        call(SYS_madvise, (long)at, 512 * PAGE, MADV_DONTNEED, 0, 0, 0);
        store(at, 512);
    }
    stop();
    give(at, 512);
    return n * 512;
}

static long mincore_512(long n)
{
    static unsigned char there[512];
    char *at = take(512);
    store(at, 512);
    start();
    for (long i = 0; i < n; i++)
        call(SYS_mincore, (long)at, 512 * PAGE, (long)there, 0, 0, 0);
    stop();
    give(at, 512);
    return n;
}

static long forked(long pages, long n)
{
    char *at = pages ? take(pages) : 0;
    int status;
    store(at, pages);
    start();
    for (long i = 0; i < n; i++) {
        long child = call(SYS_fork, 0, 0, 0, 0, 0, 0);
        if (child == 0)
            call(SYS_exit_group, 0, 0, 0, 0, 0, 0);
        call(SYS_wait4, child, (long)&status, 0, 0, 0, 0);
    }
    stop();
    if (pages)
        give(at, pages);
    return n;
}

static long fork_0(long n) { return forked(0, n); }
static long fork_1k(long n) { return forked(1024, n); }
static long fork_16k(long n) { return forked(16384, n); }

static char self[256], tiny[256];

static long fork_exec(long n)
{
    char *arguments[] = {tiny, 0}, *environment[] = {0};
    int status = 0;
    if (access(tiny, X_OK))
        return 0;
    start();
    for (long i = 0; i < n; i++) {
        long child = call(SYS_fork, 0, 0, 0, 0, 0, 0);
        if (child == 0) {
            call(SYS_execve, (long)tiny, (long)arguments, (long)environment, 0, 0, 0);
            call(SYS_exit_group, 9, 0, 0, 0, 0, 0);
        }
        call(SYS_wait4, child, (long)&status, 0, 0, 0, 0);
        if (status)
            fail("tiny");
    }
    stop();
    return n;
}

/* Faults in random order, among many areas or in one. */
static long scattered(long n, int areas)
{
    char *at = mmap(0, 2 * n * PAGE, areas ? PROT_NONE : PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned *order = malloc(n * sizeof *order);
    word random = 88172645463325252UL;
    if (at == MAP_FAILED || !order)
        fail("room for the areas");
    for (long i = 0; areas && i < n; i++)
        if (mprotect(at + 2 * i * PAGE, PAGE, PROT_READ | PROT_WRITE))
            fail("mprotect");
    for (long i = 0; i < n; i++)
        order[i] = i;
    for (long i = n - 1; i > 0; i--) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        long j = random % (i + 1);
        unsigned was = order[i];
        order[i] = order[j];
        order[j] = was;
    }
    /* The page tables are there, so that only the search differs. */
    for (long i = 0; i < n; i += 128)
        store(at + 2 * i * PAGE, 1);
    start();
    for (long i = 0; i < n; i++)
        store(at + 2UL * order[i] * PAGE, 1);
    stop();
    give(at, 2 * n);
    free(order);
    return n;
}

static long among_20000(long n) { return scattered(n, 1); }
static long among_1(long n) { return scattered(n, 0); }

static long pipe_trip(long n)
{
    int there[2], back[2];
    char byte = 0;
    if (pipe(there) || pipe(back))
        fail("pipe");
    pid_t child = fork();
    if (child == 0) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1)
            if (write(back[1], &byte, 1) != 1)
                break;
        _exit(0);
    }
    start();
    for (long i = 0; i < n; i++) {
        call(SYS_write, there[1], (long)&byte, 1, 0, 0, 0);
        call(SYS_read, back[0], (long)&byte, 1, 0, 0, 0);
    }
    stop();
    close(there[0]);
    close(there[1]);
    waitpid(child, 0, 0);
    close(back[0]);
    close(back[1]);
    return n;
}

static const struct {
    const char *name;
    long (*run)(long);
    long operations;
} operations[] = {
    {"empty", nothing, 1},
    {"null", getppid_, 10000},
    {"anon-write", anon_write, 4096},
    {"anon-read", anon_read, 4096},
    {"zero-to-own", zero_to_own, 4096},
    {"cow-copy", cow_copy, 4096},
    {"cow-reuse", cow_reuse, 4096},
    {"file-single", file_single, 4096},
    {"file-around", file_around, 4096},
    {"file-private-write", file_private_write, 4096},
    {"pread", pread_, 10000},
    {"pwrite", pwrite_, 10000},
    {"mmap-munmap", mmap_munmap, 2000},
    {"touch-1", touch_1, 1000},
    {"touch-16", touch_16, 200},
    {"touch-512", touch_512, 10},
    {"munmap-page", munmap_page, 4096},
    {"mprotect-split", mprotect_split, 1000},
    {"mprotect-whole", mprotect_whole, 1000},
    {"mremap-1", mremap_1, 1000},
    {"mremap-16", mremap_16, 1000},
    {"mremap-grow", mremap_grow, 500},
    {"brk", brk_pair, 2000},
    {"dontneed-1", dontneed_1, 1000},
    {"dontneed-512", dontneed_512, 10},
    {"mincore-512", mincore_512, 100},
    {"fork-0", fork_0, 100},
    {"fork-1k", fork_1k, 50},
    {"fork-16k", fork_16k, 5},
    {"fork-exec", fork_exec, 50},
    {"among-20000", among_20000, 10000},
    {"among-1", among_1, 10000},
    {"pipe", pipe_trip, 2000},
};

int main(int count, char **words)
{
    long length = readlink("/proc/self/exe", self, sizeof self - 1);
    setvbuf(stdout, 0, _IONBF, 0);
    /* Pages of 4 KiB only, as the figures for Linux. */
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    if (length > 0) {
        strcpy(tiny, self);
        strcpy(strrchr(tiny, '/') + 1, "tiny");
    }
    for (unsigned n = 0; n < sizeof operations / sizeof *operations; n++) {
        double least = -1;
        if (count > 1 && !strstr(operations[n].name, words[1]))
            continue;
        for (int round = 0; round < ROUNDS; round++) {
            ticks = 0;
            long done = operations[n].run(operations[n].operations);
            if (done > 0 && (least < 0 || (double)ticks / done < least))
                least = (double)ticks / done;
        }
        printf("%s %.2f\n", operations[n].name, least);
    }
    return 0;
}
