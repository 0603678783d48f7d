"""Owns the cluster's network namespace, its one cable to the host, and the relays on the host's loopback.
It must not know what listens on a port; there is no route out of the namespace except to the host's end of the cable."""

import socket

from . import settings
from .build import binary
from .process import Component
from .progress import Failure, run

SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    # Replies between pods of one bridge must pass the service rules too, or they keep the pod's address.
    "net.bridge.bridge-nf-call-iptables": "1",
}


def inside(*argv, check: bool = True) -> str:
    return run("nsenter", f"--net={settings.NAMESPACE_PATH}", "--", *argv, check=check)


def exists() -> bool:
    """Whether the namespace is there and mounted (the bare file alone is left behind by a reboot)."""
    return settings.NAMESPACE_PATH.exists() and str(settings.NAMESPACE_PATH) in _mount_points()


def _mount_points() -> list[str]:
    with open("/proc/self/mounts") as mounts:
        return [line.split()[1] for line in mounts]


def link_exists() -> bool:
    return bool(run("ip", "link", "show", settings.HOST_LINK, check=False))


def create() -> bool:
    """Makes what is missing; true if anything was."""
    if exists() and _complete():
        return False
    remove()
    run("ip", "netns", "add", settings.NAMESPACE)
    run("ip", "link", "add", settings.HOST_LINK, "type", "veth",
        "peer", "name", settings.NODE_LINK, "netns", settings.NAMESPACE)
    run("ip", "address", "add", f"{settings.HOST_ADDRESS}/{settings.LINK_PREFIX}", "dev", settings.HOST_LINK)
    run("ip", "link", "set", settings.HOST_LINK, "up")
    inside("ip", "link", "set", "lo", "up")
    for name, value in SYSCTLS.items():
        inside("sh", "-c", f"echo {value} >/proc/sys/{name.replace('.', '/')}")
    inside("ip", "address", "add", f"{settings.LINK_ADDRESS}/{settings.LINK_PREFIX}", "dev", settings.NODE_LINK)
    inside("ip", "address", "add", f"{settings.NODE_ADDRESS}/32", "dev", settings.NODE_LINK)
    inside("ip", "link", "set", settings.NODE_LINK, "up")
    # A packet to a service needs some route before the service rules can rewrite it.
    inside("ip", "route", "add", settings.SERVICE_RANGE, "dev", settings.NODE_LINK, "src", settings.NODE_ADDRESS)
    return True


def _complete() -> bool:
    """The route is made last, so it stands for all of it."""
    return settings.SERVICE_RANGE in inside("ip", "route", check=False) and link_exists()


def remove() -> None:
    if link_exists():
        run("ip", "link", "delete", settings.HOST_LINK)
    if settings.NAMESPACE_PATH.exists():
        run("ip", "netns", "delete", settings.NAMESPACE, check=False)
        settings.NAMESPACE_PATH.unlink(missing_ok=True)


def relay(name: str) -> Component:
    host_port, cluster_port = settings.EXPOSED[name]
    return Component(
        name=f"relay-{name}",
        argv=(str(binary("relay")), f"127.0.0.1:{host_port}", f"{settings.LINK_ADDRESS}:{cluster_port}"),
        healthy=lambda: listening(host_port),
        in_namespace=False,
        timeout=5,
    )


def listening(port: int) -> bool:
    """Whether some program listens on the host's loopback; looks at the kernel's table, so nothing is connected."""
    wanted = f"0100007F:{port:04X}"
    with open("/proc/net/tcp") as table:
        return any(f[1] == wanted and f[3] == "0A" for f in (line.split() for line in table))


def check_free(name: str) -> None:
    port = settings.EXPOSED[name][0]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Failure(f"127.0.0.1:{port} ({name}) is taken by another program: {error}") from None
