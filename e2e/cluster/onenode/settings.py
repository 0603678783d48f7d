"""Owns the names, addresses, ports and folders of the cluster, and the one table of ports that the host sees.
It must not start, read or write anything: every other module may import this one, and this one imports none."""

import os
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
MODULES = HERE / "gomod"  # Kubernetes and its companions, pinned
PROGRAMS = HERE / "programs"  # our own pause, relay and probe
STORES = HERE / "stores"  # a registry and an S3 server for tests, pinned

CACHE = Path(os.environ.get("EASEL_CACHE") or Path.home() / ".cache" / "easel").resolve()
STATE = CACHE / "cluster"
RUN, PKI, ETC, LOG, VAR = (STATE / name for name in ("run", "pki", "etc", "log", "var"))
KUBECONFIG = STATE / "kubeconfig"
# Short, because a Unix socket's path has at most 107 bytes, and on a tmpfs, because it dies with the machine.
SOCKETS = Path("/run/easel-cluster")
CONTAINERD_SOCKET = SOCKETS / "containerd.sock"
# In memory: fsync on a shared disk halves the speed of the whole API.
ETCD_DATA = Path("/dev/shm/easel-etcd")

NAMESPACE = "easel"  # the network namespace
NAMESPACE_PATH = Path("/run/netns") / NAMESPACE
CGROUP = "easel"  # parent of the pods' cgroups in every hierarchy

NODE = "easel-node"
HOST_LINK, NODE_LINK = "easel0", "easel1"  # the two ends of the veth pair
HOST_ADDRESS, LINK_ADDRESS, LINK_PREFIX = "169.254.77.1", "169.254.77.2", 30
# The kubelet refuses a link-local address as the node's, so the node has one more.
NODE_ADDRESS = "10.99.0.1"
SERVICE_RANGE, API_SERVICE = "10.96.0.0/16", "10.96.0.1"
POD_RANGE = "10.244.0.0/24"
DNS_DOMAIN = "cluster.local"
API_PORT = 6443
ETCD_URL = "http://127.0.0.1:2379"

# name -> (port on the host's 127.0.0.1, port in the cluster). Every other NodePort answers the host at LINK_ADDRESS.
EXPOSED = {
    "api": (API_PORT, API_PORT),
    "gateway": (8080, 30080),
    "admin": (8081, 30081),
    "smoke": (30089, 30089),
    "registry": (5000, 30500),
    "s3": (9000, 30900),
}
API_URL = f"https://127.0.0.1:{EXPOSED['api'][0]}"


def module_version(module: str) -> str:
    """The version of a module as go.mod pins it: the only place that names versions."""
    found = re.search(rf"^\s*(?:require )?{re.escape(module)} (v\S+)", (MODULES / "go.mod").read_text(), re.MULTILINE)
    if not found:
        raise LookupError(f"{module} is not in {MODULES / 'go.mod'}")
    return found.group(1)
