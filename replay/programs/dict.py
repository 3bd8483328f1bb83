# A dict filled, looked up in random order, sorted and thinned out.
def numbers(seed):
    while True:
        seed = (seed * 1103515245 + 12345) % (1 << 31)
        yield seed >> 8

draw = numbers(1)
words = {}
for _ in range(5000):
    key = "key-%d" % (next(draw) % 3500)
    words[key] = words.get(key, 0) + 1
keys = sorted(words, key=lambda key: (words[key], key))
found = sum(words.get("key-%d" % (next(draw) % 5000), 0) for _ in range(3000))
for key in keys[::2]:
    del words[key]
text = ",".join(sorted(words))
print(len(keys), found, len(text))
