# Two processes on one database in WAL mode: the -shm file is memory that they share.
db=wal.db
sqlite3 "$db" 'PRAGMA journal_mode = WAL; CREATE TABLE t(i INTEGER, who TEXT);'
writer() { for i in $(seq 1 25); do echo "PRAGMA busy_timeout = 20000; INSERT INTO t VALUES ($i, '$1');"; done | sqlite3 "$db" > "$1.log"; }
writer a & writer b &
for i in 1 2 3 4 5; do sqlite3 "$db" 'PRAGMA busy_timeout = 20000; SELECT count(*) >= 0 FROM t;' | tail -1; done
wait
sqlite3 "$db" 'SELECT who, count(*), sum(i) FROM t GROUP BY who;'
sqlite3 "$db" 'PRAGMA wal_checkpoint(TRUNCATE); PRAGMA integrity_check;'
ls "$db"*
