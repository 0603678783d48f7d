"""A folder that diffusers wrote is served from wherever it was put, byte for byte."""

import base64
import hashlib
import io
import shutil
import sys
import time
from pathlib import Path

import openai
from PIL import Image

import oci_image
from easel import paths
from onenode import images, node, settings, up
from stores import places, registry
from stores import s3 as bucket
from promises.shelf import Shelf, draws, easel, listing, oci, push, s3, serves, variant
from promises.world import CLUSTER, GATEWAY, PNG, model


def hashes(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


class Delivery(Shelf):
    def test_a_folder_is_pushed_named_and_drawn_with_openais_client(self):
        steps, began = [], time.monotonic()
        def took(step: str) -> None:
            nonlocal began
            steps.append(f"{step} {time.monotonic() - began:.2f} s")
            began = time.monotonic()
        folder = variant("pushed", self.folder)
        began = time.monotonic()
        digest = push(folder, "models/pushed")
        took("push")
        self.create(model("pushed", checkpoint=oci("models/pushed", digest)))
        took("apply")
        serves("pushed")
        took("pull, verify, load, warm up")
        client = openai.OpenAI(base_url=f"{GATEWAY}/v1", api_key="unused", max_retries=0)
        result = client.images.generate(model="pushed", prompt="pizza", size="64x64", response_format="b64_json", extra_body={"seed": 7})
        took("picture")
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{size / 1e6:.1f} MB: {', '.join(steps)}", file=sys.stderr)
        picture = base64.b64decode(result.data[0].b64_json)
        self.assertTrue(picture.startswith(PNG))
        status = CLUSTER.get("imagemodel", "pushed", "-n", "default")["status"]
        self.assertEqual((status["digest"], status["checkpoint"]["digest"]), (digest, digest))
        self.assertIn("sha256", CLUSTER.get("imagemodel", "pushed", "-n", "default")["spec"]["checkpoint"]["uri"])
        back = self.folder / "pulled"
        registry.pull("models/pushed", digest, back)
        self.assertEqual(hashes(back), hashes(folder), "oras pull gives back what kubectl easel push took")

    def test_what_oras_pushed_as_plain_layers_is_served(self):
        folder = variant("plain", self.folder)
        digest = registry.push(folder, "models/plain")
        easel("pull", f"oci://{places.HOST_REGISTRY}/models/plain@{digest}", self.folder / "back", "--ca", places.AUTHORITY)
        self.assertEqual(hashes(self.folder / "back"), hashes(folder))
        self.serve("plain-layers", oci("models/plain", digest))
        self.assertTrue(draws("plain-layers").startswith(PNG))

    def test_a_prefix_of_a_bucket_is_served(self):
        folder = variant("bucket", self.folder)
        bucket.put_folder(folder, "models", "some/prefix")
        self.serve("in-a-bucket", s3("models", "some/prefix", listing(folder)))
        self.assertTrue(draws("in-a-bucket").startswith(PNG))

    def test_an_image_of_a_registry_is_served_as_a_volume(self):
        folder = variant("volume", self.folder)
        image = oci_image.Image("localhost/model-volume:1", ("/none",), (oci_image.Layer("model", (oci_image.File(folder, "/", 0o644),), compression=1),))
        built = oci_image.build(image, self.folder / "volume.tar", settings.CACHE / "layers")
        reference = f"localhost/model-volume@{built.digest}"
        with up.exclusive():
            images.load(built.archive, quiet=True)
            node.ctr("images", "tag", "--force", image.name, reference)
        self.serve("in-an-image", {"uri": f"image://{reference}", "digest": listing(folder)}, placement="Dedicated")
        self.assertTrue(draws("in-an-image").startswith(PNG))

    def test_the_same_weights_draw_the_same_picture_wherever_they_come_from(self):
        shutil.copytree(paths.MODEL, self.folder / "same")
        digest = push(self.folder / "same", "models/same")
        self.serve("same", oci("models/same", digest))
        pixels = lambda png: Image.open(io.BytesIO(png)).tobytes()  # noqa: E731
        self.assertEqual(pixels(draws("same")), pixels(draws("emoji")))
