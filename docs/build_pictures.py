"""Make the documentation's pictures with the project's own demo, from a photograph in the public domain."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent / "images"
OVERVIEW = ("photo", "segment-clothes", "recolor-clothes", "pixelate-face", "cut-out-person")
SINGLE = ("segment-clothes", "segment-face", "recolor-hair", "blur-background")
HEIGHT = 320
GAP = 8


def main() -> None:
    """Run the demo and write docs/images/."""
    HERE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "imagesmith", "demo", "--out", folder], check=True)
        for name in SINGLE:
            on_white(Path(folder) / f"{name}.png").save(HERE / f"{name}.jpg", quality=88)
        side_by_side([on_white(Path(folder) / f"{name}.png") for name in OVERVIEW]).save(
            HERE / "overview.jpg", quality=90
        )


def on_white(path: Path) -> Image.Image:
    """Read a picture and put what is transparent on white, as tall as the others."""
    picture = Image.open(path).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(white, picture).convert("RGB")
    return flat.resize((round(flat.width * HEIGHT / flat.height), HEIGHT), Image.Resampling.LANCZOS)


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """Join pictures of one height into a row."""
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    row = Image.new("RGB", (width, HEIGHT), "white")
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + GAP
    return row


if __name__ == "__main__":
    main()
