"""An adapter that was pushed changes the pictures of requests that name it, and of no others."""

import array
import base64
import json
import random
import struct
from pathlib import Path

import openai

from easel import paths
from promises.shelf import Shelf, awaits, draws, oci, push
from promises.world import CLUSTER, GATEWAY, PNG, model


def shape(key: str) -> list[int]:
    """Of a tensor of the default model's UNet."""
    raw = (paths.MODEL / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8:8 + size])[key]["shape"]


def adapter(folder: Path, seed: int) -> Path:
    """A LoRA of the last convolution alone, of random numbers."""
    outputs, inputs, height, width = shape("conv_out.weight")
    numbers, header, data = random.Random(seed), {}, b""
    for half, dims in {"lora_A": [2, inputs, height, width], "lora_B": [outputs, 2, 1, 1]}.items():
        count = 1
        for dim in dims:
            count *= dim
        values = array.array("f", (numbers.uniform(-0.3, 0.3) for _ in range(count))).tobytes()
        header[f"unet.conv_out.{half}.weight"] = {"dtype": "F32", "shape": dims, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    folder.mkdir(mode=0o755)
    (folder / "pytorch_lora_weights.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


class Adapters(Shelf):
    def test_a_pushed_adapter_is_worn_by_those_who_ask_for_it(self):
        named = {name: {"name": name, **oci(f"adapters/{name}", push(adapter(self.folder / name, seed), f"adapters/{name}"))}
                 for seed, name in enumerate(["ink", "wax"])}
        self.create(model("worn", adapters=list(named.values())))
        awaits("worn", "Ready", "AllPartsReady")
        awaits("worn", "AdaptersReady", "Available")
        client = openai.OpenAI(base_url=f"{GATEWAY}/v1", api_key="unused", max_retries=0)

        def picture(*adapters: dict) -> bytes:
            result = client.images.generate(model="worn", prompt="pizza", size="64x64", extra_body={"seed": 7, "adapters": list(adapters)})
            return base64.b64decode(result.data[0].b64_json)

        wishes = [(), ({"name": "ink"},), ({"name": "ink", "weight": 0.3},), ({"name": "wax"},), ({"name": "ink"}, {"name": "wax", "weight": -1})]
        pictures = [picture(*wish) for wish in wishes]
        self.assertTrue(all(found.startswith(PNG) for found in pictures))
        self.assertEqual(len(set(pictures)), len(wishes), "every wish draws another picture")
        self.assertEqual(picture(), draws("worn"), "who asks for none gets the model's own picture")
        with self.assertRaisesRegex(openai.BadRequestError, "no adapter 'oil'; it has ink, wax"):
            picture({"name": "oil"})

    def test_an_adapter_that_can_not_be_fetched_is_named_and_the_model_serves_on(self):
        missing = {"name": "gone", **oci("adapters/gone", "sha256:" + "0" * 64)}
        self.create(model("without", adapters=[missing]))
        awaits("without", "Ready", "AllPartsReady")
        found = awaits("without", "AdaptersReady", "NotFound")
        self.assertIn("'gone'", found["message"])
        self.assertTrue(draws("without").startswith(PNG))

    def test_an_adapter_is_pinned_and_comes_from_a_store(self):
        for fields, sentence in [({"uri": "oci://r.example/ink:v1"}, "must be pinned once"),
                                 ({"uri": "pvc://claim/ink", "digest": "sha256:" + "0" * 64}, "the uri of an adapter must start with oci://")]:
            self.assertIn(sentence, CLUSTER.refuse(model("worn", adapters=[{"name": "ink", **fields}])))
