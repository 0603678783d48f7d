"""Plots the log of `diffusion.py`: the mean loss, and its part from the noisy steps, against images seen."""

import argparse
import re
from pathlib import Path

from PIL import Image, ImageDraw

WIDTH, HEIGHT, LEFT, BOTTOM = 720, 300, 48, 28
LINE = re.compile(r"images (\d+) loss ([\d.]+) noisy ([\d.]+)")
CURVES = ((1, "loss", (40, 90, 180)), (2, "from t >= 900, where the words decide", (200, 80, 40)))


def plot(points: list[tuple[float, ...]]) -> Image.Image:
    sheet = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(sheet)
    most, top = points[-1][0], max(max(p[1:]) for p in points)

    def place(images: float, loss: float) -> tuple[float, float]:
        return LEFT + (WIDTH - LEFT - 10) * images / most, HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 10) * loss / top

    for i in range(6):
        x, y = place(most * i / 5, 0)
        pen.text((x - 14, y + 8), f"{most * i / 5000:.0f}k", fill="black")
        _, y = place(0, top * i / 5)
        pen.line([(LEFT, y), (WIDTH - 10, y)], fill=(225, 225, 225))
        pen.text((8, y - 6), f"{top * i / 5:.2f}", fill="black")
    for row, (column, title, colour) in enumerate(CURVES):
        pen.line([place(p[0], p[column]) for p in points], fill=colour, width=2)
        pen.text((WIDTH - 280, 16 + 16 * row), title, fill=colour)
    pen.text((WIDTH - 280, 16 + 16 * len(CURVES)), "x: images seen", fill="black")
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    # A resumed run repeats the steps since its checkpoint: the later line counts.
    points = {int(m[0]): tuple(map(float, m)) for m in LINE.findall(args.log.read_text())}
    plot([points[images] for images in sorted(points)]).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
