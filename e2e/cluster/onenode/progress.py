"""Owns the form of what a person reads while the cluster works: one aligned line a step, with seconds since the start.
It must not know what a step does."""

import contextlib
import subprocess
import time

_start = time.monotonic()


class Failure(Exception):
    """Something a person can act on: shown as one sentence, without a traceback."""


def say(subject: str, text: str) -> None:
    print(f"[{time.monotonic() - _start:6.1f}s] {subject:<24} {text}", flush=True)


@contextlib.contextmanager
def step(subject: str, done: str):
    """Says `done` and how long the block took, if it ends well."""
    began = time.monotonic()
    yield
    say(subject, f"{done} ({time.monotonic() - began:.1f} s)")


def wait_until(what: str, condition, timeout: float, interval: float = 0.05) -> None:
    """Calls `condition` until it is true; fails with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {timeout:.0f} s")
        time.sleep(interval)


def run(*argv, check: bool = True, stdin: str | None = None, env: dict | None = None, cwd=None) -> str:
    """Runs a program to its end and returns what it printed; a failure carries its error output."""
    argv = [str(a) for a in argv]
    done = subprocess.run(argv, capture_output=True, text=True, input=stdin, env=env, cwd=cwd, check=False)
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(argv)[:300]}: exit status {done.returncode}\n{(done.stderr or done.stdout).strip()[-3000:]}")
    return done.stdout
