# Values that are larger than RAM, and a snapshot of them while they change. $1: how many of 2 KiB.
start() {
    redis-server --port 0 --unixsocket "$PWD/r.sock" --save '' --dir "$PWD" --logfile "$PWD/r.log" &
    until [ "$(redis-cli -s r.sock ping 2>&1)" = PONG ]; do sleep 0.1; done
}
start
python3 "$(dirname "$0")/redis_values.py" "$PWD/r.sock" "$1"
wait
# The snapshot has them as they were before.
start
redis-cli -s r.sock dbsize
for key in 0 3 777 1999; do redis-cli -s r.sock get "k$key" | sha256sum; done
redis-cli -s r.sock shutdown nosave
wait
