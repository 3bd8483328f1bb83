/* What a handler is told about bad accesses, and that the program can go on. */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static sigjmp_buf back;
static volatile int sig, code;
static void *volatile where;

static void handler(int s, siginfo_t *info, void *context) {
    (void)context;
    sig = s; code = info->si_code; where = info->si_addr;
    siglongjmp(back, 1);
}

static void report(const char *what, char *base) {
    printf("%-22s signal %d code %d offset %ld\n", what, sig, code, (long)((char *)where - base));
    sig = code = 0;
}

#define TRY(what, base, access) do { if (!sigsetjmp(back, 1)) { access; printf("%-22s fine\n", what); } \
    else report(what, base); } while (0)

static int depth(int n) {
    volatile char pad[4096];
    memset((char *)pad, n, sizeof pad);
    return n == 0 ? pad[0] : depth(n - 1) + pad[1];
}

int main(void) {
    static char alternate[1 << 16];
    stack_t stack = { .ss_sp = alternate, .ss_size = sizeof alternate };
    sigaltstack(&stack, 0);
    struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    sigaction(SIGSEGV, &action, 0);
    sigaction(SIGBUS, &action, 0);
    TRY("read of null", (char *)0, (void)*(volatile char *)8);
    TRY("write of null", (char *)0, *(volatile char *)8 = 1);
    char *p = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TRY("write", p, p[100] = 1);
    mprotect(p + 4096, 4096, PROT_READ);
    TRY("write of read-only", p, p[4096 + 5] = 1);
    TRY("read of read-only", p, (void)*(volatile char *)(p + 4096));
    mprotect(p, 4096, PROT_NONE);
    TRY("read of none", p, (void)*(volatile char *)(p + 7));
    TRY("jump to data", p, ((void (*)(void))(p + 4096))());
    munmap(p + 8192, 4096);
    TRY("read of unmapped", p, (void)*(volatile char *)(p + 8192 + 9));
    FILE *f = tmpfile();
    ftruncate(fileno(f), 4096 + 10);
    char *m = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(f), 0);
    TRY("last page", m, m[4096 + 100] = 1);
    TRY("past the end", m, (void)*(volatile char *)(m + 8192 + 3));
    ftruncate(fileno(f), 0);
    TRY("after truncation", m, (void)*(volatile char *)m);
    printf("stack %d\n", depth(1000));
    fflush(stdout);
    signal(SIGSEGV, SIG_DFL);
    *(volatile char *)24 = 1;
    return 0;
}
