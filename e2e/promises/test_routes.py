"""Clients call a route by its name; what it can't do is refused at apply or has a reason in its status."""

from easel import gateway
from promises.world import CLUSTER, GATEWAY, Promise, model, route, until

LIVE = {"name": "live", "latencyTarget": "60s", "priority": "High"}


class Routes(Promise):
    def test_contradictions_are_refused_at_apply_with_a_sentence(self):
        edits = [
            ({"backends": [{"model": "emoji", "weight": 0}]}, "at least one backend must have a weight above 0"),
            ({"defaultClass": "live"}, "defaultClass must be the name of one of classes"),
            ({"classes": [{**LIVE, "latencyTarget": "0s"}]}, "latencyTarget must be more than 0"),
            ({"classes": [{**LIVE, "maxUsdPerImage": "0"}]}, "maxUsdPerImage must be more than 0"),
            ({"classes": [{**LIVE, "overflow": "Degrade"}]}, "overflow: Degrade needs something to degrade to"),
            ({"classes": [{**LIVE, "degrade": {"minSteps": 4}}]}, "degrade says how far overflow: Degrade may go"),
            ({"classes": [{**LIVE, "overflow": "Degrade", "degrade": {}}]}, "degrade needs minSteps, minTier or both"),
            ({"classes": [{**LIVE, "overflow": "Degrade", "degrade": {"minSteps": 4, "minTier": 9}}]}, "degrade.minTier is above the tier of every backend"),
            ({"tenants": [{"name": "web", "quotas": [{"window": "1h"}]}]}, "a quota needs at least one of"),
            ({"tenants": [{"name": "web", "quotas": [{"window": "1s", "images": 1}]}]}, "window is at least 1m"),
        ]
        for spec, sentence in edits:
            self.assertIn(sentence, CLUSTER.refuse(route("bad", "emoji", **spec)), spec)
        self.assertIsNone(CLUSTER.get("imageroute", "bad", "-n", "default"))

    def test_clients_are_answered_by_the_backend_that_exists_and_the_other_is_named(self):
        self.create(route("paint", "emoji", "nobody", model="paint-1", classes=[LIVE], defaultClass="live"))
        until("paint", "Ready", "True", of="imageroute")
        self.assertIn("nobody", until("paint", "ResolvedRefs", "False", "BackendNotFound", of="imageroute")["message"])
        answer = gateway.draw(GATEWAY, model="paint-1", prompt="pizza")
        self.assertEqual((answer.status, answer.headers["x-easel-model"]), (200, "default/emoji"), answer.body)
        answer = gateway.draw(GATEWAY, model="default/paint-1", prompt="pizza", headers={"x-easel-class": "nothing"})
        self.assertEqual((answer.status, answer.error["code"]), (400, "unknown_class"))
        self.assertIn("live", answer.error["message"])
        listed = gateway.call(f"{GATEWAY}/v1/models").json()["data"]
        self.assertIn("paint-1", [entry["id"] for entry in listed])
        shown = CLUSTER.get("imageroute", "paint", "-n", "default")["status"]
        self.assertEqual((shown["model"], shown["acceptedBackends"], shown["readyBackends"]), ("paint-1", 1, 1))

    def test_of_two_routes_with_one_name_the_older_has_it_until_it_goes(self):
        self.create(route("first", "emoji", model="shared"))
        until("first", "Accepted", "True", "Accepted", of="imageroute")
        self.create(route("second", "nobody", model="shared"))
        self.assertIn("ImageRoute default/first", until("second", "Accepted", "False", "NameTaken", of="imageroute")["message"])
        self.assertEqual(gateway.draw(GATEWAY, model="shared", prompt="pizza").status, 200)
        CLUSTER.kubectl("delete", "imageroute", "first", "-n", "default", "--timeout=60s")
        until("second", "Accepted", "True", "Accepted", of="imageroute")
        answer = gateway.draw(GATEWAY, model="shared", prompt="pizza")
        self.assertEqual((answer.status, answer.error["code"]), (503, "no_backend"))

    def test_a_route_stands_before_the_model_of_its_name_and_says_so(self):
        self.create(model("twin", replicas={"min": 0}), route("twin", "emoji"))
        self.assertIn("default/twin", until("twin", "Accepted", "True", "ShadowsModel", of="imageroute")["message"])
        answer = gateway.draw(GATEWAY, model="twin", prompt="pizza")
        self.assertEqual((answer.status, answer.headers["x-easel-model"]), (200, "default/emoji"), answer.body)
