"""A model's credential reaches the pods that fetch the model, and nothing that anybody reads."""

import base64
import json

from stores import credentials, registry
from promises.shelf import SECRET, Shelf, awaits, oci, variant
from promises.world import CLUSTER, SYSTEM, model

WRONG = "wrong-and-never-to-be-seen"
KINDS = ("pods", "deployments", "replicasets", "configmaps", "secrets", "events", "imagemodels", "gpupools", "leases")


class Secrets(Shelf):
    def test_a_password_is_in_no_log_no_object_and_no_pod(self):
        wrong = credentials.registry_secret("refused-here", password=WRONG)
        self.create(wrong)
        digest = registry.push(variant("secretive", self.folder), "models/secretive")
        self.serve("secretive", oci("models/secretive", digest))
        other = registry.push(variant("barred", self.folder), "models/barred")
        self.create(model("intruder", checkpoint=oci("models/barred", other, secret="refused-here")))
        awaits("intruder", "CheckpointVerified", "Unauthorized")  # both outcomes have had their chance to be logged

        read = self.everything_that_can_be_read()
        self.assertIn("models/secretive", read, "the search would find what is there")
        for word in (credentials.read().password, WRONG):
            basic = base64.b64encode(f"{credentials.read().username}:{word}".encode()).decode()
            for form in (word, base64.b64encode(word.encode()).decode(), basic):
                self.assertNotIn(form, read)

    def test_the_secret_is_mounted_nowhere(self):
        digest = registry.push(variant("unmounted", self.folder), "models/unmounted")
        self.serve("unmounted", oci("models/unmounted", digest), placement="Dedicated")
        for pod in CLUSTER.get("pods", "-A", "-l", "app.kubernetes.io/name=easel-inference"):
            self.assertNotIn(f'"{SECRET}"', json.dumps(pod["spec"]))

    def everything_that_can_be_read(self) -> str:
        """Logs of all containers of Easel, and all objects but the user's own Secrets."""
        texts = []
        for pod in CLUSTER.get("pods", "-n", SYSTEM):
            texts.append(CLUSTER.kubectl("-n", SYSTEM, "logs", pod["metadata"]["name"], "--all-containers", "--tail=-1"))
            texts.append(CLUSTER.kubectl("-n", SYSTEM, "logs", pod["metadata"]["name"], "--all-containers", "--previous", check=False))
        for kind in KINDS:
            for thing in CLUSTER.get(kind, "-A") or []:
                meta = thing["metadata"]
                if kind == "secrets" and meta.get("namespace") in ("default", "stores"):
                    continue  # where the user put it, and where the stores have it
                if meta.get("namespace") != "stores":
                    texts.append(json.dumps(thing))
        return "\n".join(texts)
