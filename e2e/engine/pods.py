"""Owns inference pods as processes of this machine, with an authority of their own: what a cluster would give them.
It must not know what a request is; `router.py` does."""

import http.client
import json
import re
import signal
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path

DOMAIN = "local.test.pods.easel.internal"
WHO = ("operator", "gateway")


class Authority:
    """Certificates for a pod, an operator and a gateway, good for a day."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
                      "-subj", "/CN=local", "-keyout", "ca.key", "-out", "ca.crt")
        self._certify("tls", f"DNS:*.{DOMAIN}")
        for who in WHO:
            self._certify(who, f"URI:spiffe://easel.internal/{who}")
        self.contexts = {who: self._context(who) for who in WHO}

    def _certify(self, name: str, alternative: str) -> None:
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=easel",
                      "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (self.folder / f"{name}.ext").write_text(f"subjectAltName={alternative}\n")
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                      "-days", "1", "-extfile", f"{name}.ext", "-out", f"{name}.crt")

    def _context(self, who: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.folder / "ca.crt")
        context.load_cert_chain(self.folder / f"{who}.crt", self.folder / f"{who}.key")
        return context

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


@dataclass
class Pod:
    name: str
    authority: Authority
    process: subprocess.Popen
    port: int
    metrics_port: int
    log: Path
    #: Resident bytes, sampled while it lives.
    memory: list[int] = field(default_factory=list)

    @classmethod
    def start(cls, binary: Path, name: str, authority: Authority, *flags: str, environment: dict | None = None) -> "Pod":
        cache, log = authority.folder / f"cache-{name}", authority.folder / f"{name}.log"
        cache.mkdir()
        ports = [f"--{port}=127.0.0.1:0" for port in ("listen", "probes-listen", "metrics-listen")]
        command = [binary, *ports, f"--tls-dir={authority.folder}", f"--cache-dir={cache}", *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        written, found = log.open("w"), {}
        for line in process.stdout:
            written.write(line)
            found = dict(re.findall(r'"(engine|metrics)":"127\.0\.0\.1:(\d+)"', line))
            if "engine" in found:
                break
        else:
            raise SystemExit(f"{name} ended before it listened; see {log}")
        threading.Thread(target=_copy, args=(process, written), daemon=True).start()
        return cls(name, authority, process, int(found["engine"]), int(found["metrics"]), log)

    def connect(self, who: str = "gateway", timeout: float | None = None) -> http.client.HTTPConnection:
        """A connection of its own. The time is for one read: a pod that hangs is lost."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        connection.sock = self.authority.contexts[who].wrap_socket(plain, server_hostname=f"v4-127-0-0-1.{DOMAIN}")
        return connection

    def call(self, who: str, method: str, path: str, body=None) -> tuple[int, bytes]:
        connection = self.connect(who, timeout=60)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def hold(self, generation: tuple[int, int], models: list[dict]) -> None:
        term, sequence = generation
        status, text = self.call("operator", "PUT", "/engine/v1/residency",
                                 {"generation": {"term": term, "sequence": sequence}, "models": models})
        if status != 200:
            raise SystemExit(f"{self.name} refused its residency: {status} {text.decode()}")

    def serves(self) -> set[str]:
        status, text = self.call("gateway", "GET", "/v1/models")
        return {row["id"] for row in json.loads(text)["data"]} if status == 200 else set()

    def metrics(self) -> dict[str, float]:
        """Each sample by its name and labels, without the common prefix."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=60)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        samples = re.findall(r"^easel_inference_(\S+) (\S+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in samples}

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def sample_memory(self) -> None:
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return
        if found := re.search(r"VmRSS:\s+(\d+) kB", status):
            self.memory.append(int(found[1]) << 10)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()

    def wait(self, seconds: float) -> int | None:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


def model(name: str, folder: Path, digest: str, **more) -> dict:
    """As the operator would ask for it; `more` are further fields of a desired model."""
    return {
        "id": name,
        "checkpoint": {"source": {"kind": "folder", "path": str(folder)}, "digest": digest},
        "defaults": {"steps": 20, "guidance_scale": 3.0, "size": "64x64", "sampler": "ddim"},
        "limits": {"max_steps": 1000, "max_pixels": 1 << 24, "max_images": 10},
        **more,
    }


def _copy(process: subprocess.Popen, to) -> None:
    with to, process.stdout:
        for line in process.stdout:
            to.write(line)
            to.flush()
