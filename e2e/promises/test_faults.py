"""Pods, leaders and Deployments go away; clients get their pictures all the same."""

import concurrent.futures
import io
import time

from PIL import Image

from easel import gateway
from easel.kube import wait
from promises.world import CLUSTER, GATEWAY, LONG, SYSTEM, Promise, inference_pods, kill, lease, model, pods, until


class Faults(Promise):
    def test_a_pod_that_dies_during_a_request_costs_time_and_no_picture(self):
        [victim] = inference_pods()
        with concurrent.futures.ThreadPoolExecutor() as executor:
            future = executor.submit(gateway.draw, GATEWAY, model="emoji", prompt="rocket", seed=21, **LONG)
            time.sleep(1.0)  # the request is being drawn: it takes several times as long
            self.assertFalse(future.done(), "the request must still be running when its pod dies")
            kill(victim)
            answer = future.result(timeout=150)
        self.assertEqual(answer.status, 200, answer.body[:500])
        self.assertEqual(len(answer.pictures()), LONG["n"])
        self.assertGreaterEqual(int(answer.headers["x-easel-attempts"]), 2)
        self.assertNotIn(victim["metadata"]["uid"], [pod["metadata"]["uid"] for pod in inference_pods()])
        untouched = gateway.draw(GATEWAY, model="emoji", prompt="rocket", seed=21, steps=LONG["steps"])
        pixels = lambda png: Image.open(io.BytesIO(png)).tobytes()  # noqa: E731
        difference = max(abs(a - b) for a, b in zip(pixels(answer.pictures()[0]), pixels(untouched.pictures()[0])))
        self.assertLessEqual(difference, 2, "the retried request drew the picture of its seed")

    def test_another_leader_plans_within_ten_seconds_of_a_crash(self):
        wait("two operators", lambda: len(pods("app.kubernetes.io/name=easel-operator")) == 2, 60)
        before = lease()
        holder = next(p for p in pods("app.kubernetes.io/name=easel-operator") if p["metadata"]["name"] in before["holderIdentity"])
        kill(holder)
        began = time.monotonic()
        self.create(model("after-crash", replicas={"min": 0}))
        until("after-crash", "Placed", "False", "Parked", timeout=30)
        took = time.monotonic() - began
        self.assertNotEqual(lease()["holderIdentity"], before["holderIdentity"])
        self.assertGreater(lease()["leaseTransitions"], before["leaseTransitions"])
        self.assertLess(took, 10)
        self.assertEqual(gateway.draw(GATEWAY, model="emoji", prompt="star").status, 200)

    def test_a_deployment_that_is_deleted_comes_back_and_serves(self):
        deployment = inference_pods()[0]["metadata"]["labels"]["easel.dev/workload"]
        uid = CLUSTER.get("deployment", deployment, "-n", SYSTEM)["metadata"]["uid"]
        CLUSTER.kubectl("-n", SYSTEM, "delete", "deployment", deployment, "--wait=false")
        def back():
            found = CLUSTER.get("deployment", deployment, "-n", SYSTEM)
            return found and found["metadata"]["uid"] != uid and found.get("status", {}).get("readyReplicas")
        wait("the Deployment is back", back, 60)
        self.assertEqual(gateway.draw(GATEWAY, model="emoji", prompt="star").status, 200)

    def test_a_change_of_the_pool_rolls_its_pods_without_a_lost_request(self):
        before = {pod["metadata"]["uid"] for pod in inference_pods()}
        self.addCleanup(CLUSTER.kubectl, "patch", "gpupool", "cpu", "--type=merge", "-p", '{"spec":{"precision":null}}')
        CLUSTER.kubectl("patch", "gpupool", "cpu", "--type=merge", "-p", '{"spec":{"precision":"bf16"}}')
        outcomes = []
        def rolled():
            outcomes.append(gateway.draw(GATEWAY, model="emoji", prompt="sun", steps=5).status)
            now = {pod["metadata"]["uid"] for pod in inference_pods()}
            return now and not now & before
        wait("every pod is new", rolled, 120)
        self.assertEqual(set(outcomes), {200}, outcomes)
