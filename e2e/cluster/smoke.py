#!/usr/bin/env python3
"""Owns the proof that the running cluster is a real one: each check is a promise that other tests build on, with a control that would expose a check that cannot fail.
It must not know Easel; it leaves nothing behind."""

import json
import re
import secrets
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import oci_image  # noqa: E402
import smoke_objects as objects  # noqa: E402
from onenode import api, build, images, network, settings, up  # noqa: E402
from onenode.progress import Failure  # noqa: E402

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def kubectl(*arguments: str, stdin: object = None, kubeconfig: Path = settings.KUBECONFIG, check: bool = True, timeout: float = 30) -> str:
    """Standard output; with check=False, standard output and error of a command that may fail."""
    argv = [str(build.binary("kubectl")), f"--kubeconfig={kubeconfig}", f"--server={settings.API_URL}", "-n", objects.NAMESPACE, *arguments]
    text = None if stdin is None else json.dumps(stdin)
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout if check else done.stdout + done.stderr


def get(*arguments: str) -> dict:
    return json.loads(kubectl("get", *arguments, "-o", "json"))


def in_pod(*arguments: str, check: bool = True) -> str:
    return kubectl("exec", "client", "--", "/probe", *arguments, check=check)


def fetch(url: str) -> str:
    with DIRECT.open(url, timeout=5) as response:
        return response.read().decode()


def eventually(what: str, condition, timeout: float = 20):
    """The first true answer of `condition`."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout:.0f} s"
        time.sleep(0.1)
    return answer


def node_is_ready_and_of_the_pinned_version():
    assert api.node_ready(), "the node's condition Ready is not True"
    version = get("node", settings.NODE)["status"]["nodeInfo"]["kubeletVersion"]
    assert version == settings.module_version(build.KUBERNETES), version


def deployment_becomes_ready():
    kubectl("rollout", "status", "deployment/web", "--timeout=30s", timeout=40)
    kubectl("wait", "pod/client", "--for=condition=Ready", "--timeout=20s")
    assert get("deployment", "web")["status"]["readyReplicas"] == 2


def pods_reach_each_other_by_address():
    for pod in get("pods", "-l", "app=web")["items"]:
        answer = in_pod("get", f"http://{pod['status']['podIP']}:8080/")
        assert answer == f"hello from {pod['metadata']['name']}\n", answer


def service_spreads_over_all_pods_from_inside():
    address = get("service", "web")["spec"]["clusterIP"]
    seen: set[str] = set()

    def both_answered() -> bool:
        seen.add(in_pod("get", f"http://{address}/"))
        return len(seen) == 2

    eventually("answers of both pods", both_answered, 30)


def name_resolves_to_the_service_and_an_unknown_one_does_not():
    address = get("service", "web")["spec"]["clusterIP"]
    for name in ("web", f"web.{objects.NAMESPACE}.svc.{settings.DNS_DOMAIN}"):
        assert in_pod("resolve", name).split() == [address], name
    refusal = in_pod("resolve", "absent", check=False)
    assert "no such host" in refusal, refusal


def api_server_answers_pods_at_its_service():
    answer = in_pod("get", f"https://{settings.API_SERVICE}/version", check=False)
    assert "certificate signed by unknown authority" in answer, answer


def node_port_answers_the_host_on_loopback_and_directly():
    port = settings.EXPOSED["smoke"][0]
    assert fetch(f"http://127.0.0.1:{port}/").startswith("hello from web-")
    assert fetch(f"http://{settings.LINK_ADDRESS}:{objects.NODE_PORT}/").startswith("hello from web-")


def nothing_outside_is_reachable():
    assert "network is unreachable" in in_pod("get", "http://192.0.2.1/", check=False)
    assert "default" not in network.inside("ip", "route"), "the namespace has a way out"


def logs_show_what_the_container_wrote():
    marker = secrets.token_hex(8)
    in_pod("get", f"http://127.0.0.1:8080/{marker}")
    eventually("the line in the log", lambda: f"GET /{marker}" in kubectl("logs", "client"), 5)
    assert f"GET /{marker}x" not in kubectl("logs", "client")


def exec_passes_output_and_exit_status():
    done = in_pod("get", "http://127.0.0.1:1/", check=False)
    assert "connection refused" in done and "exit code 1" in done, done


def port_forward_reaches_the_pod():
    argv = [str(build.binary("kubectl")), f"--kubeconfig={settings.KUBECONFIG}", "-n", objects.NAMESPACE, "port-forward", "pod/client", ":8080"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as forward:
        try:
            port = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline()).group(1)
            assert fetch(f"http://127.0.0.1:{port}/") == "hello from client\n"
        finally:
            forward.terminate()


def memory_limit_kills_only_who_exceeds_it():
    def ended():
        state = get("pod", "hungry")["status"].get("containerStatuses", [{}])[0].get("state", {})
        return state.get("terminated")

    assert eventually("the end of the hungry pod", ended)["reason"] == "OOMKilled", ended()
    eventually("the modest pod holding its memory", lambda: "holding 32 MiB" in kubectl("logs", "modest", check=False))
    assert get("pod", "modest")["status"]["phase"] == "Running"


def events_tell_a_pods_story():
    def reasons():
        events = get("events", "--field-selector", "involvedObject.name=client")["items"]
        return {"Scheduled", "Created", "Started"} <= {e["reason"] for e in events}

    eventually("Scheduled, Created and Started", reasons)


def kubelet_may_write_its_own_node_only():
    def label(node: str, value: str | None) -> tuple[int, bytes]:
        patch = {"metadata": {"labels": {"smoke": value}}}
        return api.request("PATCH", f"/api/v1/nodes/{node}", patch, "application/merge-patch+json", identity="kubelet")

    assert label(settings.NODE, "own")[0] == 200
    assert label(settings.NODE, None)[0] == 200
    status, answer = label("easel-smoke-stranger", "foreign")
    assert status == 403 and b"is not allowed to modify node" in answer, (status, answer)
    assert "smoke" not in get("node", "easel-smoke-stranger")["metadata"].get("labels", {})


def service_account_may_only_what_a_role_grants():
    token = kubectl("create", "token", "nobody").strip()

    def answer() -> int:
        return api.request("GET", f"/api/v1/namespaces/{objects.NAMESPACE}/pods", token=token)[0]

    assert answer() == 403, answer()
    kubectl("create", "rolebinding", "nobody-views", "--clusterrole=view", f"--serviceaccount={objects.NAMESPACE}:nobody")
    eventually("the granted right", lambda: answer() == 200, 10)


def custom_kind_refuses_what_its_rule_forbids():
    kubectl("wait", "crd/ranges.smoke.easel.dev", "--for=condition=Established", "--timeout=10s")
    eventually("the kind's discovery", lambda: "created" in kubectl("create", "-f", "-", stdin=objects.custom_object("good", 1, 2), check=False), 10)
    refusal = kubectl("create", "-f", "-", stdin=objects.custom_object("bad", 2, 1), check=False)
    assert "least is above most" in refusal, refusal


def deleting_an_owner_deletes_what_it_owns():
    kubectl("create", "-f", "-", stdin=objects.config_map("owner"))
    kubectl("create", "-f", "-", stdin=objects.config_map("owned", get("configmap", "owner")["metadata"]["uid"]))
    kubectl("create", "-f", "-", stdin=objects.config_map("free"))
    kubectl("delete", "configmap", "owner")
    eventually("the owned object's end", lambda: "NotFound" in kubectl("get", "configmap", "owned", check=False))
    assert get("configmap", "free")["metadata"]["name"] == "free"


def service_without_pods_stops_answering():
    kubectl("delete", "deployment", "web")
    eventually("the pods' end", lambda: not get("pods", "-l", "app=web")["items"])

    def silent() -> bool:
        try:
            return not fetch(f"http://127.0.0.1:{settings.EXPOSED['smoke'][0]}/")
        except OSError:
            return True

    eventually("a refused connection", silent, 10)


CHECKS = (
    node_is_ready_and_of_the_pinned_version, deployment_becomes_ready, pods_reach_each_other_by_address,
    service_spreads_over_all_pods_from_inside, name_resolves_to_the_service_and_an_unknown_one_does_not,
    api_server_answers_pods_at_its_service, node_port_answers_the_host_on_loopback_and_directly, nothing_outside_is_reachable,
    logs_show_what_the_container_wrote, exec_passes_output_and_exit_status, port_forward_reaches_the_pod,
    memory_limit_kills_only_who_exceeds_it, events_tell_a_pods_story, kubelet_may_write_its_own_node_only,
    service_account_may_only_what_a_role_grants, custom_kind_refuses_what_its_rule_forbids,
    deleting_an_owner_deletes_what_it_owns, service_without_pods_stops_answering,
)


def prepare() -> None:
    program = oci_image.Layer("probe", (oci_image.File(build.binary("probe"), "/probe"),))
    image = oci_image.Image(objects.PROBE, ("/probe",), (oci_image.base_layer(), program))
    with up.exclusive():
        images.load(oci_image.build(image, settings.VAR / "images" / "probe.tar", settings.CACHE / "layers").archive)
    clean_up()
    kubectl("create", "namespace", objects.NAMESPACE)
    for manifest in (objects.everything(), objects.stranger_node(), objects.custom_kind()):
        kubectl("create", "-f", "-", stdin=manifest)


def clean_up() -> None:
    kubectl("delete", "--ignore-not-found", "node/easel-smoke-stranger", "crd/ranges.smoke.easel.dev",
            f"namespace/{objects.NAMESPACE}", "--wait=true", timeout=60)


def main() -> int:
    began, failed = time.monotonic(), 0
    prepare()
    for check in CHECKS:
        start = time.monotonic()
        try:
            check()
            outcome = "ok  "
        except Exception as error:  # a broken check must not hide the others
            failed += 1
            outcome = f"FAIL [{type(error).__name__}: {error}]"[:600]
        print(f"{outcome} {check.__name__.replace('_', ' ')} ({time.monotonic() - start:.1f} s)", flush=True)
    clean_up()
    print(f"{len(CHECKS) - failed} passed, {failed} failed ({time.monotonic() - began:.1f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failure, AssertionError) as failure:
        sys.exit(f"error: {failure}\n0 passed, {len(CHECKS)} failed")
