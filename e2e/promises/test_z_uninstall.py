"""`helm uninstall` leaves nothing behind. Last by its name: it takes Easel away."""

import json

from easel import install
from easel.kube import wait
from promises.world import CLUSTER, SYSTEM, Promise, model, pool, until

WORDS = ("easel", "emoji")


class Uninstall(Promise):
    def test_helm_uninstall_leaves_nothing_behind(self):
        CLUSTER.apply(pool("second"))
        CLUSTER.apply(model("dedicated", placement="Dedicated", pools=["second"]))
        until("dedicated", "Ready", "True", timeout=120)
        install.uninstall(CLUSTER)
        wait("nothing of Easel is left in the cluster", lambda: self.leftovers() == [], 90)
        self.assertIsNone(CLUSTER.get("namespace", SYSTEM))

    def leftovers(self) -> list[str]:
        """Every object of every kind whose name or labels speak of Easel; events are the cluster's memory, and the node is named so."""
        found = []
        kinds = CLUSTER.kubectl("api-resources", "--verbs=list", "-o", "name").split()
        for kind in kinds:
            if kind.startswith(("events", "nodes", "componentstatuses", "csinodes", "leases")):
                continue
            for thing in CLUSTER.get(kind, "-A") or []:
                meta = thing["metadata"]
                said = json.dumps([meta["name"], meta.get("labels"), [o["name"] for o in meta.get("ownerReferences", [])]])
                # The local cluster's own roles begin with its name and a colon; they were there before.
                if any(word in said for word in WORDS) and not meta["name"].startswith("easel:"):
                    found.append(f"{kind} {meta.get('namespace', '')}/{meta['name']}")
        return found
