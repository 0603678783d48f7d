"""What a model says is what is true: nonsense is refused at apply, and what the fleet can't do has a reason."""

import subprocess

from easel import gateway, paths
from easel.kube import condition, wait
from promises.world import CLUSTER, GATEWAY, Promise, events, inference_pods, model, pool, until

WRONG = "sha256:" + "0" * 64


class Models(Promise):
    def test_nonsense_is_refused_at_apply_with_a_sentence(self):
        edits = [
            ({"defaults": {"steps": 90, "size": "64x64"}, "limits": {"maxSteps": 50, "maxPixels": 4096}}, "defaults.steps must not be above limits.maxSteps"),
            ({"defaults": {"size": "63x64"}}, "both multiples of 16"),
            ({"replicas": {"min": 3, "max": 2}}, "replicas.min must not be above replicas.max"),
            ({"checkpoint": {"uri": "file:///models/emoji", "digest": "latest"}}, "sha256: and 64 hexadecimal digits"),
            ({"checkpoint": {"uri": "http://example.com/x", "digest": WRONG}}, "uri must start with file:/// "),
            ({"checkpoint": {"uri": "pvc://claim/x", "digest": WRONG}}, "needs placement: Dedicated"),
            ({"checkpoint": {"uri": "file:///models/../etc", "digest": WRONG}}, "must not contain . or .."),
            ({"placement": "Dedicated"}, "placement can't change"),
            ({"memory": 0}, "memory must be more than 0"),
            ({"slo": [{"class": "a", "latency": "0s"}]}, "latency must be more than 0"),
            ({"cost": {"maxUsdPerImage": "0"}}, "cost.maxUsdPerImage must be more than 0"),
            ({"cost": {"maxUsdPerHour": "0.0"}}, "cost.maxUsdPerHour must be more than 0"),
        ]
        before = CLUSTER.get("imagemodel", "emoji", "-n", "default")["spec"]
        for spec, sentence in edits:
            self.assertIn(sentence, CLUSTER.refuse(model("emoji", **spec)), spec)
        self.assertEqual(CLUSTER.get("imagemodel", "emoji", "-n", "default")["spec"], before)
        self.assertIn("f16 is not possible on cpu", CLUSTER.refuse(pool("bad", precision="f16")))
        self.assertIn("devices can't change", CLUSTER.refuse(pool("cpu", devices="nvidia.com/gpu")))

    def test_a_wrong_digest_is_never_served_and_says_so(self):
        self.create(model("forged", checkpoint={"uri": "file:///models/emoji", "digest": WRONG}))
        found = until("forged", "CheckpointVerified", "False", "DigestMismatch")
        self.assertIn(WRONG, found["message"])
        until("forged", "Ready", "False")
        answer = gateway.draw(GATEWAY, model="forged", prompt="pizza", headers={"x-easel-deadline-ms": "3000"})
        self.assertIn(answer.status, (503, 504), answer.body)
        self.assertTrue(answer.error["message"])
        wait("a warning event", lambda: [e for e in events("forged") if e["reason"] == "DigestMismatch" and e["type"] == "Warning"], 30)
        self.assertEqual(gateway.draw(GATEWAY, model="emoji", prompt="star").status, 200, "its neighbour serves on")

    def test_a_model_that_fits_nowhere_says_why_in_its_condition_and_in_an_event(self):
        self.create(model("whale", memory="64Gi"), model("lost", pools=["nowhere"]))
        found = until("whale", "Placed", "False", "TooLittleMemory")
        self.assertIn("needs 64 GiB and a replica offers 1 GiB", found["message"])
        self.assertIn("no GpuPool of this name", until("lost", "Placed", "False", "UnknownPool")["message"])
        wait("a warning event", lambda: [e for e in events("whale") if e["reason"] == "TooLittleMemory" and e["type"] == "Warning"], 30)

    def test_a_model_never_costs_more_an_hour_than_its_ceiling(self):
        self.create(model("thrifty", cost={"maxUsdPerHour": "0.03"}))
        found = until("thrifty", "Placed", "False", "CostCeiling")
        self.assertIn("would exceed the model's cost.maxUsdPerHour of $0.03", found["message"])
        CLUSTER.apply(model("thrifty", cost={"maxUsdPerHour": "0.05"}))
        until("thrifty", "Ready", "True")

    def test_kubectl_scale_gives_more_replicas_and_takes_them_back(self):
        self.addCleanup(CLUSTER.kubectl, "scale", "imagemodel", "emoji", "-n", "default", "--replicas=1")
        CLUSTER.kubectl("scale", "imagemodel", "emoji", "-n", "default", "--replicas=2")
        ready = lambda: CLUSTER.get("imagemodel", "emoji", "-n", "default")["status"].get("readyReplicas")  # noqa: E731
        wait("two ready replicas", lambda: ready() == 2, 90)
        CLUSTER.kubectl("scale", "imagemodel", "emoji", "-n", "default", "--replicas=1")
        wait("one pod", lambda: len(inference_pods()) == 1 and ready() == 1, 90)

    def test_a_dedicated_model_reads_its_checkpoint_from_its_own_volume(self):
        _, claim = self.volume("shelf")
        checkpoint = {"uri": f"pvc://{claim}/emoji", "digest": model("x")["spec"]["checkpoint"]["digest"]}
        self.create(model("own", placement="Dedicated", checkpoint=checkpoint))
        until("own", "Ready", "True", timeout=120)
        answer = gateway.draw(GATEWAY, model="own", prompt="pizza", seed=1)
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual([p["metadata"]["namespace"] for p in CLUSTER.get("pods", "-A", "-l", "easel.dev/model=own")], ["default"])

    def test_a_torn_file_is_refused(self):
        folder, claim = self.volume("torn")
        weights = next((folder / "emoji" / "unet").glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:-100])
        checkpoint = {"uri": f"pvc://{claim}/emoji", "digest": model("x")["spec"]["checkpoint"]["digest"]}
        self.create(model("torn", placement="Dedicated", checkpoint=checkpoint))
        found = until("torn", "CheckpointVerified", "False", "DigestMismatch", timeout=120)
        self.assertIn("sha256:", found["message"])
        self.assertEqual(condition(CLUSTER.get("imagemodel", "torn", "-n", "default"), "Ready")["status"], "False")

    def test_a_deleted_model_is_gone_with_all_that_it_had(self):
        CLUSTER.apply(model("brief", placement="Dedicated"))
        until("brief", "Ready", "True", timeout=120)
        CLUSTER.kubectl("delete", "imagemodel", "brief", "-n", "default", "--timeout=60s")
        left = lambda: [f"{t['kind']}/{t['metadata']['name']}" for kind in ("deployments", "pods", "secrets", "poddisruptionbudgets", "networkpolicies")  # noqa: E731
                        for t in CLUSTER.get(kind, "-n", "default") if "brief" in t["metadata"]["name"]]
        wait("nothing of it is left", lambda: not left(), 90)
        self.assertEqual(gateway.draw(GATEWAY, model="brief", prompt="pizza").status, 404)

    def volume(self, name: str):
        """A volume on the node with a copy of the default model that everybody may read, and its claim."""
        from onenode import settings

        folder = settings.VAR / "volumes" / name
        subprocess.run(["rm", "-rf", folder], check=True)
        folder.mkdir(parents=True)
        subprocess.run(["cp", "-r", paths.MODEL, folder / "emoji"], check=True)
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        size = {"storage": "1Gi"}
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "default"},
                 "spec": {"accessModes": ["ReadOnlyMany"], "storageClassName": "", "volumeName": name, "resources": {"requests": size}}}
        self.create({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
                     "spec": {"capacity": size, "accessModes": ["ReadOnlyMany"], "hostPath": {"path": str(folder)}, "persistentVolumeReclaimPolicy": "Retain"}})
        self.create(claim)
        return folder, name
