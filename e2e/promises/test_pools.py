"""A pool is what it says: contradictions are refused, spares are kept, and pods have what it adds and no less security."""

import subprocess

from easel.kube import condition, wait
from promises.world import CLUSTER, SYSTEM, Promise, pods, pool

SMALL = {"memory": "256Mi", "cpu": "100m"}


class Pools(Promise):
    def test_contradictions_are_refused_at_apply_with_a_sentence(self):
        edits = [
            ({"warmSpares": 5}, "warmSpares must not be above limits.replicas"),
            ({"hostCache": "1Gi"}, "hostCache is for devices with memory of their own"),
            ({"relativeSpeed": "0.0"}, "relativeSpeed must be more than 0"),
            ({"limits": {"replicas": 1, "usdPerHour": "0.01"}}, "limits.usdPerHour is below the price of one replica"),
            ({"deviceClassName": "gpu.example.com"}, "name what a replica runs on once"),
            ({"deviceSelectors": ["true"]}, "deviceSelectors narrows a deviceClassName"),
            ({"podOverrides": {"labels": {"easel.dev/pool": "other"}}}, "podOverrides.labels must not begin with easel.dev/"),
            ({"podOverrides": {"annotations": {"container.apparmor.security.beta.kubernetes.io/easel-inference": "unconfined"}}},
             "would loosen Pod Security"),
            ({"podOverrides": {"env": [{"name": "LD_PRELOAD", "value": "/tmp/x.so"}]}}, "podOverrides.env must not begin with EASEL_"),
        ]
        for spec, sentence in edits:
            self.assertIn(sentence, CLUSTER.refuse(pool("bad", **spec)), spec)
        self.assertIsNone(CLUSTER.get("gpupool", "bad"))

    def test_a_warm_spare_runs_before_anything_needs_it_with_what_its_pool_adds(self):
        """The namespace enforces Pod Security's restricted profile, so a pod that exists is within it."""
        extra = {"labels": {"team": "art"}, "annotations": {"example.com/note": "x"}, "env": [{"name": "OMP_DYNAMIC", "value": "FALSE"}]}
        self.create(pool("reserve", limits={"replicas": 2}, warmSpares=1, podOverrides=extra, **SMALL))
        ready = lambda: (CLUSTER.get("gpupool", "reserve").get("status") or {}).get("readyReplicas") == 1  # noqa: E731
        wait("one spare is ready", ready, 120)
        [pod] = pods("easel.dev/pool=reserve")
        self.assertEqual((pod["metadata"]["labels"]["team"], pod["metadata"]["annotations"]["example.com/note"]), ("art", "x"))
        self.assertIn({"name": "OMP_DYNAMIC", "value": "FALSE"}, pod["spec"]["containers"][0]["env"])
        self.assertEqual(CLUSTER.get("gpupool", "reserve")["status"]["usdPerHour"], "0.04")

    def test_a_pool_of_a_device_class_claims_its_devices_and_says_that_none_is_there(self):
        if subprocess.run(["kubectl", "get", "--raw", "/apis/resource.k8s.io/v1"], capture_output=True, env=CLUSTER.environment, check=False).returncode:
            self.skipTest("the cluster has no resource.k8s.io/v1")
        gone = {"devices": None, "deviceClassName": "gpu.example.com", "devicesPerReplica": 2}
        manifest = pool("claimed", limits={"replicas": 1}, warmSpares=1, **SMALL)
        manifest["spec"] = {key: value for key, value in {**manifest["spec"], **gone}.items() if value is not None}
        self.create(manifest)
        shown = lambda: condition(CLUSTER.get("gpupool", "claimed"), "Ready")  # noqa: E731
        wait("the pool says that its pod can't start", lambda: shown().get("reason") == "NoReadyReplica", 90)
        [template] = [t for t in CLUSTER.get("resourceclaimtemplates", "-n", SYSTEM) if t["metadata"]["name"].startswith("easel-pool-claimed-")]
        [request] = template["spec"]["spec"]["devices"]["requests"]
        self.assertEqual((request["exactly"]["deviceClassName"], request["exactly"]["count"]), ("gpu.example.com", 2))
        [pod] = pods("easel.dev/pool=claimed")
        self.assertEqual(pod["spec"]["resourceClaims"][0]["resourceClaimTemplateName"], template["metadata"]["name"])
