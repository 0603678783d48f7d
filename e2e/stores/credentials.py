"""Owns what the stores are entered with: their authority and certificate, passwords, and files that clients read them from.
It must not know Kubernetes; every password is made for one installation and is in no argument of a program."""

import base64
import json
import os
import secrets
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from onenode.build import binary
from onenode.progress import run

from stores import places

NAMES = f"DNS:{places.REGISTRY_HOST},DNS:registry.{places.NAMESPACE}.svc,DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True)
class Credentials:
    username: str
    password: str
    access_key_id: str
    secret_access_key: str


def ensure() -> Credentials:
    """What there is, or new ones; the files that clients read are written again each time."""
    for folder in (places.STATE, places.CONTROL):
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    if not places.CREDENTIALS.exists():
        made = Credentials("pusher", secrets.token_urlsafe(24), "AK" + secrets.token_hex(9).upper(), secrets.token_urlsafe(30))
        _private(places.CREDENTIALS, json.dumps(asdict(made)))
    found = read()
    if not places.AUTHORITY.exists():
        _certificates()
    htpasswd()
    docker_config(places.DOCKER_CONFIG, found.password)
    return found


def read() -> Credentials:
    return Credentials(**json.loads(places.CREDENTIALS.read_text()))


def htpasswd(**others: str) -> None:
    """Lets the pusher in, and these users with these passwords; the registry looks at the file again when its time changes."""
    users = {read().username: read().password, **others}
    path = places.CONTROL / "htpasswd"
    path.with_suffix(".new").write_text("".join(run(binary("registry"), "htpasswd", name, stdin=word) for name, word in users.items()))
    path.with_suffix(".new").chmod(0o644)
    path.with_suffix(".new").rename(path)


def docker_config(folder: Path, password: str) -> None:
    """A folder for DOCKER_CONFIG, as `docker login` would leave it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _private(folder / "config.json", json.dumps(docker_auths(password)))


def docker_auths(password: str) -> dict:
    entry = {"auth": base64.b64encode(f"{read().username}:{password}".encode()).decode()}
    return {"auths": {host: entry for host in (places.HOST_REGISTRY, places.REGISTRY, places.SLOW, places.PLAIN, places.DIRECT_PLAIN)}}


def registry_secret(name: str, username: str | None = None, password: str | None = None) -> dict:
    """A Secret for an ImageModel's `secretRef`: the pusher's, or another user's."""
    content = {"username": username or read().username, "password": password or read().password, "ca.crt": places.AUTHORITY.read_text()}
    return _secret(name, content)


def s3_secret(name: str, key: str | None = None) -> dict:
    return _secret(name, {"AWS_ACCESS_KEY_ID": read().access_key_id, "AWS_SECRET_ACCESS_KEY": key or read().secret_access_key})


def _secret(name: str, content: dict[str, str]) -> dict:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"}, "stringData": content}


def _private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)


def _certificates() -> None:
    """An authority that no system trusts, and the registry's certificate by it; the authority comes last, as it is what counts."""
    with tempfile.TemporaryDirectory(dir=places.STATE) as folder:
        at = lambda name: Path(folder, name)  # noqa: E731
        for name in ("ca.key", "tls.key"):
            run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", at(name))
        run("openssl", "req", "-x509", "-new", "-key", at("ca.key"), "-subj", "/CN=stores of the tests", "-days", "3650",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", at("ca.crt"))
        at("extensions").write_text(f"keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\nsubjectAltName={NAMES}\n")
        run("openssl", "req", "-new", "-key", at("tls.key"), "-subj", "/CN=registry", "-out", at("request"))
        run("openssl", "x509", "-req", "-in", at("request"), "-CA", at("ca.crt"), "-CAkey", at("ca.key"),
            "-set_serial", f"0x{os.urandom(16).hex()}", "-days", "3650", "-extfile", at("extensions"), "-out", at("tls.crt"))
        for name in ("tls.key", "tls.crt", "ca.crt"):
            at(name).rename(places.STATE / name)
