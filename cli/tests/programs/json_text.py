import json, random
rng = random.Random(1)
data = {"k%d" % i: [rng.random() for _ in range(20)] + ["\u00e9\u4e16" * (i % 7)] for i in range(3000)}
text = json.dumps(data, sort_keys=True)
print(len(text), json.loads(text) == data)
print(json.dumps({k: data[k][-1] for k in list(data)[:5]}, indent=1))
