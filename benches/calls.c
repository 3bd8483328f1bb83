/* What a system call costs that has a pointer and does next to nothing.
 *
 *   gcc -O1 -o calls benches/calls.c
 *   taskset -c 1 vellum run --report none -- ./calls
 */
#include <stdio.h>
#include <sys/utsname.h>
#include <time.h>

#define ROUNDS 200000

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(void)
{
    struct utsname name;
    double start = now();

    for (int i = 0; i < ROUNDS; i++)
        uname(&name);
    printf("uname: %.2f us\n", (now() - start) / ROUNDS / 1e3);
    return 0;
}
