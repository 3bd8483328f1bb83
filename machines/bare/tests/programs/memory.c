/* The memory calls, faults and signals, checked from inside. Ends with 0, or says what is wrong. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            printf("line %d: %s (errno %d)\n", __LINE__, #what, errno);                            \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static sigjmp_buf back;
static volatile int signo, code;
static void *volatile where;
static char stack[65536];
static volatile int on_stack;

static void handler(int number, siginfo_t *info, void *context)
{
    char here;
    (void)context;
    signo = number;
    code = info->si_code;
    where = info->si_addr;
    on_stack = &here > stack && &here < stack + sizeof stack;
    siglongjmp(back, 1);
}

static int faults(char *at, int write)
{
    if (sigsetjmp(back, 1))
        return signo;
    if (write)
        *(volatile char *)at = 1;
    else
        (void)*(volatile char *)at;
    return 0;
}

static char *anonymous(size_t bytes, int rights)
{
    char *at = mmap(0, bytes, rights, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

static void signals(void)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    CHECK(sigaltstack(&alternate, 0) == 0);
    CHECK(sigaction(SIGSEGV, &action, 0) == 0 && sigaction(SIGBUS, &action, 0) == 0);
    CHECK(sigaction(SIGFPE, &action, 0) == 0);
    CHECK(faults((char *)8, 0) == SIGSEGV && code == SEGV_MAPERR && where == (void *)8 && on_stack);
    char *at = anonymous(3 * PAGE, PROT_READ);
    CHECK(faults(at + PAGE, 0) == 0);
    CHECK(faults(at + PAGE, 1) == SIGSEGV && code == SEGV_ACCERR && where == at + PAGE);
    CHECK(mprotect(at, PAGE, PROT_NONE) == 0 && faults(at, 0) == SIGSEGV && code == SEGV_ACCERR);
    CHECK(mprotect(at, PAGE, PROT_READ | PROT_WRITE) == 0 && faults(at, 1) == 0);
    CHECK(munmap(at, 3 * PAGE) == 0 && faults(at, 0) == SIGSEGV && code == SEGV_MAPERR);
    CHECK(faults((char *)0xffff888000000000, 0) == SIGSEGV);
    int file = open("/tmp/short", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(file >= 0 && write(file, "abc", 3) == 3);
    at = mmap(0, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(at != MAP_FAILED && faults(at, 0) == 0 && at[0] == 'a' && at[3] == 0);
    CHECK(faults(at + PAGE, 0) == SIGBUS && code == BUS_ADRERR && where == at + PAGE);
    CHECK(ftruncate(file, 0) == 0 && faults(at, 0) == SIGBUS);
    munmap(at, 2 * PAGE);
    close(file);
    volatile int zero = 0;
    if (!sigsetjmp(back, 1)) {
        zero = 7 / zero;
        CHECK(!"division by zero");
    }
    CHECK(signo == SIGFPE && code == FPE_INTDIV);
}

static void files(void)
{
    char *one, *two, bytes[8];
    int file = open("/tmp/shared", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(file >= 0 && ftruncate(file, 4 * PAGE) == 0);
    one = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    two = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    CHECK(one != MAP_FAILED && two != MAP_FAILED);
    CHECK(pwrite(file, "hello", 5, PAGE) == 5);
    CHECK(memcmp(one + PAGE, "hello", 5) == 0 && memcmp(two + PAGE, "hello", 5) == 0);
    two[PAGE] = 'j';
    CHECK(one[PAGE] == 'h' && pread(file, bytes, 5, PAGE) == 5 && bytes[0] == 'h');
    one[PAGE + 1] = 'a';
    CHECK(pread(file, bytes, 5, PAGE) == 5 && bytes[1] == 'a' && two[PAGE + 1] == 'e');
    CHECK(msync(one, 4 * PAGE, MS_SYNC) == 0);
    CHECK(unlink("/tmp/shared") == 0 && access("/tmp/shared", F_OK) < 0 && errno == ENOENT);
    CHECK(one[PAGE] == 'h');
    munmap(one, 4 * PAGE);
    munmap(two, 4 * PAGE);
    close(file);
}

static void calls(void)
{
    unsigned char there[4];
    char *at = anonymous(4 * PAGE, PROT_READ | PROT_WRITE);
    at[2 * PAGE] = 5;
    CHECK(mincore(at, 4 * PAGE, there) == 0 && !(there[1] & 1) && (there[2] & 1));
    CHECK(madvise(at, 4 * PAGE, MADV_DONTNEED) == 0 && at[2 * PAGE] == 0);
    at[0] = 9;
    char *moved = mremap(at, 4 * PAGE, 4096 * PAGE, MREMAP_MAYMOVE);
    CHECK(moved != MAP_FAILED && moved[0] == 9);
    CHECK(munmap(moved, 4096 * PAGE) == 0);
    CHECK(mmap(0, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EINVAL);
    CHECK(munmap((void *)1, PAGE) < 0 && errno == EINVAL);
    CHECK(mprotect((void *)0x10000, PAGE, PROT_READ) < 0 && errno == ENOMEM);
    long end = syscall(SYS_brk, 0);
    CHECK(syscall(SYS_brk, end + 8 * PAGE) == end + 8 * PAGE);
    memset((char *)end, 1, 8 * PAGE);
    CHECK(syscall(SYS_brk, end) == end && syscall(SYS_brk, 1) == end);
    CHECK(mlock(&there, 1) == 0 && munlock(&there, 1) == 0);
}

static void copies(void)
{
    char *at = anonymous(64 * PAGE, PROT_READ | PROT_WRITE);
    char *shared = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status;
    for (int n = 0; n < 64; n++)
        at[n * PAGE] = n;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        for (int n = 0; n < 64; n++) {
            CHECK(at[n * PAGE] == n);
            at[n * PAGE] = 100 - n;
        }
        shared[0] = 77;
        _exit(at[0]);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 100);
    for (int n = 0; n < 64; n++)
        CHECK(at[n * PAGE] == n);
    CHECK(shared[0] == 77);
}

int main(void)
{
    signals();
    files();
    calls();
    copies();
    char name[64];
    FILE *maps = fopen("/proc/self/maps", "r");
    int stacks = 0;
    CHECK(maps);
    while (fgets(name, sizeof name, maps))
        stacks += strstr(name, "-") != 0;
    CHECK(stacks > 4);
    return 0;
}
