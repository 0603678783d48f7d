"""Owns the stores as Kubernetes objects: namespace, Secrets, Deployments and Services.
It must not apply them."""

import json

from stores import places
from stores.credentials import Credentials

SAFE = {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}


def everything(image: str, known: Credentials) -> list[dict]:
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": places.NAMESPACE}},
            *_registry(image), *_s3(image, known)]


def _registry(image: str) -> list[dict]:
    secure = {"addr": ":5000", "tls": {"certificate": "/tls/tls.crt", "key": "/tls/tls.key"}}
    configuration = {"secure.json": json.dumps(_configuration(secure)), "plain.json": json.dumps(_configuration({"addr": ":5080"}))}
    mounts = [_mount("data", "/data"), _mount("control", "/control", read_only=True), _mount("configuration", "/etc/registry"),
              _mount("tls", "/tls")]
    ready = {"httpGet": {"path": "/", "port": 5000, "scheme": "HTTPS"}, "periodSeconds": 1}
    containers = [
        _container("registry", image, ["/bin/registry", "serve", "/etc/registry/secure.json"], mounts, readinessProbe=ready),
        _container("plain", image, ["/bin/registry", "serve", "/etc/registry/plain.json"], mounts,
                   readinessProbe={"httpGet": {"path": "/", "port": 5080}, "periodSeconds": 1}),
        _container("slow", image, ["/bin/throttle", ":5001", "127.0.0.1:5000", "/control/rate"], mounts[1:2]),
    ]
    volumes = [_host("data", places.REGISTRY_DATA), _host("control", places.CONTROL),
               {"name": "configuration", "configMap": {"name": "registry"}}, {"name": "tls", "secret": {"secretName": "registry-tls"}}]
    return [
        _named("v1", "ConfigMap", "registry", data=configuration),
        _named("v1", "Secret", "registry-tls", stringData={n: (places.STATE / n).read_text() for n in ("tls.crt", "tls.key")}),
        _deployment("registry", containers, volumes),
        _service("registry", {"registry": 5000, "slow": 5001, "plain": 5080}),
    ]


def _configuration(http: dict) -> dict:
    """No cache of descriptors: what a test spoils on the disk is what the next client gets."""
    storage = {"filesystem": {"rootdirectory": "/data"}, "delete": {"enabled": True}, "maintenance": {"uploadpurging": {"enabled": False}}}
    return {"version": "0.1", "log": {"level": "info", "formatter": "text"}, "storage": storage,
            "http": {**http, "secret": "one replica"}, "auth": {"htpasswd": {"realm": "stores", "path": "/control/htpasswd"}}}


def _s3(image: str, known: Credentials) -> list[dict]:
    secret = {"S3_ACCESS_KEY": known.access_key_id, "S3_SECRET_KEY": known.secret_access_key}
    ready = {"httpGet": {"path": "/healthz", "port": 9000}, "periodSeconds": 1}
    server = _container("s3", image, ["/bin/s3", ":9000", "/data/objects", "/data/meta"], [_mount("data", "/data")],
                        envFrom=[{"secretRef": {"name": "s3"}}], readinessProbe=ready)
    return [_named("v1", "Secret", "s3", stringData=secret), _deployment("s3", [server], [_host("data", places.S3_DATA)]),
            _service("s3", {"s3": 9000})]


def _named(version: str, kind: str, name: str, **content) -> dict:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": places.NAMESPACE}, **content}


def _mount(name: str, path: str, read_only: bool = False) -> dict:
    return {"name": name, "mountPath": path, "readOnly": read_only}


def _host(name: str, path) -> dict:
    return {"name": name, "hostPath": {"path": str(path), "type": "Directory"}}


def _container(name: str, image: str, command: list[str], mounts: list[dict], **more) -> dict:
    # The registry would send traces to a collector that is not there.
    return {"name": name, "image": image, "command": command, "volumeMounts": mounts, "securityContext": SAFE,
            "env": [{"name": "OTEL_TRACES_EXPORTER", "value": "none"}],
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "512Mi"}}, **more}


def _deployment(name: str, containers: list[dict], volumes: list[dict]) -> dict:
    labels = {"app": name}
    pod = {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0, "containers": containers, "volumes": volumes}
    return _named("apps/v1", "Deployment", name, spec={
        "replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod}})


def _service(name: str, ports: dict[str, int]) -> dict:
    listed = [{"name": port, "port": number, "nodePort": places.NODE_PORTS[port]} for port, number in ports.items()]
    return _named("v1", "Service", name, spec={"type": "NodePort", "selector": {"app": name}, "ports": listed})
