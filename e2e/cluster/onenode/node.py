"""Owns what makes the machine a node: containerd, the kubelet, kube-proxy and the DNS server, with their configuration files.
It must not know what is deployed; settings that differ from a production node carry their reason."""

import json
import tempfile
from pathlib import Path

from . import files, pki, settings
from .build import binary
from .health import answers
from .packages import find
from .process import Component
from .progress import Failure, run

PAUSE_IMAGE = "localhost/pause:1"
CONTAINERD_CONFIG, CNI_FOLDER = settings.ETC / "containerd.toml", settings.ETC / "cni"
KUBELET_CONFIG, PROXY_CONFIG, COREFILE = (settings.ETC / n for n in ("kubelet.json", "kube-proxy.json", "Corefile"))
RESOLV_CONF = settings.ETC / "resolv.conf"


def write_configuration() -> None:
    CNI_FOLDER.mkdir(exist_ok=True)
    files.write(CONTAINERD_CONFIG, _containerd_toml())
    files.write(CNI_FOLDER / "10-bridge.conflist", json.dumps(_cni(), indent=1))
    files.write(KUBELET_CONFIG, json.dumps(_kubelet(), indent=1))
    files.write(PROXY_CONFIG, json.dumps(_kube_proxy(), indent=1))
    files.write(COREFILE, _corefile())
    # There is nothing to ask outside; pods with dnsPolicy Default get this one.
    files.write(RESOLV_CONF, f"nameserver {settings.NODE_ADDRESS}\n")


def containerd() -> Component:
    return Component("containerd", (str(binary("containerd")), "--config", str(CONTAINERD_CONFIG)),
                     healthy=_containerd_answers, inputs=(CONTAINERD_CONFIG, CNI_FOLDER / "10-bridge.conflist"))


def kubelet() -> Component:
    return Component("kubelet", (
        str(binary("kubelet")), f"--config={KUBELET_CONFIG}", f"--kubeconfig={pki.kubeconfig('kubelet')}",
        f"--hostname-override={settings.NODE}", f"--node-ip={settings.NODE_ADDRESS}",
        f"--root-dir={settings.VAR / 'kubelet'}", f"--cert-dir={settings.VAR / 'kubelet-pki'}",
    ), healthy=answers(f"http://{settings.LINK_ADDRESS}:10248/healthz"), inputs=(KUBELET_CONFIG,))


def kube_proxy() -> Component:
    return Component("kube-proxy", (str(binary("kube-proxy")), f"--config={PROXY_CONFIG}"),
                     healthy=answers(f"http://{settings.LINK_ADDRESS}:10256/healthz"), inputs=(PROXY_CONFIG,))


def coredns() -> Component:
    return Component("coredns", (str(binary("coredns")), "-conf", str(COREFILE)),
                     healthy=answers(f"http://{settings.LINK_ADDRESS}:8181/ready"), inputs=(COREFILE,))


def ctr(*arguments, check: bool = True) -> str:
    return run(binary("ctr"), "--address", settings.CONTAINERD_SOCKET, "--namespace", "k8s.io", *arguments, check=check)


def _containerd_answers() -> bool:
    try:
        return settings.CONTAINERD_SOCKET.exists() and "Server:" in ctr("version")
    except Failure:
        return False


def _snapshotter() -> str:
    """Overlayfs cannot lie on another overlayfs, which is what a container's root often is."""
    with tempfile.TemporaryDirectory(dir=settings.VAR) as folder:
        for name in ("lower", "upper", "work", "merged"):
            Path(folder, name).mkdir()
        options = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
        try:
            run("mount", "-t", "overlay", "-o", options, "overlay", f"{folder}/merged")
        except Failure:
            return "native"
        run("umount", f"{folder}/merged")
        return "overlayfs"


def _containerd_toml() -> str:
    return f"""version = 3
root = "{settings.VAR / 'containerd'}"
state = "{settings.SOCKETS / 'containerd'}"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs"]

[grpc]
  address = "{settings.CONTAINERD_SOCKET}"

[plugins."io.containerd.nri.v1.nri"]
  disable = true

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{_snapshotter()}"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
  # Root without CAP_SYS_RESOURCE may not lower a process's score, and the sandbox would die of trying.
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  # Below our own folder, so that `down` finds every mount.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{binary('cni/bridge').parent}"]
    conf_dir = "{CNI_FOLDER}"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      runtime_path = "{binary('containerd-shim-runc-v2')}"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "{find('runc')}"
        Root = "{settings.SOCKETS / 'runc'}"
        SystemdCgroup = false
"""


def _cni() -> dict:
    ipam = {"type": "host-local", "dataDir": str(settings.SOCKETS / "cni"),
            "ranges": [[{"subnet": settings.POD_RANGE}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True, "ipam": ipam}
    portmap = {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "easel", "plugins": [bridge, portmap]}


def _kubelet() -> dict:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{settings.CONTAINERD_SOCKET}",
        "address": settings.NODE_ADDRESS, "readOnlyPort": 0,
        "healthzBindAddress": settings.LINK_ADDRESS, "healthzPort": 10248,
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True},
                           "x509": {"clientCAFile": str(pki.certificate("ca"))}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki.certificate("kubelet")), "tlsPrivateKeyFile": str(pki.key("kubelet")),
        "clusterDomain": settings.DNS_DOMAIN, "clusterDNS": [settings.NODE_ADDRESS], "resolvConf": str(RESOLV_CONF),
        # No systemd, and since 1.35 cgroup v1 must be asked for.
        "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{settings.CGROUP}", "failCgroupV1": False, "failSwapOn": False,
        "maxPods": 200, "volumePluginDir": str(settings.VAR / "volume-plugins"), "podLogsDir": str(settings.VAR / "pod-logs"),
        "nodeStatusUpdateFrequency": "4s", "syncFrequency": "10s", "kubeAPIQPS": 200, "kubeAPIBurst": 400,
        # Images are imported, never pulled: one that was collected would be gone for good.
        "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "registerWithTaints": [],
    }


def _kube_proxy() -> dict:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "nftables",
        "clientConnection": {"kubeconfig": str(pki.kubeconfig("kube-proxy"))}, "hostnameOverride": settings.NODE,
        "detectLocalMode": "ClusterCIDR", "clusterCIDR": settings.POD_RANGE,
        "nodePortAddresses": [f"{settings.LINK_ADDRESS}/32", f"{settings.NODE_ADDRESS}/32"],
        # These limits belong to the whole kernel; a namespace may not write them.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"minSyncPeriod": "100ms"},
        "healthzBindAddress": f"{settings.LINK_ADDRESS}:10256", "metricsBindAddress": "127.0.0.1:10249",
    }


def _corefile() -> str:
    """Other names get an answer too, a no: a refusal would make resolvers ask again and again."""
    return f""".:53 {{
  bind {settings.NODE_ADDRESS}
  errors
  health {settings.LINK_ADDRESS}:8080
  ready {settings.LINK_ADDRESS}:8181
  kubernetes {settings.DNS_DOMAIN} in-addr.arpa {{
    kubeconfig {pki.kubeconfig('coredns')}
    pods verified
    ttl 5
  }}
  template ANY ANY {{
    rcode NXDOMAIN
  }}
  cache 5
  loadbalance
}}
"""
