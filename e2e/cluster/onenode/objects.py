"""Owns the objects that `up` puts into the cluster: the rights of the node's own components, and nothing else.
It must not know how they are started."""

from . import api

RBAC = "rbac.authorization.k8s.io"
BASE = f"/apis/{RBAC}/v1"
DNS_RULES = [
    {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
]
# cluster role -> the user (a certificate's common name) that has it
BINDINGS = {
    "system:node-proxier": "system:kube-proxy",
    "system:kubelet-api-admin": "kube-apiserver-kubelet-client",
    "easel:coredns": "easel:coredns",
}


def apply() -> None:
    role = {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": "easel:coredns"}, "rules": DNS_RULES}
    api.apply(f"{BASE}/clusterroles/easel:coredns", role)
    for name, user in BINDINGS.items():
        binding = f"easel:{user.replace(':', '-')}"
        api.apply(f"{BASE}/clusterrolebindings/{binding}", {
            "apiVersion": f"{RBAC}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": binding},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": RBAC, "kind": "User", "name": user}],
        })
