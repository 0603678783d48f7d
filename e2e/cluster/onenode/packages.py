"""Owns which programs come from the Debian distribution instead of from a Go module, because they need C or the kernel's own tools.
It must not install anything that is already there."""

import os
import shutil

from .progress import Failure, run, step

# program -> Debian package
NEEDED = {
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "mount": "mount",
    "openssl": "openssl",
}
SEARCH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin"


def find(program: str) -> str | None:
    return shutil.which(program, path=SEARCH)


def install_missing() -> None:
    missing = sorted({package for program, package in NEEDED.items() if not find(program)})
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise Failure(f"these packages are missing: {', '.join(missing)}")
    install = ("apt-get", "install", "--yes", "--no-install-recommends", *missing)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with step("packages", f"installed {', '.join(missing)}"):
        try:
            run(*install, env=environment)
        except Failure:  # the lists may be absent or old
            run("apt-get", "update", env=environment)
            run(*install, env=environment)
