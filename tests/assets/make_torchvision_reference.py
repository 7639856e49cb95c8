"""Write `torchvision_transforms.json`: what torchvision makes of pictures with odd sides.

    pip install torch==2.13.0 torchvision==0.28.0    # in an environment of its own
    python tests/assets/make_torchvision_reference.py

`pixels` are those of Resize, CenterCrop or a stretched Resize, ToTensor and Normalize; `boxes` those of
RandomResizedCrop where no draw fits. The picture is `picture` of tests/unit/data/images/test_transforms.py.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision import transforms

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Widths and heights whose scaled sides exceed 6 by 1, 3, 5 and 7 pixels, so that half a pixel is rounded up
# and down; then sides without a common factor, smaller and larger than the result.
SIZES = [
    (14, 12),
    (18, 12),
    (22, 12),
    (26, 12),
    (12, 14),
    (12, 18),
    (12, 22),
    (12, 26),
    (13, 29),
    (31, 17),
    (5, 3),
]
NARROW = [(31, 201), (17, 90), (301, 20), (50, 11), (1, 41), (17, 1)]


def picture(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    planes = [x * 255 // width, y * 255 // height, (x * x * 7 + y * 13 + x * y * 3) % 256]
    return Image.fromarray(np.stack(planes, axis=2).astype(np.uint8))


def main() -> None:
    bicubic = transforms.InterpolationMode.BICUBIC
    pixels = []
    for side in (6, 7):
        chains = {
            "clip": [transforms.Resize(side, bicubic), transforms.CenterCrop(side)],
            "blip": [transforms.Resize((side, side), bicubic)],
            "vit": [transforms.Resize((side, side), bicubic)],
        }
        for name, steps in chains.items():
            half = (0.5, 0.5, 0.5)
            normalize = transforms.Normalize(half, half) if name == "vit" else transforms.Normalize(MEAN, STD)
            chain = transforms.Compose([*steps, transforms.ToTensor(), normalize])
            for size in SIZES if name == "clip" else SIZES[-3:]:
                values = chain(picture(*size)).flatten().tolist()
                row = {
                    "name": name,
                    "side": side,
                    "size": size,
                    "pixels": [round(value, 4) for value in values],
                }
                pixels.append(row)
    boxes = []
    for width, height in NARROW:
        top, left, h, w = transforms.RandomResizedCrop.get_params(
            Image.new("RGB", (width, height)), [1.0, 1.0], [3 / 4, 4 / 3]
        )
        boxes.append({"size": (width, height), "box": [left, top, left + w, top + h]})
    lines = ",\n".join(json.dumps(row) for row in pixels)
    places = ",\n".join(json.dumps(row) for row in boxes)
    file = Path(__file__).parent / "torchvision_transforms.json"
    file.write_text(f'{{"pixels": [\n{lines}\n],\n"boxes": [\n{places}\n]}}\n')


if __name__ == "__main__":
    main()
