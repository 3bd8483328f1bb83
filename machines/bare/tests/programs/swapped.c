/* Two threads work on several times as much memory as there is RAM: what went to swap comes back right,
 * and a child sees what its parent had at the fork. The argument is the size in MiB. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORDS 512
static uint64_t *memory;
static long pages;

/* Compresses well, differs from page to page, and is not one word all over. */
static uint64_t value(long page, int word, int round)
{
    return (uint64_t)page * 0x9e3779b97f4a7c15u + (uint64_t)(word / 128) + (uint64_t)round * 77;
}

static long check(long first, long last, int round)
{
    long wrong = 0;
    for (long page = first; page < last; page++)
        for (int word = 0; word < WORDS; word++)
            wrong += memory[page * WORDS + word] != value(page, word, round);
    return wrong;
}

static void *work(void *half)
{
    long first = half ? pages / 2 : 0, last = half ? pages : pages / 2, wrong = 0;
    for (int round = 0; round < 2; round++) {
        for (long page = first; page < last; page++)
            for (int word = 0; word < WORDS; word++)
                memory[page * WORDS + word] = value(page, word, round);
        wrong += check(first, last, round);
    }
    return (void *)wrong;
}

static long of_vmstat(const char *name)
{
    char key[64];
    long number, found = -1;
    FILE *file = fopen("/proc/vmstat", "r");
    if (!file)
        return -1;
    while (fscanf(file, "%63s %ld", key, &number) == 2)
        if (!strcmp(key, name))
            found = number;
    fclose(file);
    return found;
}

int main(int count, char **words)
{
    long bytes = (count > 1 ? atol(words[1]) : 64) << 20;
    char line[256] = "";
    pthread_t thread;
    void *wrong;
    pages = bytes / 4096;
    memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || pthread_create(&thread, 0, work, (void *)1))
        return 2;
    long own = (long)work(0);
    if (pthread_join(thread, &wrong) || own || wrong) {
        printf("%ld and %ld words are wrong\n", own, (long)wrong);
        return 1;
    }
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(check(0, pages, 1) != 0);
    for (long page = 0; page < pages; page += 16)
        memory[page * WORDS + 511] = 1;
    if (waitpid(child, &status, 0) != child || status != 0) {
        printf("the child ended with %x\n", status);
        return 1;
    }
    FILE *swaps = fopen("/proc/swaps", "r");
    while (swaps && fgets(line, sizeof line, swaps))
        ;
    if (!strstr(line, "zram")) {
        printf("/proc/swaps: %s\n", line);
        return 3;
    }
    if (of_vmstat("pswpout") < pages / 2 || of_vmstat("pswpin") < pages / 2) {
        printf("out %ld, in %ld\n", of_vmstat("pswpout"), of_vmstat("pswpin"));
        return 4;
    }
    return 0;
}
