"""Certificates decide who may do what to a pod, and are replaced down to their authority while clients draw."""

import base64
import concurrent.futures
import json
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from easel import gateway
from easel.kube import wait
from onenode import network
from promises.world import CLUSTER, GATEWAY, SYSTEM, Promise, inference_pods, pool

RESIDENCY, REPORT, HANDOVER, DRAW, MODELS = "/engine/v1/residency", "/engine/v1/report", "/engine/v1/handover", "/v1/images/generations", "/v1/models"
STALE = json.dumps({"generation": {"term": 0, "sequence": 0}, "models": []})
# The local kubelet brings a changed Secret within 15 s, and the pod looks every 10 s.
WAITS = ("EASEL_CA_SPREAD_SECONDS=45", "EASEL_CA_GRACE_SECONDS=45")


def secret(name: str) -> dict[str, bytes]:
    found = CLUSTER.get("secret", name, "-n", SYSTEM)
    return {key: base64.b64decode(value) for key, value in found["data"].items()} if found else {}


class Identity(Promise):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.operator, self.gateway = self.keep("easel-identity-operator"), self.keep("easel-identity-gateway")
        self.pod = self.keep("easel-pool-cpu-tls")

    def keep(self, name: str, called: str | None = None) -> Path:
        """A Secret's certificate, key and authorities as files."""
        return self.store(called or name, **{key.replace(".", "_"): value for key, value in secret(name).items()})

    def store(self, name: str, tls_crt: bytes, tls_key: bytes, ca_crt: bytes) -> Path:
        folder = self.folder / name
        folder.mkdir(mode=0o700)
        for file, content in (("tls.crt", tls_crt), ("tls.key", tls_key), ("ca.crt", ca_crt)):
            (folder / file).write_bytes(content)
        return folder

    def ask(self, caller: Path | None, method: str, path: str, body: str = "") -> dict:
        """What the pod answers on its engine port: a status and an error's code, or why it was not heard."""
        pod = inference_pods()[0]
        address, workload = pod["status"]["podIP"], pod["metadata"]["labels"]["easel.dev/workload"]
        name = f"v4-{address.replace('.', '-')}.{workload}.{SYSTEM}.pods.easel.internal"
        # The host has no route to pods; the cluster's namespace does. Everybody trusts what the operator trusts.
        said = network.inside("python3", "-c", ASK, str(self.operator / "ca.crt"), str(caller or ""), address, name, method, path, body)
        return json.loads(said)

    def assert_forbidden(self, answer: dict):
        self.assertEqual((answer.get("status"), answer.get("code")), (403, "forbidden"), answer)

    def assert_not_heard(self, answer: dict):
        self.assertIn("failure", answer)

    def test_only_the_operator_says_what_a_pod_holds(self):
        for caller in (self.gateway, self.pod):
            self.assert_forbidden(self.ask(caller, "PUT", RESIDENCY, STALE))
        self.assert_not_heard(self.ask(None, "PUT", RESIDENCY, STALE))
        answer = self.ask(self.operator, "PUT", RESIDENCY, STALE)
        self.assertEqual((answer["status"], answer["code"]), (409, "stale_generation"), "it may speak, and is too late")

    def test_only_gateways_send_work(self):
        prompt = json.dumps({"model": "default/nobody", "prompt": "pizza"})
        for caller in (self.operator, self.pod):
            self.assert_forbidden(self.ask(caller, "POST", DRAW, prompt))
        self.assert_not_heard(self.ask(None, "POST", DRAW, prompt))
        self.assertEqual(self.ask(self.gateway, "POST", DRAW, prompt)["status"], 404)
        self.assert_forbidden(self.ask(self.pod, "GET", MODELS))
        self.assert_forbidden(self.ask(self.pod, "GET", REPORT))
        for caller in (self.operator, self.gateway):
            self.assertEqual(self.ask(caller, "GET", REPORT)["status"], 200)

    def test_only_gateways_hand_requests_over(self):
        self.create(pool("stranger"))
        wait("the other pool's certificate", lambda: secret("easel-pool-stranger-tls"), 60)
        for caller in (self.operator, self.pod, self.keep("easel-pool-stranger-tls")):
            self.assert_forbidden(self.ask(caller, "POST", HANDOVER))
        answer = self.ask(self.gateway, "POST", HANDOVER)
        self.assertEqual(answer["status"], 415, "what is handed over comes in frames")

    def test_a_certificate_that_somebody_made_is_not_heard(self):
        made = self.folder / "made"
        made.mkdir()
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
                        "-subj", "/CN=easel operator", "-addext", "subjectAltName=URI:spiffe://easel.internal/operator",
                        "-keyout", made / "tls.key", "-out", made / "tls.crt"], check=True, capture_output=True)
        self.assert_not_heard(self.ask(made, "PUT", RESIDENCY, STALE))

    def test_the_authority_is_replaced_on_demand_without_a_lost_request(self):
        self.addCleanup(self.configure, *(f"{name.partition('=')[0]}-" for name in WAITS))
        self.configure(*WAITS)
        before, uids = secret("easel-ca"), {pod["metadata"]["uid"] for pod in inference_pods()}
        statuses, stop = [], threading.Event()

        def draw():
            while not stop.is_set():
                statuses.append(gateway.draw(GATEWAY, model="emoji", prompt="sun", steps=2).status)

        def replaced():
            now = secret("easel-ca")
            return now["tls.crt"] != before["tls.crt"] and not {"next.crt", "former.crt"} & set(now)

        with concurrent.futures.ThreadPoolExecutor() as executor:
            clients = [executor.submit(draw) for _ in range(2)]
            try:
                word = f"{time.time():.0f}"
                CLUSTER.kubectl("-n", SYSTEM, "annotate", "secret", "easel-ca", f"easel.dev/rotate={word}", "--overwrite")
                wait("another authority stands alone", replaced, 300, interval=2)
                asked = len(statuses)
                wait("clients draw on", lambda: len(statuses) > asked + 4, 60)
            finally:
                stop.set()
            for client in clients:
                client.result()
        self.assertEqual(set(statuses), {200})
        self.assertEqual({pod["metadata"]["uid"] for pod in inference_pods()}, uids, "no pod was restarted for it")
        self.assertNotIn(before["tls.key"], secret("easel-ca").values(), "a key that signs no more is kept nowhere")
        self.former_opens_no_door()

    def former_opens_no_door(self):
        former, now = self.operator, self.keep("easel-identity-operator", "operator-now")
        self.operator = now  # from here on, whose authorities are trusted
        def forgotten():
            return "failure" in self.ask(former, "GET", MODELS)
        wait("certificates of the former authority are refused", forgotten, 60, interval=2)
        self.assertEqual(self.ask(now, "GET", MODELS)["status"], 200)
        for name in ("easel-identity-gateway", "easel-pool-cpu-tls"):
            self.assertEqual(secret(name)["ca.crt"], secret("easel-ca")["ca.crt"], name)

    def configure(self, *environment: str):
        CLUSTER.kubectl("-n", SYSTEM, "set", "env", "deployment/easel-operator", *environment)
        CLUSTER.kubectl("-n", SYSTEM, "rollout", "status", "deployment/easel-operator", "--timeout=180s")


ASK = """
import http.client, json, pathlib, socket, ssl, sys
authorities, caller, address, name, method, path, body = sys.argv[1:]
context = ssl.create_default_context(cafile=authorities)
if caller:
    context.load_cert_chain(pathlib.Path(caller) / "tls.crt", pathlib.Path(caller) / "tls.key")
try:
    connection = http.client.HTTPSConnection(name, 8443, timeout=20, context=context)
    connection.sock = context.wrap_socket(socket.create_connection((address, 8443), 20), server_hostname=name)
    connection.request(method, path, body.encode(), {"content-type": "application/json"})
    answer = connection.getresponse()
    error = {} if answer.status < 300 else json.loads(answer.read())["error"]
    print(json.dumps({"status": answer.status, "code": error.get("code")}))
except OSError as error:
    print(json.dumps({"failure": str(error) or type(error).__name__}))
except http.client.HTTPException as error:
    print(json.dumps({"failure": type(error).__name__}))
"""
