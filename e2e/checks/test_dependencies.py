"""Every dependency has its line of reason in CONTRIBUTING.md, and none is kept that no line of code uses."""

import tomllib
import unittest

from easel import paths

TABLES = ("dependencies", "dev-dependencies", "build-dependencies")


def direct() -> set[str]:
    """Names of what our own manifests ask for, without our own crates."""
    found = set()
    for member in tomllib.loads((paths.ROOT / "Cargo.toml").read_text())["workspace"]["members"]:
        manifest = tomllib.loads((paths.ROOT / member / "Cargo.toml").read_text())
        found |= {name for table in TABLES for name in manifest.get(table, {})}
    return {name for name in found if not name.startswith("easel-")}


class Dependencies(unittest.TestCase):
    def test_every_dependency_says_why_it_is_there(self):
        text = (paths.ROOT / "CONTRIBUTING.md").read_text()
        self.assertEqual([name for name in sorted(direct()) if f"`{name}`" not in text], [])

    def test_the_workspace_lists_nothing_that_no_member_asks_for(self):
        listed = set(tomllib.loads((paths.ROOT / "Cargo.toml").read_text())["workspace"]["dependencies"])
        self.assertEqual(sorted(name for name in listed - direct() if not name.startswith("easel-")), [])
