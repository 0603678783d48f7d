"""Draws the same pictures by diffusers and by Easel, and says how far apart they are.

    python round_trip.py FOLDER --endpoint http://127.0.0.1:8080 --model emoji     a gateway that serves the folder
    python round_trip.py FOLDER --pod easel-inference                              a pod of its own, started and ended
    python round_trip.py FOLDER --write                                            only diffusers: the golden of `make test`

Fails if a value of any pixel differs by more than 1 of 255. Needs the packages of README.md.
"""

import argparse
import base64
import contextlib
import hashlib
import io
import json
import pathlib
import sys
import urllib.request

import numpy
import PIL.Image
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from safetensors.numpy import load_file, save_file

import local_pod

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE / "committed_models.json"
DEFAULT_MODEL = HERE.parent / "models" / "emoji"
WORDS = ["pizza", "red heart", "crying face", "fire", "cat face", "soccer ball", "rocket", "zebra crossing"]
INSTRUCTIONS = ["make it dark skin", "as a woman", "in 3D style", "make it light skin"]
SUBJECTS = ["waving hand", "man", "crying face", "thumbs up"]
STEPS, GUIDANCE, IMAGE_GUIDANCE = 20, 3.0, 1.5


def digest(folder):
    """`cd FOLDER && find * -type f | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum`"""
    files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: str(p.relative_to(folder)).encode())
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder)}\n" for p in files]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def load(folder):
    pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def edits(folder):
    index = json.loads((folder / "model_index.json").read_text())
    return index["_class_name"] == "StableDiffusionInstructPix2PixPipeline"


def size_of(pipe):
    return pipe.unet.config.sample_size * 2 ** (len(pipe.vae.config.block_out_channels) - 1)


def drawn(pipe, wish, picture=None):
    """[height, width, rgb] bytes."""
    more = {"width": size_of(pipe), "height": size_of(pipe)}
    if picture is not None:
        more = {"image": PIL.Image.fromarray(picture), "image_guidance_scale": IMAGE_GUIDANCE}
    images = pipe(
        wish["prompt"],
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(wish["seed"]),
        output_type="np",
        **more,
    ).images
    # Row by row: safetensors writes an array's memory as it lies.
    return numpy.ascontiguousarray((images[0] * 255).round().astype("uint8"))


def wishes(folder, prompts, seeds):
    """What is drawn, and for edits also the picture that it starts from: one that the default model draws."""
    if not edits(folder):
        return [({"prompt": word, "seed": seed}, None) for word in WORDS[:prompts] for seed in range(seeds)]
    default = load(DEFAULT_MODEL)
    pairs = list(zip(INSTRUCTIONS, SUBJECTS))[:prompts]
    start = {subject: drawn(default, {"prompt": subject, "seed": 1}) for _, subject in pairs}
    return [({"prompt": text, "seed": seed}, start[subject]) for text, subject in pairs for seed in range(seeds)]


def request(model, wish, size, picture):
    """Path and body, as JSON."""
    body = {"model": model, **wish, "steps": STEPS, "guidance_scale": GUIDANCE, "size": f"{size}x{size}",
            "sampler": "ddim"}
    if picture is None:
        return "/v1/images/generations", body
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, "png")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return "/v1/images/edits", {**body, "images": [{"image_url": url}], "image_guidance_scale": IMAGE_GUIDANCE}


def pixels(answer):
    image = PIL.Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"])))
    return numpy.asarray(image.convert("RGB"))


class Endpoint:
    """A gateway."""

    def __init__(self, url):
        self.url = url.rstrip("/").removesuffix("/v1")

    def post(self, path, body):
        head = {"content-type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, json.dumps(body).encode(), head)) as answer:
            return json.load(answer)


@contextlib.contextmanager
def endpoint(args):
    if args.endpoint:
        yield Endpoint(args.endpoint), args.model
        return
    with local_pod.LocalPod(args.pod, args.folder, digest(args.folder)) as pod:
        yield pod, local_pod.MODEL


def compare(args):
    pipe, worst, values = load(args.folder), 0, 0
    with endpoint(args) as (easel, model):
        for wish, picture in wishes(args.folder, args.prompts, args.seeds):
            theirs = drawn(pipe, wish, picture).astype(int)
            ours = pixels(easel.post(*request(model, wish, size_of(pipe), picture))).astype(int)
            difference = numpy.abs(ours - theirs)
            worst, values = max(worst, difference.max()), values + difference.size
            print(f"{wish['prompt']:<24} seed {wish['seed']}: largest difference {difference.max()}/255,"
                  f" {numpy.count_nonzero(difference)} of {difference.size} values differ", flush=True)
    print(f"{args.folder.name}: largest difference {worst}/255 of {values} values")
    return 0 if worst <= 1 else 1


def write(args):
    pipe, name = load(args.folder), args.folder.name
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    tensors, rows = {}, []
    for number, (wish, picture) in enumerate(wishes(args.folder, 3, 1)):
        rows.append(wish)
        tensors[f"{number}"] = drawn(pipe, wish, picture)
        if picture is not None:
            tensors[f"{number}.from"] = picture
    golden[name] = {"digest": digest(args.folder), "steps": STEPS, "guidance_scale": GUIDANCE,
                    "image_guidance_scale": IMAGE_GUIDANCE, "pictures": rows}
    save_file(tensors, HERE / f"committed_{name}.safetensors")
    GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    assert load_file(HERE / f"committed_{name}.safetensors").keys() == tensors.keys()
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=lambda text: pathlib.Path(text).resolve())
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--endpoint", help="URL of a gateway")
    way.add_argument("--pod", help="the binary of a pod, built with torch")
    way.add_argument("--write", action="store_true")
    parser.add_argument("--model", help="its name at the endpoint")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sys.exit(write(args) if args.write else compare(args))


if __name__ == "__main__":
    main()
