"""Whatever a client sends, it gets an error that its SDK can read, and nothing else changes."""

import http.client
import json
from urllib.parse import urlparse

from easel import gateway
from promises.world import CLUSTER, GATEWAY, Promise, inference_pods

IMAGES = f"{GATEWAY}/v1/images/generations"


def body(**fields) -> bytes:
    return json.dumps({"model": "emoji", "prompt": "pizza", **fields}).encode()


class BadRequests(Promise):
    def restarts(self) -> dict:
        system = CLUSTER.get("pods", "-n", "easel-system")
        return {pod["metadata"]["name"]: [c["restartCount"] for c in pod["status"].get("containerStatuses", [])] for pod in system}

    def test_every_mistake_is_named_and_harms_nobody(self):
        before = self.restarts()
        cases = [
            (body(size="63x64"), 400, "size"),
            (body(size="128x128"), 400, "size"),
            (body(n=0), 400, "n"),
            (body(n=11), 400, "n"),
            (body(prompt="x" * 40_000), 400, "prompt"),
            (body(prompt=""), 400, "prompt"),
            (body(steps=101), 400, "steps"),
            (body(sede=1), 400, "sede"),
            (body(stream=True, partial_images=4), 400, "partial_images"),
            (body(adapters=[{"name": "nobody"}]), 400, "adapters"),
            (body(model="nobody"), 404, "model"),
            (b'{"prompt": ', 400, None),
            (b"[1]", 400, None),
            (b"\xff\xfe", 400, None),
            (b"", 400, None),
        ]
        for sent, status, param in cases:
            answer = gateway.call(IMAGES, sent)
            self.assertEqual((answer.status, answer.error["param"]), (status, param), (sent[:60], answer.body))
            self.assertTrue(answer.error["message"])
        self.assertEqual(self.restarts(), before)
        self.assertEqual(gateway.call(IMAGES, body()).status, 200)

    def test_a_hundred_megabytes_are_refused_without_being_kept(self):
        where = urlparse(GATEWAY)
        for chunked in (False, True):
            connection = http.client.HTTPConnection(where.hostname, where.port, timeout=30)
            chunk = b"x" * (1 << 20)
            headers = {"content-type": "application/json"}
            if not chunked:
                headers["content-length"] = str(100 << 20)
            try:
                connection.request("POST", "/v1/images/generations", (chunk for _ in range(100)), headers, encode_chunked=chunked)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the server need not read it all; its answer is there all the same
            answer = connection.getresponse()
            error = json.loads(answer.read())["error"]
            self.assertEqual((answer.status, error["code"]), (413, "body_too_large"))
            connection.close()

    def test_paths_methods_and_types_have_their_own_answers(self):
        self.assertEqual(gateway.call(f"{GATEWAY}/v2/nothing").error["code"], "unknown_url")
        self.assertEqual(gateway.call(IMAGES, method="GET").status, 405)
        self.assertEqual(gateway.call(IMAGES, b"prompt=pizza", "application/x-www-form-urlencoded").status, 415)

    def test_the_engine_port_is_closed_to_strangers(self):
        """The pod answers only a caller that proves its identity, and probes have a port that serves nothing else."""
        address = inference_pods()[0]["status"]["podIP"]
        operator = CLUSTER.get("pods", "-n", "easel-system", "-l", "app.kubernetes.io/name=easel-operator")
        self.assertTrue(operator)
        from onenode import network  # the host has no route to pods; the cluster's namespace does

        probe = lambda url: network.inside("python3", "-c", PROBE, url)  # noqa: E731
        self.assertIn("CERTIFICATE", probe(f"https://{address}:8443/engine/v1/report").upper())
        self.assertIn("200", probe(f"http://{address}:8081/readyz"))
        self.assertIn("404", probe(f"http://{address}:8081/metrics"))


PROBE = """
import ssl, sys, urllib.error, urllib.request
context = ssl._create_unverified_context()
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=5, context=context).status)
except urllib.error.HTTPError as error:
    print(error.code)
except Exception as error:
    print(error)
"""
