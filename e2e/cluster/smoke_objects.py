"""Owns the manifests of the smoke test.
It must not know what is checked on them."""

PROBE = "localhost/easel-probe:dev"
NAMESPACE = "easel-smoke"
NODE_PORT = 30089
SAFE = {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}


def container(*args: str, memory: str = "64Mi", **more) -> dict:
    return {"name": "probe", "image": PROBE, "args": list(args), "securityContext": SAFE,
            "resources": {"limits": {"memory": memory}, "requests": {"cpu": "10m", "memory": memory}}, **more}


def pod(name: str, *args: str, memory: str = "64Mi") -> dict:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False,
                     "containers": [container(*args, memory=memory)]}}


def web() -> dict:
    ready = {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container("serve", ":8080", readinessProbe=ready)]}}}}


def service() -> dict:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"type": "NodePort", "selector": {"app": "web"},
                     "ports": [{"port": 80, "targetPort": 8080, "nodePort": NODE_PORT}]}}


def config_map(name: str, owner_uid: str | None = None) -> dict:
    owners = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner_uid}] if owner_uid else []
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": owners}}


def stranger_node() -> dict:
    """A node that exists as an object only; no pod goes there."""
    taint = {"key": "easel-smoke", "effect": "NoSchedule"}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "easel-smoke-stranger"}, "spec": {"taints": [taint]}}


def custom_kind() -> dict:
    rule = {"rule": "self.least <= self.most", "message": "least is above most"}
    number = {"type": "integer"}
    spec = {"type": "object", "required": ["least", "most"], "properties": {"least": number, "most": number},
            "x-kubernetes-validations": [rule]}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "ranges.smoke.easel.dev"},
            "spec": {"group": "smoke.easel.dev", "scope": "Namespaced", "names": {"kind": "Range", "plural": "ranges", "singular": "range"},
                     "versions": [{"name": "v1", "served": True, "storage": True,
                                   "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]}}


def custom_object(name: str, least: int, most: int) -> dict:
    return {"apiVersion": "smoke.easel.dev/v1", "kind": "Range", "metadata": {"name": name}, "spec": {"least": least, "most": most}}


def everything() -> dict:
    items = [web(), service(), pod("client", "serve", ":8080"),
             pod("hungry", "eat", "200", memory="32Mi"), pod("modest", "eat", "32", memory="128Mi"),
             {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody"}}]
    return {"apiVersion": "v1", "kind": "List", "items": items}
