"""A model is pinned to bytes: by its digest, or by what its tag named when it was first seen."""

from easel.kube import wait
from stores import places, registry
from promises.shelf import SECRET, Shelf, draws, serves, variant
from promises.world import CLUSTER, PNG, inference_pods, kill, model


class Tags(Shelf):
    def test_a_tag_without_a_digest_is_refused_with_a_sentence(self):
        uri = f"oci://{places.REGISTRY}/models/tagged:stable"
        self.assertIn("a checkpoint must be pinned", CLUSTER.refuse(model("unpinned", checkpoint={"uri": uri})))
        both = {"uri": f"{uri}@sha256:{'0' * 64}", "resolveTag": True}
        self.assertIn("resolveTag is for an oci:// uri with a tag and without a digest", CLUSTER.refuse(model("unpinned", checkpoint=both)))

    def test_a_resolved_tag_stays_what_it_was_when_the_tag_moves(self):
        first = registry.push(variant("first", self.folder), "models/tagged", "stable")
        uri = f"oci://{places.REGISTRY}/models/tagged:stable"
        self.create(model("tagged", checkpoint={"uri": uri, "resolveTag": True, "secretRef": {"name": SECRET}}))
        serves("tagged")
        status = lambda: CLUSTER.get("imagemodel", "tagged", "-n", "default")["status"]  # noqa: E731
        self.assertEqual(status()["checkpoint"]["digest"], first)
        self.assertEqual(status()["digest"], first)

        second = registry.push(variant("second", self.folder), "models/tagged", "stable")
        self.assertNotEqual(first, second)
        before = inference_pods()
        kill(before[0])  # whoever comes next must ask the registry again, for the same bytes
        wait("another pod", lambda: inference_pods() and inference_pods()[0]["metadata"]["uid"] != before[0]["metadata"]["uid"], 60)
        wait("the model is held again", lambda: status().get("readyReplicas") == 1, 90)
        self.assertEqual((status()["checkpoint"]["digest"], status()["digest"]), (first, first))
        self.assertTrue(draws("tagged").startswith(PNG))
