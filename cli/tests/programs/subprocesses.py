import os, signal, subprocess
run = lambda *a, **k: subprocess.run(a, capture_output=True, text=True, **k)
print(run("echo", "hello").stdout, end="")
print(run("sh", "-c", "echo out; echo err >&2; exit 3"))
print(run("cat", input="x" * 200000).stdout.count("x"))
print(run("sh", "-c", "kill -SEGV $$").returncode)
try:
    run("sleep", "30", timeout=0.3)
except subprocess.TimeoutExpired as e:
    print("timeout", e.cmd)
try:
    run("/no/such/program")
except FileNotFoundError as e:
    print(e)
p = subprocess.Popen(["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
print(p.communicate("for i in 1 2 3; do echo $i; done; exit 4"), p.returncode)
children = [subprocess.Popen(["sleep", "30"]) for _ in range(5)]
for c in children: c.send_signal(signal.SIGTERM)
print([c.wait() for c in children])
r, w = os.pipe()
p = subprocess.Popen(["sh", "-c", f"echo inherited >&{w}"], pass_fds=[w])
os.close(w); print(os.read(r, 100), p.wait())
print(subprocess.check_output("echo $((1+1)) | cat", shell=True, preexec_fn=lambda: os.umask(0)))
