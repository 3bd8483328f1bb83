/* Threads: shared memory, locks, conditions, and mappings that come and go under others' feet. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define THREADS 4
#define TURNS 2000

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static long total, whose;
static __thread long own;

static void *work(void *number)
{
    long me = (long)number;
    for (int n = 0; n < TURNS; n++) {
        pthread_mutex_lock(&lock);
        total++;
        own++;
        pthread_mutex_unlock(&lock);
        if (n % 20 == 0) {
            char *at = mmap(0, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (at == MAP_FAILED)
                return (void *)1;
            for (int page = 0; page < 64; page++) {
                if (at[page * 4096] != 0)
                    return (void *)2;
                memset(at + page * 4096, me + 1, 64);
            }
            for (int page = 0; page < 64; page++)
                if (at[page * 4096 + 63] != me + 1)
                    return (void *)3;
            munmap(at, 64 * 4096);
        }
    }
    for (int round = 0; round < 10; round++) {
        pthread_mutex_lock(&lock);
        while (whose != me)
            pthread_cond_wait(&turn, &lock);
        whose = (whose + 1) % THREADS;
        pthread_cond_broadcast(&turn);
        pthread_mutex_unlock(&lock);
    }
    return own == TURNS ? 0 : (void *)4;
}

int main(void)
{
    pthread_t threads[THREADS];
    for (long n = 0; n < THREADS; n++)
        if (pthread_create(&threads[n], 0, work, (void *)n))
            return 1;
    for (int n = 0; n < THREADS; n++) {
        void *result;
        pthread_join(threads[n], &result);
        if (result) {
            printf("thread %d: %ld\n", n, (long)result);
            return 1;
        }
    }
    if (total != (long)THREADS * TURNS) {
        printf("total %ld\n", total);
        return 1;
    }
    return 0;
}
