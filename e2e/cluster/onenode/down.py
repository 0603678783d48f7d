"""Owns taking everything away that `up` made, and looking afterwards whether anything is left.
It must not end a process that the cluster did not start, and it must work on any half of a cluster."""

import os
import shutil
from pathlib import Path

from . import build, cgroups, kernel, network, process, settings
from .progress import Failure, run, say, step

ORDER = ("kube-proxy", "coredns", "containerd", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")
POD_LOG_LINKS = Path("/var/log/containers")


def down() -> None:
    stopped = [name for name in ("kubelet",) if process.stop(name)]  # first, or it would start again what is killed next
    with step("pods", "stopped"):
        pods = cgroups.kill_all()
    stopped += [name for name in (*ORDER, *process.recorded()) if process.stop(name)]
    say("components", f"stopped {len(stopped)} and {pods} processes of pods")
    for pid in shims():
        _kill_shim(pid)
    _unmount_all()
    cgroups.remove()
    network.remove()
    kernel.restore()
    _remove_files()
    remaining = left()
    if remaining:
        raise Failure("left behind:\n  " + "\n  ".join(remaining))
    say("cluster", "nothing is left: no process, mount, cgroup, namespace, link, or file of the cluster (built programs stay)")


def shims() -> list[int]:
    """Containerd's children that outlive it: told by our own socket among their arguments."""
    wanted = os.fsencode(settings.CONTAINERD_SOCKET)
    return [pid for pid, argv in _processes() if argv and b"containerd-shim-runc-v2" in argv[0] and wanted in argv]


def _processes():
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                yield int(folder.name), (folder / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                pass


def _kill_shim(pid: int) -> None:
    process.terminate(pid, lambda: pid in shims(), grace=0)


def mounts() -> list[str]:
    ours = (f"{settings.STATE}/", f"{settings.SOCKETS}/")
    with open("/proc/self/mounts") as table:
        points = [line.split()[1].encode().decode("unicode_escape") for line in table]
    return sorted((p for p in points if p.startswith(ours)), reverse=True)


def _unmount_all() -> None:
    for point in mounts():
        run("umount", "--lazy", point, check=False)


def _remove_files() -> None:
    if POD_LOG_LINKS.is_dir():
        for link in POD_LOG_LINKS.iterdir():
            if link.is_symlink() and os.readlink(link).startswith(f"{settings.VAR}/"):
                link.unlink()
    for folder in (settings.STATE, settings.SOCKETS, settings.ETCD_DATA):
        if not any(m.startswith(f"{folder}/") for m in mounts()):  # never through a mount
            shutil.rmtree(folder, ignore_errors=True)


def left() -> list[str]:
    folders = {str(build.own_folder()), str(build.upstream_folder())}
    programs = [f"process {pid}: {os.fsdecode(argv[0])}" for pid, argv in _processes()
                if str(Path(os.fsdecode(argv[0])).parent) in folders and Path(os.fsdecode(argv[0])).name not in {"kubectl", "helm"}]
    links = [f"link {settings.HOST_LINK}"] if network.link_exists() else []
    paths = (settings.STATE, settings.SOCKETS, settings.ETCD_DATA, settings.NAMESPACE_PATH)
    return (programs + [f"shim {pid}" for pid in shims()] + [f"mount {m}" for m in mounts()]
            + [f"cgroup {c}" for c in cgroups.left()] + links + [f"path {p}" for p in paths if p.exists()])
