"""A pull can be watched, and outlives the store: what was fetched is kept, and it goes on when the store is back."""

from easel.kube import condition, wait
from stores import lifecycle, places, registry
from promises.shelf import Shelf, awaits, draws, oci, refuses, serves, variant
from promises.world import CLUSTER, PNG, events, model

NAME = "slow"


class Progress(Shelf):
    def test_a_pull_shows_how_far_it_is_and_goes_on_after_the_store_went_away(self):
        folder = variant(NAME, self.folder)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        digest = registry.push(folder, f"models/{NAME}")
        self.addCleanup(lifecycle.throttle, None)
        self.addCleanup(lifecycle.start, CLUSTER, "registry")
        lifecycle.throttle(2_000_000)
        self.create(model(NAME, checkpoint=oci(f"models/{NAME}", digest, places.SLOW)))

        self.watch_it_grow(size, digest)
        lifecycle.stop(CLUSTER, "registry")
        self.assertRegex(awaits(NAME, "CheckpointVerified", "Unreachable")["message"], places.SLOW)
        self.assertIn(refuses(NAME), (503, 504))
        self.assertEqual(condition(CLUSTER.get("imagemodel", NAME, "-n", "default"), "Ready")["status"], "False")

        lifecycle.throttle(None)
        lifecycle.start(CLUSTER, "registry")
        serves(NAME)
        self.assertTrue(draws(NAME).startswith(PNG))
        sent = registry.sent(CLUSTER, f"models/{NAME}")
        self.assertLess(sent, size * 0.8, "what was fetched before is not fetched again")
        told = {event["reason"] for event in events(NAME)}
        self.assertLessEqual({"Unreachable", "Verified"}, told)
        self.assertIsNone(CLUSTER.get("imagemodel", NAME, "-n", "default")["status"]["checkpoint"].get("fetchedBytes"))

    def watch_it_grow(self, size: int, digest: str) -> None:
        """Until half is there."""
        seen = []
        def half():
            status = CLUSTER.get("imagemodel", NAME, "-n", "default").get("status", {})
            found = status.get("checkpoint") or {}
            if found.get("totalBytes") and found not in seen:
                self.assertEqual(condition({"status": status}, "CheckpointVerified")["reason"], "Fetching")
                seen.append(found)
            return seen and seen[-1]["fetchedBytes"] > size / 2
        wait("half of it is fetched", half, 60)
        fetched = [one["fetchedBytes"] for one in seen]
        self.assertEqual(fetched, sorted(fetched))
        self.assertGreaterEqual(len(set(fetched)), 3, seen)
        self.assertEqual({one["totalBytes"] for one in seen}, {size})
        self.assertEqual({one["digest"] for one in seen}, {digest})
        self.assertTrue(any("secondsLeft" in one for one in seen), seen)
