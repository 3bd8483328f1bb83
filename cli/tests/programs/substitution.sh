# Many small processes, each through $(…).
total=0
for i in $(seq 1 30); do total=$((total + $(expr "$i" '*' "$i"))); done
echo "$total"
echo "$(echo "$(echo "$(echo deep)")")"
x=$(printf 'a\n\n\n'); echo "<$x>"
y=$(false); echo "status $?"
echo "$(< /etc/hostname wc -l)" "$(ls / | grep -c '^bin$')"
f() { local n=$1; [ "$n" -le 0 ] && echo end || echo "$n $(f $((n - 1)))"; }
f 8
