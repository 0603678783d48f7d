"""A node fetches a checkpoint once, and a cache without room says so until there is room."""

import os
import subprocess
from pathlib import Path

import oci_image
from onenode import settings
from stores import registry
from promises.shelf import Shelf, awaits, draws, oci, refuses, serves, variant
from promises.world import CLUSTER, PNG, SYSTEM, model, pods, pool


class Cache(Shelf):
    def test_the_second_pod_of_a_node_fetches_nothing(self):
        self.create(pool("cached", cpu="100m", cache={"size": "1Gi", "claimName": self.disk("node-cache")}))
        digest = registry.push(variant("once", self.folder), "models/once")
        self.serve("once", oci("models/once", digest), pools=["cached"])
        asked = registry.requests(CLUSTER, "models/once")
        self.assertIn(registry.largest_layer(digest), {path.rpartition("/")[2] for path in asked})
        CLUSTER.kubectl("-n", "default", "scale", "imagemodel", "once", "--replicas=2")
        CLUSTER.kubectl("-n", "default", "wait", "imagemodel/once", "--for=jsonpath={.status.readyReplicas}=2", "--timeout=90s")
        self.assertEqual(len(pods("easel.dev/pool=cached")), 2)
        self.assertEqual(registry.requests(CLUSTER, "models/once"), asked, "no byte of it was asked for again")

    def test_a_cache_that_is_too_small_says_so_until_it_is_raised(self):
        self.create(pool("narrow", cpu="100m", cache={"size": "4Mi"}))
        digest = registry.push(variant("wide", self.folder), "models/wide")
        self.create(model("wide", checkpoint=oci("models/wide", digest), pools=["narrow"]))
        self.assertRegex(awaits("wide", "CheckpointVerified", "NoSpace")["message"], "cache")
        self.assertIn(refuses("wide"), (503, 504))
        CLUSTER.apply(pool("narrow", cpu="100m", cache={"size": "1Gi"}))
        serves("wide", timeout=120)
        self.assertTrue(draws("wide").startswith(PNG))

    def test_a_full_disk_says_so_until_there_is_room(self):
        claim = self.disk("full-disk", size="6m")
        self.create(pool("crowded", cpu="100m", cache={"size": "1Gi", "claimName": claim}))
        digest = registry.push(variant("bulky", self.folder), "models/bulky")
        self.create(model("bulky", checkpoint=oci("models/bulky", digest), pools=["crowded"]))
        self.assertRegex(awaits("bulky", "CheckpointVerified", "NoSpace")["message"], "(?i)space|room|full")
        self.assertIn(refuses("bulky"), (503, 504))
        subprocess.run(["mount", "-o", "remount,size=64m", self.place("full-disk")], check=True)
        serves("bulky")
        self.assertTrue(draws("bulky").startswith(PNG))

    def place(self, name: str) -> Path:
        return settings.VAR / "volumes" / name

    def disk(self, name: str, size: str | None = None) -> str:
        """A claim in the operator's namespace on an empty folder of the node, or on a file system of so many bytes."""
        folder = self.place(name)
        subprocess.run(["rm", "-rf", folder], check=True)
        folder.mkdir(parents=True)
        if size:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
            self.addCleanup(subprocess.run, ["umount", "--lazy", folder], check=False)
        os.chown(folder, oci_image.NONROOT, oci_image.NONROOT)
        room = {"storage": "1Gi"}
        self.create({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
                     "spec": {"capacity": room, "accessModes": ["ReadWriteMany"], "hostPath": {"path": str(folder)}, "persistentVolumeReclaimPolicy": "Retain"}},
                    {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": SYSTEM},
                     "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": name, "resources": {"requests": room}}})
        return name
