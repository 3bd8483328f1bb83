"""A thread waits in the host for data, while the others need more memory than there is."""
import hashlib
import os
import threading

ROUNDS, SIZE = 12, 48 << 10
reading, writing = os.pipe()
buffer = bytearray(SIZE)
digest = hashlib.sha256()


def reader():
    for _ in range(ROUNDS):
        done = 0
        while done < SIZE:
            done += os.readv(reading, [memoryview(buffer)[done:]])
        digest.update(buffer)


thread = threading.Thread(target=reader)
thread.start()
blocks = [bytearray(1 << 20) for _ in range(40)]
for turn in range(ROUNDS):
    for n, block in enumerate(blocks):
        for at in range(0, len(block), 4096):
            block[at] = (turn + n) % 256
    data = bytes([turn + 1]) * SIZE
    while data:
        data = data[os.write(writing, data) :]
thread.join()
print(digest.hexdigest(), sum(block[0] for block in blocks))
