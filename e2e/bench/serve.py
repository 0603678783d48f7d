#!/usr/bin/env python3
"""Owns `make bench-serve`: the share of pictures that come in time under Poisson arrivals, from our pod and from diffusers behind Ray
Serve and LitServe, one after the other on the same machine. It must not know how anybody serves; a server is a process and a coroutine."""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "inference-pod" / "goldens"))

from bench import arrivals, machine, peers, table  # noqa: E402
from easel import build, paths, toolchain  # noqa: E402
from onenode.progress import Failure, say  # noqa: E402

HERE = Path(__file__).resolve().parent
FOLDER = paths.ROOT / "target" / "bench"
RESULTS = FOLDER / "serve.json"
TITLES = {"litserve": "diffusers behind LitServe", "ray": "diffusers behind Ray Serve", "easel": "**Easel**, over mTLS"}
ENOUGH = 0.9
LADDER = 1.25
START_SECONDS = 120
PORT = 18_473


def main() -> None:
    options = arguments()
    toolchain.ensure()
    interpreter = peers.servers()
    if Path(sys.prefix) != interpreter.parent.parent:
        os.execv(interpreter, [interpreter, *sys.argv])  # it has the HTTP client
    FOLDER.mkdir(parents=True, exist_ok=True)
    binary = options.pod or build.inference()
    found, solo = {}, None
    for name in options.servers:
        with serving(name, binary, interpreter, options.threads) as server:
            found[name] = asyncio.run(measure(name, server, solo, options))
        solo = solo or found[name]["solo"]
    report(found, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure goodput under Poisson arrivals beside diffusers behind two servers.")
    parser.add_argument("--servers", nargs="+", choices=list(TITLES), default=list(TITLES), help="the first one's time alone is everybody's measure")
    parser.add_argument("--seconds", type=float, default=30, help="of arrivals at each rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--pod", type=Path, help="the binary easel-inference, when it is built already")
    return parser.parse_args()


@contextmanager
def serving(name: str, binary: Path, interpreter: Path, threads: int):
    """What `client` needs to reach the server, while it runs."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    if name == "easel":
        from local_pod import LocalPod
        os.environ.update(environment, GLIBC_TUNABLES="glibc.malloc.hugetlb=1", EASEL_MAX_BATCH="8", EASEL_THREADS=str(threads), EASEL_QUEUE_LIMIT="4096")
        with LocalPod(binary, paths.MODEL, build.digest()) as pod:
            yield pod
        return
    with open(FOLDER / f"{name}.log", "wb") as log:
        process = subprocess.Popen([interpreter, HERE / f"serve_{name}.py", paths.MODEL, str(threads), str(PORT)], env=environment, stdout=log, stderr=log,
                                   start_new_session=True)
    try:
        yield process
    finally:
        if name == "ray":
            subprocess.run([interpreter.parent / "ray", "stop", "--force"], capture_output=True, check=False)
        os.killpg(process.pid, 9)
        process.wait()


@asynccontextmanager
async def client(name: str, server):
    """A coroutine that draws one picture, and says whether it came."""
    import aiohttp
    if name == "easel":
        import ssl
        from local_pod import DOMAIN, MODEL
        context = ssl.create_default_context(cafile=server.files / "ca.crt")
        context.load_cert_chain(server.files / "gateway.crt", server.files / "gateway.key")
        address, more = f"https://127.0.0.1:{server.port}/v1/images/generations", {"ssl": context, "server_hostname": f"v4-127-0-0-1.{DOMAIN}"}

        def body(asked: arrivals.Asked) -> dict:
            return {"model": MODEL, "prompt": asked.prompt, "size": asked.size, "steps": asked.steps, "seed": asked.seed, "guidance_scale": 3.0}
    else:
        address, more = f"http://127.0.0.1:{PORT}/", {}

        def body(asked: arrivals.Asked) -> dict:
            return {"prompt": asked.prompt, "size": asked.size, "steps": asked.steps, "seed": asked.seed}

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=300)) as session:
        async def draw(asked: arrivals.Asked) -> bool:
            try:
                async with session.post(address, json=body(asked), **more) as answer:
                    return len(await answer.read()) > 0 and answer.status == 200
            except (aiohttp.ClientError, TimeoutError):
                return False

        until = time.monotonic() + START_SECONDS
        while not await draw(arrivals.Asked("a cat", "64x64", 1, 0)):
            if time.monotonic() > until:
                raise Failure(f"{name} draws nothing after {START_SECONDS} s; see {FOLDER}/{name}.log")
            await asyncio.sleep(0.5)
        yield draw


async def measure(name: str, server, solo: dict | None, options: argparse.Namespace) -> dict:
    """Rates from a third of what one picture after the other gives, each a quarter more, until too few come in time."""
    async with client(name, server) as draw:
        own = await arrivals.alone(draw)
        measure_by = solo or own
        mean = sum(measure_by.values()) / len(measure_by)
        say(name, f"alone {mean:.3f} s in the mean of the measure, {sum(own.values()) / len(own):.3f} s of its own")
        rate, steps, poor = 1 / (3 * mean), [], 0
        while poor < 2 and len(steps) < 20:
            answers = await arrivals.storm(draw, rate, max(options.seconds, 20 / rate), options.seed)
            steps.append({"rate": rate, "asked": len(answers), "good": arrivals.good(answers, measure_by), "p50": arrivals.slowness(answers, measure_by, 0.5),
                          "p99": arrivals.slowness(answers, measure_by, 0.99), "refused": sum(not one.drawn for one in answers)})
            say(name, f"{rate:.2f}/s: {steps[-1]['good']:.0%} of {len(answers)} in time, p99 {steps[-1]['p99']:.1f} times alone")
            poor = poor + 1 if steps[-1]["good"] < ENOUGH else 0
            rate *= LADDER
        return {"solo": measure_by, "own_solo": own, "rates": steps}


def holds(found: dict) -> float:
    """The highest rate at which enough came in time, and below which enough always did."""
    rate = 0.0
    for one in found["rates"]:
        if one["good"] < ENOUGH:
            break
        rate = one["rate"]
    return rate


def report(found: dict, options: argparse.Namespace) -> None:
    peers_hold = max((holds(one) for name, one in found.items() if name != "easel"), default=0)
    rows = []
    for name, one in found.items():
        # Every ladder has the same rungs, for the measure is the same.
        here = next((rung for rung in one["rates"] if rung["rate"] >= peers_hold * LADDER * 0.999), one["rates"][-1])
        rows.append((TITLES[name], f"{sum(one['own_solo'].values()) / len(one['own_solo']):.3f} s", f"{holds(one):.2f}/s", f"{here['good']:.0%}", f"{here['p50']:.1f}", f"{here['p99']:.1f}"))
    print(f"\n{machine.cores()}, {options.threads} threads, seed {options.seed}, {options.seconds:.0f} s of arrivals a rate, {time.strftime('%d %B %Y')}\n")
    print(table.markdown(("", "alone, mean", f"load with {ENOUGH:.0%} in time", f"in time at {peers_hold * LADDER:.2f}/s, where the best peer falls below",
                          "p50 there, times alone", "p99 there, times alone"), rows))
    for one in found.values():
        for key in ("solo", "own_solo"):
            one[key] = {f"{size}, {steps} steps": seconds for (size, steps), seconds in one[key].items()}
    RESULTS.write_text(json.dumps({"date": time.strftime("%Y-%m-%d"), "cores": machine.cores(), "machine": platform.machine(), "command": sys.argv[1:],
                                   "threads": options.threads, "servers": peers.SERVERS, "found": found}, indent=1))
    say("results", str(RESULTS))


if __name__ == "__main__":
    try:
        main()
    except (Failure, AssertionError, subprocess.CalledProcessError) as failure:
        sys.exit(f"error: {failure}")
