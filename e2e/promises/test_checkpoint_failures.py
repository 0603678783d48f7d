"""Whatever is wrong with a checkpoint is a condition with its reason and remedy, nothing is served, and mending it is enough."""

import concurrent.futures
import shutil

from stores import credentials, registry
from stores import s3 as bucket
from promises.shelf import Shelf, awaits, draws, listing, oci, refuses, s3, serves, variant
from promises.world import CLUSTER, PNG, model, pool

FORGED = "sha256:" + "f0" * 32
STALE = "visitor"  # a user of the registry whose password a test changes
POOL = "proving"


class Failures(Shelf):
    """All are broken at once and mended one by one, each by a thread of its own: waiting for retries is most of the time."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.addClassCleanup(CLUSTER.kubectl, "delete", "gpupool", POOL, "--ignore-not-found", "--timeout=90s")
        CLUSTER.apply(pool(POOL, cpu="100m", memory="3Gi", limits={"replicas": 1}))
        threads = cls.enterClassContext(concurrent.futures.ThreadPoolExecutor(8))
        cases = (flipped, truncated, gone, forged, pickle, expired, wrong_key, wrong_listing)
        for secret in (STALE, "wrong-key"):
            cls.addClassCleanup(CLUSTER.kubectl, "-n", "default", "delete", "secret", secret, "--ignore-not-found")
        cls.outcomes = {case.__name__: threads.submit(cls.live, case) for case in cases}

    @classmethod
    def live(cls, case) -> dict:
        """From the broken checkpoint to the picture; returns the condition that was seen while it was broken."""
        name = case.__name__.replace("_", "-")
        checkpoint, reason, mend = case(variant(name, cls.folder), f"models/{name}")
        manifest = model(name, checkpoint=checkpoint, pools=[POOL])
        cls.addClassCleanup(CLUSTER.kubectl, "-n", "default", "delete", "imagemodel", name, "--ignore-not-found", "--timeout=90s")
        CLUSTER.apply(manifest)
        seen = awaits(name, "CheckpointVerified", reason)
        seen["answer"] = refuses(name)
        mended = mend()
        if mended:
            CLUSTER.apply(model(name, checkpoint=mended, pools=[POOL]))
        serves(name)
        seen["picture"] = draws(name)
        return seen

    def proves(self, case, words: str) -> None:
        seen = self.outcomes[case.__name__].result(timeout=240)
        self.assertEqual(seen["status"], "False")
        self.assertRegex(seen["message"], words)
        self.assertIn(seen["answer"], (503, 504), "nothing is served while it is broken")
        self.assertTrue(seen["picture"].startswith(PNG))

    def test_a_flipped_bit(self):
        self.proves(flipped, r"sha256:[0-9a-f]{8}")

    def test_a_truncated_layer(self):
        self.proves(truncated, r"\d")

    def test_an_artifact_that_is_not_there(self):
        self.proves(gone, "models/gone")

    def test_a_manifest_that_is_not_what_its_digest_says(self):
        self.proves(forged, FORGED[:20])

    def test_a_pickle(self):
        self.proves(pickle, r"\.bin")

    def test_an_expired_credential(self):
        self.proves(expired, "(?i)secret|credential|password")

    def test_a_wrong_key_of_a_bucket(self):
        self.proves(wrong_key, "(?i)secret|credential|key")

    def test_another_digest_than_that_of_the_files(self):
        self.proves(wrong_listing, r"sha256:0{8}")


def flipped(folder, repository):
    digest = registry.push(folder, repository)
    blob = registry.blob(registry.largest_layer(digest))
    def flip():
        with open(blob, "r+b") as content:
            content.seek(blob.stat().st_size // 2)
            byte = content.read(1)[0]
            content.seek(-1, 1)
            content.write(bytes([byte ^ 1]))
    flip()
    return oci(repository, digest), "DigestMismatch", flip


def truncated(folder, repository):
    digest = registry.push(folder, repository)
    blob = registry.blob(registry.largest_layer(digest))
    whole = blob.read_bytes()
    with open(blob, "r+b") as content:
        content.truncate(len(whole) // 2)
    return oci(repository, digest), "Truncated", lambda: blob.write_bytes(whole) and None


def gone(folder, repository):
    digest = registry.push(folder, repository)
    return oci(repository, digest), "NotFound", registry.hide(repository)


def forged(folder, repository):
    """The registry itself lies: it gives another manifest than the one that was asked for."""
    digest = registry.push(folder, repository)
    lie = registry.blob(FORGED)
    lie.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(registry.blob(digest), lie)
    registry.link(repository, "_manifests/revisions", FORGED)
    return oci(repository, FORGED), "DigestMismatch", lambda: oci(repository, digest)


def pickle(folder, repository):
    good = registry.push(folder, repository, "good")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    return oci(repository, registry.push(folder, repository)), "UnsafeFormat", lambda: oci(repository, good)


def expired(folder, repository):
    digest = registry.push(folder, repository)
    secret = credentials.registry_secret(STALE, STALE, "was-right-once")
    credentials.htpasswd(**{STALE: "is-right-now"})
    CLUSTER.apply(secret)
    def mend():
        CLUSTER.apply(credentials.registry_secret(STALE, STALE, "is-right-now"))
    return oci(repository, digest, secret=STALE), "Unauthorized", mend


def wrong_key(folder, prefix):
    bucket.put_folder(folder, "models", prefix)
    CLUSTER.apply(credentials.s3_secret("wrong-key", key="not-this-one"))
    return {**s3("models", prefix, listing(folder)), "secretRef": {"name": "wrong-key"}}, "Unauthorized", lambda: CLUSTER.apply(credentials.s3_secret("wrong-key")) and None


def wrong_listing(folder, prefix):
    bucket.put_folder(folder, "models", prefix)
    return s3("models", prefix, "sha256:" + "0" * 64), "DigestMismatch", lambda: s3("models", prefix, listing(folder))
