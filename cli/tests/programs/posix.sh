# For dash.
set -eu
i=0
while [ "$i" -lt 200 ]; do i=$((i + 1)); done
echo "$i"
for f in a b c; do echo "$f" > "$f.txt"; done
cat ./*.txt | tr -d '\n'; echo
trap 'echo leaving' EXIT
echo x | { read -r v; echo "read $v"; }
(exit 4) || echo "status $?"
command -v sh > /dev/null && echo found
exec 3> fd.txt; echo through >&3; exec 3>&-; cat fd.txt
exit 9
