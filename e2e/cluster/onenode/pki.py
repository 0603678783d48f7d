"""Owns the cluster's keys and certificates and the kubeconfigs made of them.
It must not know which component uses which; a key is readable by root alone."""

import base64
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


def create() -> int:
    """Makes what is missing and returns how many keys that were."""
    made = 0
    for name, subject in AUTHORITIES.items():
        if not certificate(name).exists():
            _authority(name, subject)
            made += 1
    for wanted in CERTIFICATES:
        if not certificate(wanted.name).exists():
            _issue(wanted)
            made += 1
    if not certificate("service-account").exists():
        run("openssl", "genrsa", "-out", key("service-account"), "2048")
        run("openssl", "rsa", "-in", key("service-account"), "-pubout", "-out", certificate("service-account"))
        made += 1
    for name in KUBECONFIGS:
        files.write(kubeconfig(name), _kubeconfig(name, f"https://127.0.0.1:{settings.API_PORT}"))
    files.write(settings.KUBECONFIG, _kubeconfig("admin", settings.API_URL))
    return made


def _new_key(name: str) -> None:
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key(name))


def _authority(name: str, subject: str) -> None:
    _new_key(name)
    run("openssl", "req", "-x509", "-new", "-key", key(name), "-subj", subject, "-days", DAYS,
        "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", certificate(name))


def _issue(wanted: Certificate) -> None:
    _new_key(wanted.name)
    extensions = ["keyUsage=critical,digitalSignature", "extendedKeyUsage=serverAuth,clientAuth"]
    if wanted.alternatives:
        extensions.append(f"subjectAltName={wanted.alternatives}")
    with tempfile.TemporaryDirectory() as folder:
        request, config = Path(folder, "request"), Path(folder, "extensions")
        config.write_text("\n".join(extensions) + "\n")
        run("openssl", "req", "-new", "-key", key(wanted.name), "-subj", wanted.subject, "-out", request)
        run("openssl", "x509", "-req", "-in", request, "-CA", certificate(wanted.authority), "-CAkey", key(wanted.authority),
            "-set_serial", f"0x{os.urandom(16).hex()}", "-days", DAYS, "-extfile", config, "-out", certificate(wanted.name))


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

