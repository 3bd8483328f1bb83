# Two threads pack, one unpacks.
seq 1 "${1:-300000}" > data
xz -T2 --block-size=512KiB -k data; md5sum < data.xz
xz -dc data.xz | cmp - data && echo same
xz -l data.xz | tail -1 | awk '{ print $1, $2 }'
