# A child that reads where nothing is, one that writes where it must not, one past a file's end.
import ctypes, mmap, os, signal, subprocess, sys
def child(code):
    p = subprocess.run([sys.executable, "-X", "faulthandler=0", "-c", code], capture_output=True)
    return p.returncode
print(child("import ctypes; ctypes.string_at(8)"))
print(child("import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=mmap.PROT_READ)\n"
            "libc = ctypes.CDLL(None)\nlibc.mmap.restype = ctypes.c_void_p\n"
            "a = libc.mmap(None, 4096, 1, 0x22, -1, 0)\nctypes.memset(a, 1, 1)"))
print(child("import mmap, os\nf = open('x', 'w+b'); f.truncate(8192)\nm = mmap.mmap(f.fileno(), 8192)\n"
            "f.truncate(100)\nprint(m[50])\nm[5000]"))
print(child("def f(n): return f(n + 1) + 1\nimport sys; sys.setrecursionlimit(10**9)\nf(0)"
            if sys.version_info < (3, 11) else "import ctypes; ctypes.string_at(16)"))
print("parent goes on")
