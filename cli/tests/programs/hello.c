#include <stdio.h>
#include <string.h>
#include <math.h>
struct point { double x, y; };
static double length(struct point p) { return sqrt(p.x * p.x + p.y * p.y); }
int main(int argc, char **argv) {
    struct point p = { 3, 4 };
    printf("hello, %s: %.3f\n", argc > 1 ? argv[1] : "world", length(p));
    return (int)strlen(argc > 1 ? argv[1] : "");
}
