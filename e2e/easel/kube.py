"""Owns how scripts talk to a cluster: kubectl and helm as functions, and waiting for what they see.
It must not know what Easel is."""

import json
import os
import subprocess
import time

from easel import paths  # noqa: F401  (puts the cluster's package into the path)
from onenode import build, settings
from onenode.progress import Failure


class Cluster:
    """kubectl and helm for one cluster: the local one, or the one that the user's kubectl points at."""

    def __init__(self, local: bool = True):
        self.local = local
        self.environment = dict(os.environ)
        if local:
            self.environment["KUBECONFIG"] = str(settings.KUBECONFIG)
            self.environment["PATH"] = f"{build.upstream_folder()}:{os.environ['PATH']}"

    def run(self, *argv: str, stdin: str | None = None, check: bool = True, timeout: float = 300,
            environment: dict[str, str] | None = None) -> subprocess.CompletedProcess:
        done = subprocess.run(list(argv), input=stdin, capture_output=True, text=True, env={**self.environment, **(environment or {})},
                              timeout=timeout, check=False)
        if check and done.returncode != 0:
            raise Failure(f"{' '.join(argv)[:200]} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done

    def kubectl(self, *argv: str, stdin: str | None = None, check: bool = True) -> str:
        return self.run("kubectl", *argv, stdin=stdin, check=check).stdout

    def helm(self, *argv: str) -> str:
        return self.run("helm", *argv).stdout

    def get(self, *argv: str):
        """An object or a list of objects; None when there is none of that name."""
        done = self.run("kubectl", "get", *argv, "-o", "json", check=False)
        if done.returncode == 0:
            found = json.loads(done.stdout)
            return found["items"] if found["kind"] == "List" or found["kind"].endswith("List") else found
        if "NotFound" in done.stderr or "not found" in done.stderr:
            return None
        raise Failure(f"kubectl get {' '.join(argv)} failed: {done.stderr.strip()}")

    def apply(self, *manifests: dict) -> str:
        return self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)}))

    def refuse(self, manifest: dict) -> str:
        """Applies what must be refused, and returns the API server's sentence."""
        done = self.run("kubectl", "apply", "-f", "-", stdin=json.dumps(manifest), check=False)
        if done.returncode == 0:
            raise AssertionError(f"was accepted: {done.stdout}")
        return done.stderr


def wait(what: str, probe, timeout: float = 60, interval: float = 0.25):
    """Calls `probe` until it returns something true, and returns that; fails with what it saw last."""
    deadline = time.monotonic() + timeout
    seen = None
    while time.monotonic() < deadline:
        seen = probe()
        if seen:
            return seen
        time.sleep(interval)
    raise AssertionError(f"{what}: not within {timeout:.0f} s (last seen: {seen!r})")


def condition(thing: dict | None, kind: str) -> dict:
    """One condition of an object's status, or an empty one."""
    conditions = ((thing or {}).get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == kind), {})
