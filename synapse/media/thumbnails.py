"""Thumbnails: which sizes there are, and making one of a picture.

Only a handful of sizes is made, so that nobody can fill the disk by asking for each pixel more; a request gets the one
that suits it best. Pillow is loaded when the first thumbnail is made. `make` blocks and is called on a thread.

Client-server API, "Thumbnails".
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final, NamedTuple

from synapse.api.errors import MatrixError, too_large, unknown

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS: Final = 32_000_000
"""Of the original: some 100 MB once it is decoded."""

CROP: Final = "crop"
SCALE: Final = "scale"
METHODS: Final = (CROP, SCALE)
_FORMATS: Final = ("JPEG", "PNG", "GIF", "WEBP")
TYPES: Final = frozenset({"image/jpeg", "image/jpg", "image/png", "image/gif", "image/webp"})


class Size(NamedTuple):
    """A size that thumbnails are made in, in pixels."""

    width: int
    height: int
    method: str


SIZES: Final = (
    Size(32, 32, CROP),
    Size(96, 96, CROP),
    Size(320, 240, SCALE),
    Size(640, 480, SCALE),
    Size(800, 600, SCALE),
)


class Made(NamedTuple):
    """A thumbnail: its type and its bytes."""

    media_type: str
    data: bytes


def choose(width: int, height: int, method: str) -> Size:
    """The size to serve: the smallest of that method that is not smaller than asked, else the largest of it."""
    fitting = [size for size in SIZES if size.method == method]
    enough = [size for size in fitting if size.width >= width and size.height >= height]
    return enough[0] if enough else fitting[-1]


def make(path: str, size: Size) -> Made:
    """A thumbnail of the picture in that file: never larger than the picture itself.

    Raises 400 M_UNKNOWN if it is no picture, 413 M_TOO_LARGE if it has too many pixels.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise too_large(f"Pictures of more than {MAX_PIXELS // 1_000_000} megapixels get no thumbnail.")
            image.draft("RGB", (size.width * 2, size.height * 2))  # a JPEG can be decoded smaller than it is
            return _encode(_resize(ImageOps.exif_transpose(image), size))
    except MatrixError:
        raise
    except Exception as error:  # a decoder fed with hostile bytes may raise anything
        raise not_a_picture() from error


def not_a_picture() -> MatrixError:
    return unknown("No thumbnail can be made of this file: it is not a JPEG, PNG, GIF or WebP picture.")


def _resize(image: Image, size: Size) -> Image:
    from PIL import ImageOps
    from PIL.Image import Resampling

    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if size.method == CROP:
        wanted = (min(size.width, image.width), min(size.height, image.height))
        return ImageOps.fit(image, wanted, Resampling.LANCZOS)
    image.thumbnail((size.width, size.height), Resampling.LANCZOS)
    return image


def _encode(image: Image) -> Made:
    """JPEG for what has no transparency: a fifth of the bytes."""
    out = io.BytesIO()
    if image.mode == "RGBA":
        image.save(out, "PNG")
        return Made("image/png", out.getvalue())
    image.save(out, "JPEG", quality=80)
    return Made("image/jpeg", out.getvalue())
