/* What a page fault, and an mmap with its munmap, cost among N areas.
 *
 *   gcc -O1 -o areas benches/areas.c
 *   vellum run -- ./areas 1; vellum run -- ./areas 20000
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define ROUNDS 2000
#define PAGE 4096UL

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void map(char *at, size_t len)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    if (mmap(at, len, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
}

int main(int argc, char **argv)
{
    long areas = argc > 1 ? atol(argv[1]) : 1;
    char *base = (char *)0x100000000000;
    unsigned long random = 88172645463325252UL;
    double start, fault, pair;

    if (areas < 1 || areas > 60000) {
        fprintf(stderr, "usage: areas 1..60000\n");
        return 2;
    }
    if (areas == 1) {
        /* MADV_RANDOM: one page a fault, as in areas of one page. */
        map(base, ROUNDS * PAGE);
        madvise(base, ROUNDS * PAGE, MADV_RANDOM);
    } else {
        for (long i = 0; i < areas; i++)
            map(base + i * 2 * PAGE, PAGE);
    }
    start = now();
    for (long i = 0; i < ROUNDS; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        *(volatile char *)(base + (areas == 1 ? i * PAGE : random % areas * 2 * PAGE)) = 1;
    }
    fault = (now() - start) / ROUNDS;
    start = now();
    for (long i = 0; i < ROUNDS; i++) {
        void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        munmap(page, PAGE);
    }
    pair = (now() - start) / ROUNDS;
    printf("%ld areas: fault %.0f ns, mmap and munmap %.0f ns\n", areas, fault, pair);
    return 0;
}
