"""Demand decides how many replicas hold a model: none while nobody asks, one for the first request, more under load."""

import threading
import time

from easel import gateway
from easel.kube import wait
from promises.world import CLUSTER, GATEWAY, Promise, model, pool, pods, until

# Longer than the window of demand and the patience after it, together.
DOWN = 240


class Scaling(Promise):
    def test_the_first_request_wakes_a_model_load_gives_it_more_replicas_and_silence_takes_them_all(self):
        self.create(pool("nap", cpu="100m"), model("sleeper", pools=["nap"], replicas={"min": 0, "max": 4}))
        until("sleeper", "Placed", "False", "Asleep")
        self.assertEqual(self.replicas(), 0, "nobody has asked")

        begun = time.monotonic()
        answer = self.draw(deadline=90)
        self.assertEqual(answer.status, 200, answer.body)
        print(f"from no pod to a picture: {time.monotonic() - begun:.1f} s", flush=True)
        self.assertEqual(self.replicas(), 1)

        with Load(self.draw) as load:
            wait("four replicas hold it", lambda: self.ready() == 4, 120)
        self.assertEqual(load.failures, [], "nothing is lost while it grows")
        self.assertGreater(load.drawn, 0)

        wait("it sleeps again", lambda: self.replicas() == 0, DOWN)
        until("sleeper", "Placed", "False", "Asleep")
        self.assertEqual(self.draw(deadline=90).status, 200, "and wakes again")

    def test_two_models_take_turns_in_one_pod_that_has_room_for_one(self):
        self.create(pool("nook", cpu="200m", memory="300Mi", limits={"replicas": 1}, overcommit=2),
                    model("ebb", pools=["nook"]), model("flow", pools=["nook"]))
        for name in ("ebb", "flow"):
            until(name, "Ready", "True", timeout=120)
        self.assertEqual({until(name, "Placed", "True")["reason"] for name in ("ebb", "flow")}, {"PlacedInTurns"})
        self.assertEqual(len(pods("app.kubernetes.io/name=easel-inference,easel.dev/pool=nook")), 1)
        drawn = {name: [gateway.draw(GATEWAY, model=name, prompt="pizza", seed=3, response_format="b64_json") for _ in range(2)] for name in ("ebb", "flow")}
        self.assertEqual({answer.status for answers in drawn.values() for answer in answers}, {200})
        again = gateway.draw(GATEWAY, model="ebb", prompt="pizza", seed=3)
        self.assertEqual(again.status, 200, "the first is still served after the second")

    def draw(self, deadline: float = 60):
        headers = {"x-easel-deadline-ms": str(int(deadline * 1000))}
        return gateway.draw(GATEWAY, model="sleeper", prompt="pizza", steps=40, n=4, headers=headers)

    def replicas(self) -> int:
        return len(pods("app.kubernetes.io/name=easel-inference,easel.dev/pool=nap"))

    def ready(self) -> int:
        return CLUSTER.get("imagemodel", "sleeper", "-n", "default")["status"].get("readyReplicas", 0)


class Load:
    """Ten clients that ask again and again until the end of the block."""

    CLIENTS = 10

    def __init__(self, draw):
        self.draw, self.drawn, self.failures, self.over = draw, 0, [], threading.Event()
        self.clients = [threading.Thread(target=self.ask) for _ in range(self.CLIENTS)]

    def ask(self) -> None:
        while not self.over.is_set():
            answer = self.draw()
            if answer.status == 200:
                self.drawn += 1
            else:
                self.failures.append((answer.status, answer.body[:200]))

    def __enter__(self):
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for client in self.clients:
            client.join()
