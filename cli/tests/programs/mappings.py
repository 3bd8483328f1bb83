# The mmap module: private, shared, anonymous, files that grow and shrink, and what read() sees.
import mmap, os
P = mmap.PAGESIZE
with open("f", "wb") as f: f.write(b"a" * (3 * P + 100))
f = open("f", "r+b")
m = mmap.mmap(f.fileno(), 0)
print(len(m), m[:3], m[3 * P:3 * P + 3])
m[P:P + 5] = b"HELLO"
print(os.pread(f.fileno(), 7, P - 1))            # a read sees the mapping's store at once
os.pwrite(f.fileno(), b"world", 2 * P)
print(m[2 * P - 1:2 * P + 6])                    # a mapping sees the write at once
m.flush()
private = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
private[0:3] = b"PPP"
print(private[:5], m[:5], os.pread(f.fileno(), 5, 0))
m.resize(5 * P)
m[4 * P] = 90
print(len(m), os.fstat(f.fileno()).st_size, m[4 * P:4 * P + 2], m.rfind(b"Z"))
pid = os.fork()
if pid == 0:
    m[0:5] = b"child"
    private[0:5] = b"other"
    os._exit(0)
os.waitpid(pid, 0)
print(m[:5], private[:5])
anon = mmap.mmap(-1, 64 * P)
pid = os.fork()
if pid == 0:
    anon[63 * P:63 * P + 4] = b"deep"
    os._exit(7)
print(os.waitpid(pid, 0)[1] >> 8, anon[63 * P:63 * P + 4], anon[:2])
m.madvise(mmap.MADV_DONTNEED)
print(m[:5], m[P:P + 5])
own = mmap.mmap(-1, 4 * P, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
own[:4] = b"gone"
own.madvise(mmap.MADV_DONTNEED)
print(own[:4])
m.close(); private.close()
with open("f", "rb") as g: data = g.read()
print(len(data), data[:8], data[P:P + 5], data[4 * P:4 * P + 1])
f.truncate(10)
ro = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
try: ro[0] = 1
except TypeError as e: print(e)
print(ro[:], ro.size())
fd = os.memfd_create("x"); os.ftruncate(fd, 2 * P)
a, b = mmap.mmap(fd, 2 * P), mmap.mmap(fd, 2 * P)
a[P] = 65
print(b[P:P + 1], os.pread(fd, 1, P))
