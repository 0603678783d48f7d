"""Owns the cluster's keys and certificates and the kubeconfigs made of them.
It must not know which component uses which; a key is readable by root alone."""

import base64
import contextlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import files, settings
from .progress import run

DAYS = "3650"


@dataclass(frozen=True)
class Certificate:
    name: str
    subject: str
    authority: str = "ca"
    alternatives: str = ""


AUTHORITIES = {"ca": "/CN=easel-cluster", "front-proxy-ca": "/CN=easel-front-proxy"}
API_NAMES = ",".join((
    "IP:127.0.0.1", f"IP:{settings.NODE_ADDRESS}", f"IP:{settings.LINK_ADDRESS}", f"IP:{settings.API_SERVICE}", "DNS:localhost",
    "DNS:kubernetes", "DNS:kubernetes.default", "DNS:kubernetes.default.svc", f"DNS:kubernetes.default.svc.{settings.DNS_DOMAIN}",
))
CERTIFICATES = (
    Certificate("apiserver", "/CN=kube-apiserver", alternatives=API_NAMES),
    Certificate("apiserver-kubelet-client", "/CN=kube-apiserver-kubelet-client"),
    Certificate("front-proxy-client", "/CN=front-proxy-client", authority="front-proxy-ca"),
    Certificate("admin", "/O=system:masters/CN=easel-admin"),
    Certificate("controller-manager", "/CN=system:kube-controller-manager"),
    Certificate("scheduler", "/CN=system:kube-scheduler"),
    Certificate("kube-proxy", "/CN=system:kube-proxy"),
    Certificate("coredns", "/CN=easel:coredns"),
    Certificate("kubelet", f"/O=system:nodes/CN=system:node:{settings.NODE}",
                alternatives=f"IP:{settings.NODE_ADDRESS},DNS:{settings.NODE}"),
)
KUBECONFIGS = ("controller-manager", "scheduler", "kube-proxy", "coredns", "kubelet")


def key(name: str) -> Path:
    return settings.PKI / f"{name}.key"


def certificate(name: str) -> Path:
    return settings.PKI / f"{name}.crt"


def kubeconfig(name: str) -> Path:
    return settings.ETC / f"{name}.kubeconfig"


def create() -> None:
    """Makes what is missing."""
    for name, subject in AUTHORITIES.items():
        if not certificate(name).exists():
            _authority(name, subject)
    for wanted in CERTIFICATES:
        if not certificate(wanted.name).exists():
            _issue(wanted)
    if not certificate("service-account").exists():
        _service_account_key()
    for name in KUBECONFIGS:
        files.write(kubeconfig(name), _kubeconfig(name, f"https://127.0.0.1:{settings.API_PORT}"))
    files.write(settings.KUBECONFIG, _kubeconfig("admin", settings.API_URL))


@contextlib.contextmanager
def _pair(name: str):
    """Paths for a new key and its certificate, moved into place when both are whole; the certificate last, as it is what counts."""
    with tempfile.TemporaryDirectory(dir=settings.PKI) as folder:
        new_key, new_certificate = Path(folder, "key"), Path(folder, "crt")
        yield new_key, new_certificate
        new_key.chmod(0o600)
        new_key.rename(key(name))
        new_certificate.rename(certificate(name))


def _elliptic_key(path: Path) -> None:
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)


def _authority(name: str, subject: str) -> None:
    with _pair(name) as (new_key, new_certificate):
        _elliptic_key(new_key)
        run("openssl", "req", "-x509", "-new", "-key", new_key, "-subj", subject, "-days", DAYS,
            "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", new_certificate)


def _issue(wanted: Certificate) -> None:
    extensions = ["keyUsage=critical,digitalSignature", "extendedKeyUsage=serverAuth,clientAuth"]
    if wanted.alternatives:
        extensions.append(f"subjectAltName={wanted.alternatives}")
    with _pair(wanted.name) as (new_key, new_certificate):
        request, config = new_key.with_name("request"), new_key.with_name("extensions")
        _elliptic_key(new_key)
        config.write_text("\n".join(extensions) + "\n")
        run("openssl", "req", "-new", "-key", new_key, "-subj", wanted.subject, "-out", request)
        run("openssl", "x509", "-req", "-in", request, "-CA", certificate(wanted.authority), "-CAkey", key(wanted.authority),
            "-set_serial", f"0x{os.urandom(16).hex()}", "-days", DAYS, "-extfile", config, "-out", new_certificate)


def _service_account_key() -> None:
    """Not a certificate: the API server takes a plain public key to check tokens with."""
    with _pair("service-account") as (new_key, public_key):
        run("openssl", "genrsa", "-out", new_key, "2048")
        run("openssl", "rsa", "-in", new_key, "-pubout", "-out", public_key)


def _kubeconfig(name: str, server: str) -> str:
    def inline(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    user = {"client-certificate-data": inline(certificate(name)), "client-key-data": inline(key(name))}
    cluster = {"server": server, "certificate-authority-data": inline(certificate("ca"))}
    return json.dumps({  # JSON is YAML
        "apiVersion": "v1", "kind": "Config", "current-context": "easel",
        "clusters": [{"name": "easel", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "easel", "context": {"cluster": "easel", "user": name}}],
    }, indent=1) + "\n"

