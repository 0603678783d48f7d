#!/usr/bin/env python3
"""Owns the command line of the local cluster: which command leads to which part of `onenode`.
It must not do any of the work."""

import argparse
import os
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from onenode import build, down, images, settings, status, up  # noqa: E402
from onenode.progress import Failure  # noqa: E402


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A real single-node Kubernetes cluster on this machine, without Docker or a registry.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build Kubernetes and its companions into the cache (once, minutes)")
    commands.add_parser("up", help="build what is missing and start what does not run")
    commands.add_parser("down", help="stop everything and remove all of the cluster's state; built programs stay")
    commands.add_parser("status", help="show what runs; exit status 1 unless all is well")
    commands.add_parser("import", help="import OCI archives into the node").add_argument("archives", type=Path, nargs="+")
    commands.add_parser("kubeconfig", help="print the path of the administrator's kubeconfig")
    commands.add_parser("env", help="print shell lines that set KUBECONFIG and put kubectl and helm into PATH")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.command == "kubeconfig":
        print(settings.KUBECONFIG)
    elif options.command == "env":
        print(f"export KUBECONFIG={shlex.quote(str(settings.KUBECONFIG))}")
        print(f"export PATH={shlex.quote(str(build.upstream_folder()))}:$PATH")
    elif options.command == "status":
        return 0 if status.status() else 1
    elif os.geteuid() != 0 and options.command != "build":
        raise Failure("only root can do this")
    else:
        with up.exclusive():
            change(options)
    return 0


def change(options: argparse.Namespace) -> None:
    match options.command:
        case "build":
            build.build()
        case "up":
            up.up()
        case "down":
            down.down()
        case "import":
            for archive in options.archives:
                images.load(archive)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"error: {failure}")
