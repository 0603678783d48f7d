"""The manifests and scripts that users run are in step with the repository."""

import re
import subprocess
import unittest

import test as runner  # e2e/test.py
from easel import build, paths


class Manifests(unittest.TestCase):
    def test_the_example_model_pins_the_default_checkpoint(self):
        pinned = re.search(r"digest: (sha256:[0-9a-f]{64})", (paths.MANIFESTS / "model.yaml").read_text())
        self.assertEqual(pinned.group(1), build.digest())
        pinned = re.search(r"digest: (sha256:[0-9a-f]{64})", (paths.MANIFESTS / "edit.yaml").read_text())
        self.assertEqual(pinned.group(1), build.digest(paths.EDIT_MODEL))

    def test_the_readme_shows_the_same_digest_or_none(self):
        for digest in re.findall(r"sha256:[0-9a-f]{64}", (paths.ROOT / "README.md").read_text()):
            self.assertEqual(digest, build.digest())

    def test_every_script_compiles(self):
        listed = subprocess.run(["git", "ls-files", "*.py"], cwd=paths.ROOT, capture_output=True, text=True, check=True)
        for name in listed.stdout.split():
            compile((paths.ROOT / name).read_text(), name, "exec")


class Counting(unittest.TestCase):
    def test_a_stage_that_fails_is_never_counted_as_passed(self):
        self.assertEqual(runner.count("", 1), (0, 1))
        self.assertEqual(runner.count("3 passed, 0 failed\n", 1), (3, 1))
        self.assertEqual(runner.count("test result: ok. 4 passed; 0 failed; 0 ignored\n" * 2, 0), (8, 0))
        self.assertEqual(runner.count("Ran 5 tests in 0.1s\n\nFAILED (failures=1, errors=1)\n", 1), (3, 2))
        self.assertEqual(runner.count("whatever", 0), (1, 0))
