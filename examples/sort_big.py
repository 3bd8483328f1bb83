"""Sorts 200 MB of records in less memory: runs that fit, sorted one by one, then merged.

The records are 100 bytes: a key of ten digits and a payload. All of them stay in memory, as text, from
beginning to end; what the machine has no room for goes to swap. Each pass goes through memory in order,
as a program does that was written to be swapped: 200 MB are written once, sorted run by run, and merged.

    vellum run --ram 64M --swap 512M -- python3 examples/sort_big.py [MEGABYTES]
"""
import hashlib
import heapq
import random
import sys

RECORD = 100
RUN = 4 << 20

megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
per_run = RUN // RECORD
random.seed(2)


def record(number):
    key = b"%010d" % random.randrange(10**10)
    return key + (b"%08d" % number) * 11 + b"\r\n"


def records(run):
    for at in range(0, len(run), RECORD):
        yield run[at : at + RECORD]


runs, number = [], 0
while number < megabytes * 10**6 // RECORD:
    count = min(per_run, megabytes * 10**6 // RECORD - number)
    runs.append(b"".join(record(number + i) for i in range(count)))
    number += count

for i, run in enumerate(runs):
    runs[i] = run = b"".join(sorted(records(run)))

digest, last, count = hashlib.sha256(), b"", 0
for one in heapq.merge(*map(records, runs)):
    assert last <= one, "out of order"
    last, count = one, count + 1
    digest.update(one)
print(count, "records,", digest.hexdigest())
