"""A pool that demands signatures loads what a trusted key signed, and nothing else."""

from stores import registry
from promises.shelf import Shelf, awaits, draws, easel, oci, push, refuses, serves, variant
from promises.world import PNG, model, pool

POOL = "signed-only"


class Signatures(Shelf):
    def setUp(self):
        self.trusted, public = self.pair("trusted")
        self.stranger, _ = self.pair("stranger")
        self.create(pool(POOL, cpu="100m", verification={"publicKeys": [public]}))

    def test_a_pool_that_demands_signatures_serves_only_what_a_trusted_key_signed(self):
        folder = variant("signed", self.folder)
        digest = push(folder, "models/signed", "--sign", self.trusted)
        unsigned = registry.push(variant("unsigned", self.folder), "models/unsigned")
        foreign = push(variant("foreign", self.folder), "models/foreign", "--sign", self.stranger)
        self.create(*(model(name, checkpoint=oci(f"models/{name}", pinned), pools=[POOL])
                      for name, pinned in (("signed", digest), ("unsigned", unsigned), ("foreign", foreign))))
        serves("signed")
        self.assertTrue(draws("signed").startswith(PNG))
        self.assertRegex(awaits("unsigned", "CheckpointVerified", "Unsigned")["message"], "sign")
        self.assertRegex(awaits("foreign", "CheckpointVerified", "SignatureInvalid")["message"], "key")
        self.assertIn(refuses("unsigned"), (503, 504))
        self.assertIn(refuses("foreign"), (503, 504))

        again = push(self.folder / "foreign", "models/foreign", "--sign", self.trusted)
        self.assertEqual(again, foreign, "a signature changes nothing of the artifact")
        serves("foreign")

    def pair(self, name: str) -> tuple:
        """The path of a new private key, and the public key's text."""
        easel("generate-key-pair", "--name", self.folder / name)
        return self.folder / f"{name}.key", (self.folder / f"{name}.pub").read_text()
