"""How the shipped pictures of the toybox were made; users never run or import this file.

    python -m dsd_lab.worlds.build.toybox    # render the usual world, write toybox_data/

The pictures are lossless: every published number rests on these bits, and another machine's
rendering may differ from them in a last bit here and there.
"""

import numpy as np
from PIL import Image

from ...files import write_file, write_whole
from ..shipped import checksum
from ..toybox.toys import KINDS
from ..toybox.views import CHECKSUMS, DATA, rendered_views, sheet
from ..toybox.world import SHIPPED, usual_toys


def write_sheet(kind: str, views: np.ndarray) -> None:
    """Write a kind's pictures, uint8 (toys, V, 3, H, W), as one picture file."""
    toys, cameras, channels, height, width = views.shape
    pixels = views.transpose(0, 3, 1, 4, 2).reshape(toys * height, cameras * width, channels)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    best = {"lossless": True, "quality": 100, "method": 6, "exact": True}
    write_whole(sheet(kind), lambda place: picture.save(place, "webp", **best))


def write_checksums() -> None:
    """Write checksums.sha256 for the pictures in the data folder."""
    lines = [checksum(file.read_bytes(), file.name) + "\n" for file in sorted(DATA.glob("*.webp"))]
    write_file(DATA / CHECKSUMS, "".join(lines))


def main() -> None:
    per_kind, cameras = SHIPPED
    toys, _ = usual_toys(per_kind)
    views = rendered_views(toys, cameras).numpy()
    DATA.mkdir(exist_ok=True)
    for kind in KINDS:
        write_sheet(kind, views[[own == kind for own in toys.kinds]])
    write_checksums()


if __name__ == "__main__":
    main()
