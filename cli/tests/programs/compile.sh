# Compile, link, run.
set -e
gcc -O2 -Wall -o hello "$PROGRAMS/hello.c" -lm
status=0; ./hello there || status=$?
echo "status $status"
gcc -O1 -S -o - "$PROGRAMS/hello.c" | md5sum
echo 'int main(void) { return x; }' > bad.c
gcc -c bad.c 2>&1 | head -2 || true
