"""A pod on loopback that holds one folder, with an authority of its own: what a cluster would give it.

Knows the engine port and its certificates (`easel_api::identity`); knows no picture.
"""

import http.client
import json
import pathlib
import re
import socket
import ssl
import subprocess
import tempfile
import time

MODEL = "local/model"
DOMAIN = "local.test.pods.easel.internal"
START_SECONDS = 120


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def authority(folder):
    openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
            "-subj", "/CN=local", "-keyout", "ca.key", "-out", "ca.crt")


def certificate(folder, name, alternative):
    openssl(folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=easel",
            "-keyout", f"{name}.key", "-out", f"{name}.csr")
    (folder / f"{name}.ext").write_text(f"subjectAltName={alternative}\n")
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "1", "-extfile", f"{name}.ext", "-out", f"{name}.crt")


class LocalPod:
    def __init__(self, binary, folder, digest):
        self.binary, self.folder, self.digest = binary, folder, digest

    def __enter__(self):
        self.held = tempfile.TemporaryDirectory()
        self.files = pathlib.Path(self.held.name)
        authority(self.files)
        certificate(self.files, "tls", f"DNS:*.{DOMAIN}")
        for who in ("operator", "gateway"):
            certificate(self.files, who, f"URI:spiffe://easel.internal/{who}")
        (self.files / "cache").mkdir()
        ports = [f"--{port}=127.0.0.1:0" for port in ("listen", "probes-listen", "metrics-listen")]
        folders = [f"--tls-dir={self.files}", f"--cache-dir={self.files}/cache"]
        self.process = subprocess.Popen([self.binary, *ports, *folders], stdout=subprocess.PIPE, text=True)
        self.port = self.listening()
        self.hold()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.held.cleanup()

    def listening(self):
        """The log says where."""
        for line in self.process.stdout:
            if found := re.search(r'"engine":"127\.0\.0\.1:(\d+)"', line):
                return int(found[1])
        raise SystemExit("the pod ended before it listened")

    def hold(self):
        defaults = {"steps": 20, "guidance_scale": 3.0, "size": "64x64", "sampler": "ddim"}
        limits = {"max_steps": 1000, "max_pixels": 1 << 24, "max_images": 10}
        checkpoint = {"source": {"kind": "folder", "path": str(self.folder)}, "digest": self.digest}
        model = {"id": MODEL, "checkpoint": checkpoint, "defaults": defaults, "limits": limits}
        residency = {"generation": {"term": 1, "sequence": 1}, "models": [model]}
        self.call("operator", "PUT", "/engine/v1/residency", residency)
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if any(row["id"] == MODEL for row in self.call("gateway", "GET", "/v1/models")["data"]):
                return
            time.sleep(0.2)
        raise SystemExit(f"the pod did not load the folder within {START_SECONDS} s")

    def post(self, path, body):
        return self.call("gateway", "POST", path, body)

    def call(self, who, method, path, body=None):
        context = ssl.create_default_context(cafile=self.files / "ca.crt")
        context.load_cert_chain(self.files / f"{who}.crt", self.files / f"{who}.key")
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        plain = socket.create_connection(("127.0.0.1", self.port))
        connection.sock = context.wrap_socket(plain, server_hostname=f"v4-127-0-0-1.{DOMAIN}")
        try:
            body = None if body is None else json.dumps(body)
            connection.request(method, path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {text.decode()}")
        return json.loads(text)
