/* Tries to catch a processor that still uses the translation of a page that is gone: one thread maps
   and unmaps pages, others write to them as long as they are there and must never hit a page that
   was given to somebody else meanwhile. */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096
#define WRITERS 3
#define ROUNDS 3000
#define PLACE ((char *)0x10000000000)

static volatile int over;
static __thread sigjmp_buf back;

static void handler(int number)
{
    siglongjmp(back, number);
}

/* Writes its mark into the page that comes and goes, as fast as it can. */
static void *writer(void *number)
{
    volatile long *word = (volatile long *)(PLACE + (long)number * 8);
    while (!over)
        if (!sigsetjmp(back, 1))
            while (!over)
                *word = 0x5a5a5a5a5a5a5a5a;
    return 0;
}

int main(void)
{
    pthread_t threads[WRITERS];
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_NODEFER};
    sigaction(SIGSEGV, &action, 0);
    for (long n = 0; n < WRITERS; n++)
        if (pthread_create(&threads[n], 0, writer, (void *)n))
            return 1;
    for (int round = 0; round < ROUNDS; round++) {
        if (mmap(PLACE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != PLACE)
            return 2;
        for (volatile int wait = 0; wait < round % 300; wait++)
            ;
        if (round % 3 == 0)
            mprotect(PLACE, PAGE, PROT_READ);
        if (round % 3 == 1)
            madvise(PLACE, PAGE, MADV_DONTNEED);
        munmap(PLACE, PAGE);
        /* The frame that was just freed is the likeliest to come back now. */
        char *other = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (other == MAP_FAILED)
            return 3;
        for (int page = 0; page < 4; page++)
            other[page * PAGE + 2048] = 1;
        for (volatile int wait = 0; wait < round % 700; wait++)
            ;
        for (int page = 0; page < 4; page++)
            for (int n = 0; n < WRITERS; n++)
                if (((volatile long *)(other + page * PAGE))[n]) {
                    printf("round %d: a stale translation wrote to page %d\n", round, page);
                    return 4;
                }
        munmap(other, 4 * PAGE);
    }
    over = 1;
    for (int n = 0; n < WRITERS; n++)
        pthread_join(threads[n], 0);
    return 0;
}
