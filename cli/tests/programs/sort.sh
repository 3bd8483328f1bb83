# A sort of megabytes: "$1" lines.
awk -v n="$1" 'BEGIN { s = 42; for (i = 0; i < n; i++) { s = (s * 1103515245 + 12345) % 2147483648; printf "%010d line %d of a file to sort\n", s, i } }' > data
ls -l data | awk '{ print $5 }'
sort data | md5sum
sort -S 4M --parallel=2 -r data | md5sum
sort -c data; echo "sorted $?"
