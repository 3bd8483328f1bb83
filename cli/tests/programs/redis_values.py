"""Talks to the redis server at a Unix socket: sets values, has them saved, changes some, gets all."""
import hashlib
import socket
import sys
import time

path, count = sys.argv[1], int(sys.argv[2])
server = socket.socket(socket.AF_UNIX)
server.connect(path)
stream = server.makefile("rwb")


def ask(*words):
    stream.write(b"*%d\r\n" % len(words))
    for word in words:
        stream.write(b"$%d\r\n%s\r\n" % (len(word), word))
    stream.flush()
    line = stream.readline()
    if line[:1] == b"$" and int(line[1:]) >= 0:
        return stream.read(int(line[1:]) + 2)[:-2]
    return line.strip()


def value(key, version):
    return hashlib.sha256(b"%d.%d" % (key, version)).digest() * 64


for key in range(count):
    assert ask(b"SET", b"k%d" % key, value(key, 0)) == b"+OK"
print(ask(b"BGSAVE").decode())
for key in range(0, count, 3):
    assert ask(b"SET", b"k%d" % key, value(key, 1)) == b"+OK"
wrong = sum(ask(b"GET", b"k%d" % key) != value(key, int(key % 3 == 0)) for key in range(count))
while b"rdb_bgsave_in_progress:0" not in (info := ask(b"INFO", b"persistence")):
    time.sleep(0.1)
print(wrong, "wrong values;", b"rdb_last_bgsave_status:ok" in info)
stream.write(b"*2\r\n$8\r\nSHUTDOWN\r\n$6\r\nNOSAVE\r\n")
stream.flush()
