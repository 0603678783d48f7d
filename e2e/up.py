#!/usr/bin/env python3
"""Owns `make up`: from nothing to a picture, each step with its time.
It must not hold a step's work; that is in `easel` and `cluster`."""

import argparse
import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from easel import build, gateway, install, paths, toolchain  # noqa: E402
from easel.kube import Cluster, wait  # noqa: E402
from onenode import up  # noqa: E402
from onenode.progress import Failure, say, step  # noqa: E402

PROMPT = "pizza"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build Easel, start a cluster, install, and draw a picture.")
    parser.add_argument("--cluster", choices=("local", "current"), default="local",
                        help="local: made here from nothing; current: the one that kubectl points at")
    parser.add_argument("--operator-image", help="with --cluster current: repository:tag that its nodes can pull")
    parser.add_argument("--inference-image", help="with --cluster current: repository:tag that its nodes can pull")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--no-draw", action="store_true", help="stop after the installation")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.cluster == "current":
        current(options)
    else:
        local(options)


def local(options: argparse.Namespace) -> None:
    began = time.monotonic()
    toolchain.ensure()
    with up.exclusive():
        up.up()
    build.binaries()
    operator, inference = build.images(load=True)
    cluster = Cluster()
    install.charts(cluster, operator, inference)
    if options.no_draw:
        return
    install.examples(cluster)
    picture(install.GATEWAY, options.prompt)
    say("done", f"in {time.monotonic() - began:.0f} s")
    hints(install.GATEWAY, 'eval "$(python3 e2e/cluster/cluster.py env)"')


def current(options: argparse.Namespace) -> None:
    """Somebody else's cluster: asks before it changes anything."""
    cluster = Cluster(local=False)
    context = cluster.kubectl("config", "current-context").strip()
    server = cluster.kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
    if not options.operator_image or not options.inference_image:
        raise Failure("a cluster other than the local one pulls its images from a registry: build them with the Dockerfiles, push them, "
                      "and name them with OPERATOR_IMAGE=… INFERENCE_IMAGE=…")
    answer = input(f"Install Easel into namespace {install.NAMESPACE} of context '{context}' at {server}? [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise Failure("nothing was changed")
    install.charts(cluster, options.operator_image, options.inference_image, values=())
    if options.no_draw:
        return
    install.examples(cluster)
    with forwarded(cluster) as url:
        picture(url, options.prompt)
    hints(f"http://easel-gateway.{install.NAMESPACE}.svc", f"kubectl -n {install.NAMESPACE} port-forward service/easel-gateway 8080:80")


@contextlib.contextmanager
def forwarded(cluster: Cluster):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["kubectl", "-n", install.NAMESPACE, "port-forward", "service/easel-gateway", f"{port}:80"]
    forward = subprocess.Popen(command, env=cluster.environment, stdout=subprocess.DEVNULL)
    try:
        wait("the gateway is forwarded", lambda: answers(port), 20)
        yield f"http://127.0.0.1:{port}"
    finally:
        forward.terminate()
        forward.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def picture(url: str, prompt: str) -> None:
    with step("prompt", f"'{prompt}' drawn"):
        answer = gateway.draw(url, model="emoji", prompt=prompt, seed=7)
    if answer.status != 200:
        raise Failure(f"the gateway answered {answer.status}: {answer.body.decode(errors='replace')[:500]}")
    paths.PICTURES.mkdir(parents=True, exist_ok=True)
    path = paths.PICTURES / f"{prompt.replace(' ', '-')[:40]}.png"
    path.write_bytes(answer.pictures()[0])
    say("picture", str(path))
    say("", f"drawn by pool {answer.headers.get('x-easel-pool')}, cost ${answer.headers.get('x-easel-cost-usd')}")


def hints(url: str, first: str) -> None:
    print(f"""
Gateway: {url}

What to try next:
  {first}
  kubectl get imagemodels,gpupools,pods -A
  curl -s {url}/v1/images/generations -H 'content-type: application/json' \\
    -d '{{"model": "emoji", "prompt": "red heart"}}' | python3 -c 'import base64,json,sys; open("heart.png","wb").write(base64.b64decode(json.load(sys.stdin)["data"][0]["b64_json"]))'
  kubectl scale imagemodel emoji --replicas=2
  make test      proves all of it
  make down      leaves nothing running""")


if __name__ == "__main__":
    try:
        main()
    except (Failure, AssertionError) as failure:
        sys.exit(f"error: {failure}")
    except subprocess.CalledProcessError as failure:
        sys.exit(f"error: {failure}")
