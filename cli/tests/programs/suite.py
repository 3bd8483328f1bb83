# Runs one module of Python's own tests and prints the outcome of each test, without times.
import importlib, os, sys, tempfile, unittest
class Outcomes(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.seen = []
    def note(self, test, word): self.seen.append((test.id(), word))
    def addSuccess(self, test): super().addSuccess(test); self.note(test, "ok")
    def addError(self, test, err): super().addError(test, err); self.note(test, "ERROR")
    def addFailure(self, test, err): super().addFailure(test, err); self.note(test, "FAIL")
    def addSkip(self, test, why): super().addSkip(test, why); self.note(test, "skipped")
    def addSubTest(self, test, sub, err):
        super().addSubTest(test, sub, err)
        if err is not None: self.note(sub, "FAIL")
if __name__ == "__main__":
    from test import support
    support.use_resources, support.verbose = [], 0
    with tempfile.TemporaryDirectory(dir=".") as place:
        os.chdir(place)
        module = importlib.import_module("test." + sys.argv[1])
        wanted = sys.argv[2:]
        loader = unittest.TestLoader()
        if wanted: loader.testNamePatterns = ["*" + w + "*" for w in wanted]
        result = Outcomes()
        loader.loadTestsFromModule(module).run(result)
        os.chdir("..")
    for line in sorted(set(result.seen)): print(*line)
    for _, text in result.errors + result.failures: print(text, file=sys.stderr)
    sys.exit(0 if result.wasSuccessful() else 1)
