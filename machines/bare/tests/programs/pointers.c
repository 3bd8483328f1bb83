/* Bad pointers of every kind to every call: EFAULT or another error, and the kernel goes on. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned long random_word(void)
{
    static unsigned long state = 88172645463325252UL;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static long fuzz(char *pages)
{
    /* Edges of pages, the kernel's half, addresses that no processor takes. */
    long bad[] = {0, 1, 8, -1, -8, 4095, (long)pages + 4096, (long)pages + 4090, (long)pages + 8191,
                  0x7fffffffeffe, 0x7ffffffff000, 0x800000000000, 0xffff888000000000, 0xffffffff80106000,
                  0x1234567890abcdef, 3, 100, 4096, 0x7fffffff};
    int kinds = sizeof bad / sizeof *bad;
    for (int n = 0; n < 4000; n++) {
        long number = random_word() % 340, a[6];
        /* Not those that end, stop, copy or rename the tester, nor those that wait for good. */
        switch (number) {
        case 15: case 23: case 34: case 35: case 56: case 57: case 58: case 60: case 61: case 62: case 130:
        case 200: case 202: case 230: case 231: case 234: case 7: case 271: case 128: case 11: case 10: case 9:
        case 25: case 12: case 0: case 19: case 17: case 295: case 3: case 33: case 292: case 160: case 302:
            continue;
        }
        for (int k = 0; k < 6; k++)
            a[k] = bad[random_word() % kinds];
        syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
    return 0;
}

int main(void)
{
    char *pages = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int ends[2], status;
    munmap(pages + 4096, 4096);
    if (pipe(ends))
        return 1;
    struct { long number, a, b, c; } cases[] = {
        {SYS_write, ends[1], 0x1000, 10}, {SYS_write, ends[1], 0xffff888000000000, 10},
        {SYS_uname, 8, 0, 0}, {SYS_pipe, (long)pages + 4096, 0, 0}, {SYS_getcwd, (long)pages + 4095, 64, 0},
        {SYS_open, 0x800000000000, 0, 0}, {SYS_execve, (long)pages + 4096, 0, 0}, {SYS_stat, 1, 1, 0},
        {SYS_clock_gettime, 1, (long)pages + 4090, 0}, {SYS_rt_sigaction, 10, 8, 0},
    };
    for (unsigned n = 0; n < sizeof cases / sizeof *cases; n++) {
        errno = 0;
        long result = syscall(cases[n].number, cases[n].a, cases[n].b, cases[n].c, 0);
        if (result != -1 || errno != EFAULT) {
            printf("call %ld: %ld, errno %d\n", cases[n].number, result, errno);
            return 1;
        }
    }
    pages[4090] = 'x';
    if (write(ends[1], pages + 4090, 20) != -1 || errno != EFAULT) {
        printf("a piece that ends in a hole\n");
        return 1;
    }
    pid_t child = fork();
    if (child == 0)
        _exit(fuzz(pages));
    if (waitpid(child, &status, 0) != child)
        return 1;
    /* Whatever the child died of, this one lives. */
    return 0;
}
