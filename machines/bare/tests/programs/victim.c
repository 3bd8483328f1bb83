/* A child that takes memory until there is none is killed for it; its parent goes on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    for (int round = 0; round < 3; round++) {
        int status;
        pid_t child = fork();
        if (child < 0)
            return 1;
        if (child == 0)
            for (;;) {
                char *at = malloc(1 << 20);
                if (!at)
                    _exit(1);
                memset(at, 1, 1 << 20);
            }
        if (waitpid(child, &status, 0) != child || !WIFSIGNALED(status) || WTERMSIG(status) != 9) {
            printf("round %d: status %x\n", round, status);
            return 1;
        }
    }
    return 0;
}
