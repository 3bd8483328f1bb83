import multiprocessing as mp
def square(n): return n * n
def big(n): return bytes([n % 256]) * 200_000
def add(args):
    counter, n = args
    return n
def worker(value, lock, queue, n):
    for _ in range(200):
        with lock: value.value += 1
    queue.put(n)
if __name__ == "__main__":
    ctx = mp.get_context("fork")
    with ctx.Pool(4) as pool:
        print(sum(pool.map(square, range(500))))
        print([len(b) for b in pool.map(big, range(8))])
        print(sorted(pool.imap_unordered(square, range(20), chunksize=3)))
    value, lock, queue = ctx.Value("i", 0), ctx.Lock(), ctx.Queue()
    ps = [ctx.Process(target=worker, args=(value, lock, queue, n)) for n in range(4)]
    for p in ps: p.start()
    got = sorted(queue.get() for _ in ps)
    for p in ps: p.join()
    print(value.value, got, [p.exitcode for p in ps])
    a = ctx.Array("d", range(10))
    p = ctx.Process(target=lambda: [a.__setitem__(i, a[i] * 2) for i in range(10)])
    p.start(); p.join()
    print(list(a))
