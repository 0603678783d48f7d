"""A pod on loopback that holds one folder and draws for its caller, on top of `e2e/engine/pods.py`.

Knows how long a load may take; knows no picture.
"""

import json
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "e2e"))

from engine.pods import DOMAIN, Authority, Pod, model  # noqa: E402,F401

MODEL = "local/model"
START_SECONDS = 120


class LocalPod:
    def __init__(self, binary, folder, digest):
        self.binary, self.folder, self.digest = binary, folder, digest

    def __enter__(self):
        self.held = tempfile.TemporaryDirectory()
        self.files = pathlib.Path(self.held.name)
        self.pod = Pod.start(self.binary, "local", Authority(self.files))
        self.port = self.pod.port
        self.pod.hold((1, 1), [model(MODEL, self.folder, self.digest)])
        until = time.monotonic() + START_SECONDS
        while MODEL not in self.pod.serves():
            if time.monotonic() > until:
                raise SystemExit(f"the pod did not load the folder within {START_SECONDS} s")
            time.sleep(0.2)
        return self

    def __exit__(self, *_):
        self.pod.terminate()
        self.pod.process.wait()
        self.held.cleanup()

    def post(self, path, body):
        status, text = self.pod.call("gateway", "POST", path, body)
        if status != 200:
            raise SystemExit(f"POST {path}: {status} {text.decode()}")
        return json.loads(text)
