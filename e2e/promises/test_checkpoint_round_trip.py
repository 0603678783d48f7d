"""What Easel draws with a pushed checkpoint is what diffusers draws with the folder, to 1 of 255 levels."""

import base64
import io
import json
import shutil
import struct
import unittest

import openai
from PIL import Image

from easel import build, gateway, paths
from promises.shelf import Shelf, oci, push, serves
from promises.world import GATEWAY, model

GOLDENS = paths.ROOT / "inference-pod" / "goldens"


def golden(name: str) -> tuple[dict, dict[str, bytes]]:
    """What was asked of diffusers, and the rgb bytes that it drew."""
    raw = (GOLDENS / f"committed_{name}.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    tensors = json.loads(raw[8:8 + size])
    pictures = {key: raw[8 + size:][slice(*at["data_offsets"])] for key, at in tensors.items() if key != "__metadata__"}
    return json.loads((GOLDENS / "committed_models.json").read_text())[name], pictures


def png(rgb: bytes) -> bytes:
    out = io.BytesIO()
    Image.frombytes("RGB", (64, 64), rgb).save(out, "png")
    return out.getvalue()


class RoundTrip(Shelf):
    def served(self, name: str) -> tuple[dict, dict[str, bytes]]:
        """Pushes the committed folder with our own command and serves the artifact."""
        asked, pictures = golden(name)
        folder = paths.MODEL.with_name(name)
        self.assertEqual(asked["digest"], build.digest(folder), "the golden is of these weights")
        shutil.copytree(folder, self.folder / name)
        digest = push(self.folder / name, f"models/round-trip-{name}")
        self.create(model(f"trip-{name}", checkpoint=oci(f"models/round-trip-{name}", digest)))
        serves(f"trip-{name}")
        return asked, pictures

    def agrees(self, answer: bytes, expected: bytes, what: str) -> None:
        found = Image.open(io.BytesIO(answer)).convert("RGB").tobytes()
        self.assertEqual(len(found), len(expected), what)
        worst = max(abs(a - b) for a, b in zip(found, expected))
        self.assertLessEqual(worst, 1, f"{what}: {worst}/255")

    def test_the_default_model(self):
        asked, pictures = self.served("emoji")
        for number, wish in enumerate(asked["pictures"]):
            answer = gateway.draw(GATEWAY, model="trip-emoji", size="64x64", steps=asked["steps"],
                                  guidance_scale=asked["guidance_scale"], **wish)
            self.assertEqual(answer.status, 200, answer.body[:300])
            self.agrees(answer.pictures()[0], pictures[str(number)], wish["prompt"])

    def test_the_editing_model_by_openais_client(self):
        asked, pictures = self.served("emoji-edit")
        client = openai.OpenAI(base_url=f"{GATEWAY}/v1", api_key="unused", max_retries=0)
        for number, wish in enumerate(asked["pictures"]):
            result = client.images.edit(
                model="trip-emoji-edit", image=("in.png", png(pictures[f"{number}.from"]), "image/png"), prompt=wish["prompt"], size="64x64",
                extra_body={"seed": wish["seed"], "steps": asked["steps"], "guidance_scale": asked["guidance_scale"],
                            "image_guidance_scale": asked["image_guidance_scale"]})
            self.agrees(base64.b64decode(result.data[0].b64_json), pictures[str(number)], wish["prompt"])


if __name__ == "__main__":
    unittest.main()
