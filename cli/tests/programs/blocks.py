"""Blocks of memory that are read and written again and again, in order and at random."""
import hashlib
import random

BLOCKS, SIZE = 60, 1 << 20
random.seed(7)
blocks = [bytearray(bytes([n]) * SIZE) for n in range(BLOCKS)]
for turn in range(2):
    for n, block in enumerate(blocks):
        block[turn * 4096 + n] = 255 - n
for _ in range(3000):
    block = blocks[int(random.random() ** 3 * BLOCKS)]
    at = random.randrange(SIZE)
    block[at] = (block[at] * 7 + 13) % 256
digest = hashlib.sha256()
for block in blocks:
    digest.update(block)
print(digest.hexdigest())
