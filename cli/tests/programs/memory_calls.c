/* Results and errors of the memory calls, without addresses in the output. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define P 4096L
#define SHOW(call) do { errno = 0; long r_ = (long)(call); \
    printf("%-60s %s\n", #call, r_ == -1 ? strerror(errno) : r_ == 0 ? "0" : "value"); } while (0)

static char *anon(long pages) {
    return mmap(0, pages * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

int main(void) {
    unsigned char vec[64];
    char *p = anon(16);
    SHOW(mmap(0, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    SHOW(mmap(0, P, PROT_READ, MAP_ANONYMOUS, -1, 0));
    SHOW(mmap(0, P, PROT_READ, MAP_PRIVATE, -1, 0));
    SHOW(mmap(0, P, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 100));
    SHOW(mmap((void *)123, P, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    SHOW(mmap(p, P, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
    SHOW(mmap(0, 1L << 47, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    SHOW(munmap(p + 1, P));
    SHOW(munmap(p, 0));
    SHOW(munmap(p + 8 * P, P));
    SHOW(munmap(p + 8 * P, P));
    SHOW(mprotect(p, 16 * P, PROT_READ));
    SHOW(mprotect(p + 1, P, PROT_READ));
    SHOW(mprotect(p, P, PROT_READ | PROT_GROWSDOWN | PROT_GROWSUP));
    SHOW(mprotect(p, 8 * P, PROT_READ | PROT_WRITE));
    memset(p, 7, 4 * P);
    SHOW(mincore(p, 8 * P, vec));
    for (int i = 0; i < 4; i++) printf("%d", vec[i] & 1);
    puts("");
    SHOW(mincore(p, 16 * P, vec));
    SHOW(mincore(p + 1, P, vec));
    SHOW(madvise(p, 2 * P, MADV_DONTNEED));
    printf("%d %d %d\n", p[0], p[2 * P - 1], p[2 * P]);
    SHOW(madvise(p, P, 12345));
    SHOW(madvise(p, 16 * P, MADV_WILLNEED));
    SHOW(madvise(p + 3, P, MADV_FREE));
    SHOW(madvise(p, 8 * P, MADV_FREE));
    SHOW(msync(p, 4 * P, MS_SYNC));
    SHOW(msync(p, 4 * P, MS_SYNC | MS_ASYNC));
    SHOW(msync(p, 16 * P, MS_ASYNC));
    p[3 * P] = 33;
    char *q = mremap(p, 8 * P, 20 * P, MREMAP_MAYMOVE);
    printf("%d %d %d\n", q != MAP_FAILED, q[3 * P], q[19 * P]);
    SHOW(mremap(q, 20 * P, 4 * P, 0) == q ? 0 : -1);
    SHOW(mremap(q, 0, P, MREMAP_MAYMOVE));
    SHOW(mremap(q + 1, P, P, MREMAP_MAYMOVE));
    SHOW(mremap(q, P, P, MREMAP_FIXED, q + P));
    char *place = anon(4);
    char *moved = mremap(q, 4 * P, 4 * P, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    printf("%d %d\n", moved == place, moved[3 * P]);
    SHOW(mremap(q, P, P, MREMAP_MAYMOVE));
    SHOW(mlock(place, 4 * P));
    SHOW(munlock(place, 4 * P));
    SHOW(mlock(place, 1L << 46));
    char *old = sbrk(0);
    SHOW(brk(old + 10 * P));
    old[10 * P - 1] = 1;
    SHOW(brk(old));
    SHOW((char *)sbrk(0) == old ? 0 : -1);
    /* A child's stores are its own, and a shared mapping's are not. */
    char *shared = mmap(0, P, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    place[0] = 1; shared[0] = 1;
    if (fork() == 0) { place[0] = 2; shared[0] = 2; _exit(0); }
    wait(0);
    printf("private %d shared %d\n", place[0], shared[0]);
    /* A hole, then merging back: still one working range. */
    char *r = anon(64);
    for (int i = 1; i < 64; i += 2) mprotect(r + i * P, P, PROT_READ);
    mprotect(r, 64 * P, PROT_READ | PROT_WRITE);
    for (int i = 0; i < 64; i++) r[i * P] = i;
    int sum = 0;
    for (int i = 0; i < 64; i++) sum += r[i * P];
    printf("sum %d\n", sum);
    return 42;
}
