"""Owns etcd, the API server, the controller manager and the scheduler: their command lines and how each says that it is healthy.
It must not know about the node, its pods, or what is installed into the cluster."""

from . import api, pki, settings
from .build import binary
from .health import answers
from .process import Component

# At the default rates (20 to 50 requests a second) a thousand pods would take minutes.
RATES = ("--kube-api-qps=400", "--kube-api-burst=800")


def components() -> list[Component]:
    return [etcd(), api_server(), controller_manager(), scheduler()]


def etcd() -> Component:
    peer, metrics = "http://127.0.0.1:2380", f"http://{settings.LINK_ADDRESS}:2381"
    return Component("etcd", (
        str(binary("etcd")), f"--data-dir={settings.ETCD_DATA}",
        f"--listen-client-urls={settings.ETCD_URL}", f"--advertise-client-urls={settings.ETCD_URL}",
        f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
        f"--listen-metrics-urls={metrics}", "--unsafe-no-fsync", "--log-level=warn",
    ), healthy=answers(f"{metrics}/health"))


def api_server() -> Component:
    issuer = f"https://kubernetes.default.svc.{settings.DNS_DOMAIN}"
    return Component("kube-apiserver", (
        str(binary("kube-apiserver")),
        f"--etcd-servers={settings.ETCD_URL}",
        "--bind-address=0.0.0.0", f"--secure-port={settings.API_PORT}", f"--advertise-address={settings.NODE_ADDRESS}",
        f"--tls-cert-file={pki.certificate('apiserver')}", f"--tls-private-key-file={pki.key('apiserver')}",
        f"--client-ca-file={pki.certificate('ca')}",
        "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
        f"--service-cluster-ip-range={settings.SERVICE_RANGE}",
        f"--service-account-issuer={issuer}", f"--api-audiences={issuer}",
        f"--service-account-key-file={pki.certificate('service-account')}",
        f"--service-account-signing-key-file={pki.key('service-account')}",
        f"--kubelet-certificate-authority={pki.certificate('ca')}",
        f"--kubelet-client-certificate={pki.certificate('apiserver-kubelet-client')}",
        f"--kubelet-client-key={pki.key('apiserver-kubelet-client')}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={pki.certificate('front-proxy-ca')}", "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki.certificate('front-proxy-client')}", f"--proxy-client-key-file={pki.key('front-proxy-client')}",
        "--enable-aggregator-routing=true", "--event-ttl=1h",
    ), healthy=api.ready)


def controller_manager() -> Component:
    return Component("kube-controller-manager", (
        str(binary("kube-controller-manager")), *_kubeconfig_flags("controller-manager"),
        "--use-service-account-credentials=true", f"--service-account-private-key-file={pki.key('service-account')}",
        f"--root-ca-file={pki.certificate('ca')}",
        f"--cluster-signing-cert-file={pki.certificate('ca')}", f"--cluster-signing-key-file={pki.key('ca')}",
        f"--service-cluster-ip-range={settings.SERVICE_RANGE}",
        # Faster than the defaults, for tests that wait: node loss, autoscaling, bulk changes.
        "--node-monitor-period=2s", "--horizontal-pod-autoscaler-sync-period=5s",
        "--concurrent-deployment-syncs=20", "--concurrent-replicaset-syncs=20", "--concurrent-gc-syncs=40", *RATES,
    ), healthy=answers(f"https://{settings.LINK_ADDRESS}:10257/healthz"))


def scheduler() -> Component:
    return Component("kube-scheduler", (str(binary("kube-scheduler")), *_kubeconfig_flags("scheduler"), *RATES),
                     healthy=answers(f"https://{settings.LINK_ADDRESS}:10259/healthz"))


def _kubeconfig_flags(name: str) -> tuple[str, ...]:
    path = pki.kubeconfig(name)
    return (f"--kubeconfig={path}", f"--authentication-kubeconfig={path}", f"--authorization-kubeconfig={path}",
            "--leader-elect=false", f"--bind-address={settings.LINK_ADDRESS}", f"--cert-dir={settings.VAR / name}")
