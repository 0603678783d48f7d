#!/usr/bin/env python3
"""Owns the command line of the stores: `python3 e2e/stores up|down|status|login`.
It must not do any of the work."""

import argparse
import json
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from easel.kube import Cluster  # noqa: E402  (puts the cluster's package into the path)
from onenode.build import stores_folder  # noqa: E402
from onenode.progress import Failure  # noqa: E402
from stores import credentials, lifecycle, places  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(prog="stores", description="A registry and an S3-compatible server in the local cluster.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="build, import and start what is missing")
    commands.add_parser("down", help="remove them with all that they hold")
    commands.add_parser("status", help="show their pods and addresses")
    commands.add_parser("login", help="print shell lines after which oras and kubectl easel push reach the registry")
    commands.add_parser("secret", help="print a Secret, named store, that an ImageModel's secretRef may name")
    match parser.parse_args().command:
        case "up":
            lifecycle.ensure(Cluster())
        case "down":
            lifecycle.remove(Cluster())
        case "status":
            print(Cluster().kubectl("-n", places.NAMESPACE, "get", "pods,services"))
            print(f"registry  {places.HOST_REGISTRY} = {places.REGISTRY}\nS3        {places.HOST_S3} = {places.S3}")
        case "login":
            login()
        case "secret":
            print(json.dumps(credentials.registry_secret("store"), indent=1))


def login() -> None:
    credentials.read()
    for name, value in {"DOCKER_CONFIG": places.DOCKER_CONFIG, "SSL_CERT_FILE": places.AUTHORITY, "REGISTRY": places.HOST_REGISTRY}.items():
        print(f"export {name}={shlex.quote(str(value))}")
    print(f"export PATH={shlex.quote(str(stores_folder()))}:$PATH")


if __name__ == "__main__":
    try:
        main()
    except (Failure, FileNotFoundError) as failure:
        sys.exit(f"error: {failure}")
