/* fork, vfork, execve, wait, kill, pipes, poll. Ends with 0, or says what is wrong. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            printf("line %d: %s (errno %d)\n", __LINE__, #what, errno);                            \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static volatile int got;
static void note(int number) { got = number; }

int main(int count, char **words)
{
    int status, ends[2];
    char bytes[8];
    if (count > 1) {
        CHECK(getenv("MARK") && strcmp(getenv("MARK"), "yes") == 0);
        CHECK(fcntl(77, F_GETFD) < 0 && errno == EBADF);
        return atoi(words[1]);
    }
    signal(SIGUSR1, note);
    signal(SIGCHLD, note);
    CHECK(pipe(ends) == 0);
    for (int n = 0; n < 50; n++) {
        pid_t child = n % 2 ? vfork() : fork();
        CHECK(child >= 0);
        if (child == 0) {
            char number[8] = {'0' + n / 10, '0' + n % 10, 0};
            char *arguments[] = {words[0], number, 0}, *environment[] = {"MARK=yes", 0};
            if (n % 2 == 0)
                dup3(ends[0], 77, O_CLOEXEC);
            execve("/proc/self/exe", arguments, environment);
            _exit(99);
        }
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == n);
    }
    CHECK(got == SIGCHLD);
    CHECK(wait(&status) < 0 && errno == ECHILD);
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(got == SIGUSR1 ? 5 : 6);
    }
    struct timespec short_time = {0, 30000000};
    nanosleep(&short_time, 0);
    CHECK(waitpid(child, &status, WNOHANG) == 0);
    CHECK(kill(child, SIGUSR1) == 0 && waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 5);
    child = fork();
    if (child == 0)
        for (;;)
            ;
    nanosleep(&short_time, 0);
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child && WTERMSIG(status) == SIGKILL);
    child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        *(volatile int *)16 = 1;
    }
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    struct pollfd asked = {.fd = ends[0], .events = POLLIN};
    CHECK(poll(&asked, 1, 20) == 0);
    CHECK(write(ends[1], "abc", 3) == 3 && poll(&asked, 1, -1) == 1 && asked.revents == POLLIN);
    CHECK(read(ends[0], bytes, 8) == 3 && bytes[2] == 'c');
    child = fork();
    if (child == 0) {
        char block[5000];
        memset(block, 'x', sizeof block);
        close(ends[0]);
        for (int n = 0; n < 100; n++)
            CHECK(write(ends[1], block, sizeof block) == sizeof block);
        _exit(0);
    }
    close(ends[1]);
    long total = 0, n;
    static char block[3000];
    while ((n = read(ends[0], block, sizeof block)) > 0)
        total += n;
    CHECK(n == 0 && total == 500000);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    signal(SIGPIPE, SIG_IGN);
    CHECK(pipe(ends) == 0 && close(ends[0]) == 0 && write(ends[1], "a", 1) < 0 && errno == EPIPE);
    return 0;
}
