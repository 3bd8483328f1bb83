# A server on a socket file, a benchmark against it, a snapshot by a forked child, a reload.
requests=${1:-2000}
server() {
    redis-server --port 0 --unixsocket "$PWD/s" --dir "$PWD" --save '' --daemonize no --logfile log &
    for _ in $(seq 1 300); do redis-cli -s s ping 2> /dev/null | grep -q PONG && return; sleep 0.05; done
    echo 'the server does not answer'; exit 1
}
server
redis-benchmark -s s -q -n "$requests" -c 20 -t set,get,lpush -r 1000 > bench.txt; echo "benchmark $?"
redis-cli -s s flushall
for i in $(seq 1 20); do echo "SET key:$i value-$((i * i))"; done | redis-cli -s s | sort | uniq -c
redis-cli -s s eval 'for i = 1, 20000 do redis.call("hset", "h" .. i % 100, i, string.rep("x", 20)) end return redis.call("dbsize")' 0
redis-cli -s s bgsave
for _ in $(seq 1 300); do redis-cli -s s info persistence | grep -q 'rdb_bgsave_in_progress:0' && break; sleep 0.05; done
redis-cli -s s info persistence | grep -E 'rdb_last_bgsave_status' | tr -d '\r'
redis-cli -s s shutdown nosave; wait; echo "server $?"
server
redis-cli -s s dbsize; redis-cli -s s get key:7; redis-cli -s s hlen h5
redis-cli -s s shutdown nosave; wait; echo "server $?"
