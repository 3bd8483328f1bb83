# Eight threads that allocate, share and hand on.
import queue, threading
jobs, results = queue.Queue(), queue.Queue()
lock, total = threading.Lock(), 0
def work():
    global total
    while (n := jobs.get()) is not None:
        block = bytearray(n * 1024)
        block[::512] = b"x" * len(block[::512])
        text = "".join(chr(97 + (n + i) % 26) for i in range(n))
        with lock:
            total += block.count(b"x")
        results.put((n, hash(text) % 1000003))
threads = [threading.Thread(target=work) for _ in range(8)]
for t in threads: t.start()
for n in range(1, 301): jobs.put(n)
for _ in threads: jobs.put(None)
for t in threads: t.join()
print(total, sorted(results.queue)[:5], results.qsize())
for round in range(20):
    more = [threading.Thread(target=lambda: [0] * 10000) for _ in range(8)]
    for t in more: t.start()
    for t in more: t.join()
print("joined")
