"""Owns a program that draws on request, one line of JSON in and one out, and what it costs: wall and processor seconds.
It must not know models, nor what is compared."""

import json
import os
import select
import subprocess
from pathlib import Path

from onenode.progress import Failure

TICKS = os.sysconf("SC_CLK_TCK")


class Contender:
    def __init__(self, command: list, threads: int, more: dict[str, str], log: Path):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **more}
        self.log = log
        with open(log, "wb") as errors:
            self._process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1,
                                             env=environment)
        self.hello = self._line(600)

    def draw(self, asked: dict, patience: float = 1800) -> dict:
        """What the program says, and the processor's seconds of all of its threads."""
        before = self._cpu()
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        said = self._line(patience)
        return {**said, "cpu": self._cpu() - before}

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _line(self, patience: float) -> dict:
        ready, _, _ = select.select([self._process.stdout], [], [], patience)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self.close()
            raise Failure(f"{self._process.args[0]} said nothing in {patience:.0f} s or ended: {self.log.read_text()[-2000:]}")
        return json.loads(line)

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS  # utime and stime
