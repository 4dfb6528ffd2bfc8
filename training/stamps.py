"""Sorts Tux Paint's photographs into folders for `python -m training.evaluate`.

`python -m training.stamps SOURCE TARGET` links pictures of the Debian package `tuxpaint-stamps-default` from SOURCE,
the package's folder `stamps`, and draws textures. `python -m training.evaluate` takes the folders in TARGET:

- classes/<class>: photographs of CIFAR-10's classes (`--test-set`).
- things: photographs of food, plants, household things, tools, instruments and balls (`--foreign`).
- animals: photographs of other animals (`--foreign`), without those that resemble a class, such as lions, foxes, zebras
  and antelopes.
- textures: smooth noise, stripes, checks and plain colours from a seed (`--foreign`).

stamps.txt lists the folder of each picture. Drawings are left out. The pictures are transparent around their object, so
the model sees them on white.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.options import Parser

PROGRAM = "python -m training.stamps"
LIST = Path(__file__).with_name("stamps.txt")
TEXTURES = 50
"""Of each kind."""
SIZE = 128
"""Of a texture, in pixels."""

Pixels = npt.NDArray[np.uint8]


def link_pictures(source: Path, target: Path) -> list[str]:
    """Link the listed pictures in `source` into the folders of `target`; return the missing ones."""
    missing = []
    for line in LIST.read_text(encoding="utf-8").splitlines():
        folder, name = line.split()
        picture = (source / name).with_suffix(".png")
        if not picture.is_file():
            missing.append(str(picture))
            continue
        link = target / folder / f"{name.replace('/', '-')}.png"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(picture.resolve())
    return missing


def draw_textures() -> Iterator[tuple[str, Pixels]]:
    """Draw textures, each (128, 128, 3), with a name; the same ones every time."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    for index in range(TEXTURES):
        for cells in (2, 4, 8, 16, 32):
            grid = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
            yield f"noise-{cells}-{index}", np.asarray(grid.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        angle, frequency, side = rng.uniform(0, np.pi), rng.uniform(0.05, 0.5), rng.integers(6, 48)
        stripes = (np.sin(frequency * (np.cos(angle) * x + np.sin(angle) * y)) + 1) / 2
        checks = (x // side + y // side) % 2
        for kind, share in (("stripes", stripes), ("checks", checks), ("plain", np.zeros_like(stripes))):
            first, second = rng.integers(0, 256, (2, 3))
            yield f"{kind}-{index}", (share[..., None] * first + (1 - share[..., None]) * second).astype(np.uint8)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill TARGET; status 2 with one line if the pictures are not in SOURCE."""
    parser = Parser(prog=PROGRAM, description=__doc__)
    parser.add_argument("source", type=Path, help="the folder usr/share/tuxpaint/stamps of the package")
    parser.add_argument("target", type=Path, help="the folder to fill")
    options = parser.parse_args(arguments)
    if missing := link_pictures(options.source, options.target):
        print(f"{PROGRAM}: {len(missing)} pictures are missing, such as {missing[0]}", file=sys.stderr)
        return 2
    textures = options.target / "textures"
    textures.mkdir(exist_ok=True)
    for name, pixels in draw_textures():
        Image.fromarray(pixels).save(textures / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
