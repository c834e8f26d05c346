"""Pictures from wherever they come to (H, W, 3) arrays: red, green, blue, the way up they are meant to be seen.

Pillow knows the file formats; what is decided here is what becomes of a picture that is not plain RGB:

- The rotation in a camera's EXIF data is applied, so that the array shows what a viewer shows.
- Gray values are given to all three channels, palettes are looked up, CMYK and the like are converted.
- Alpha is dropped, as ``Image.convert("RGB")`` does: transparent pixels keep the color they are stored with.
- Gray values of 16 bits are scaled, 65535 to 255, not cut off; those of 32-bit floats are taken to run from 0 to 1.
- Of an animation the first frame is taken.

Only formats of pixels are read, whatever a file calls itself: Pillow knows others as well, one of which, PostScript, it
has a program run.
"""

from __future__ import annotations

import functools
import os
import re
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from minimrcnn.errors import DataError
from minimrcnn.geometry.resizing import find_neighbors

# What in a folder is taken for a picture.
SUFFIXES = frozenset(".jpg .jpeg .jpe .jfif .png .bmp .gif .tif .tiff .webp .avif .jp2 .ppm .pgm .pbm .tga".split())
FORMATS = "JPEG MPO PNG BMP DIB GIF TIFF WEBP AVIF JPEG2000 PPM TGA".split()  # Pillow's names
MAX_PIXELS = 80_000_000  # 240 MB as an array; below the size at which Pillow itself begins to warn
DARK = 64  # of 255: what the values of a photo reach at most that was recorded with 14 of its 16 bits, or fewer
TOO_DARK = (
    "photos of more than 8 bits without a value in the upper three quarters, which makes them dark; multiply the "
    "values, those of 12 bits by 16, or save photos of 8 bits"
)

ORIENTATION = 0x0112  # the EXIF tag, and what undoes each of its values
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def as_picture(value) -> np.ndarray:
    """Whatever may stand for a picture, as a checked array.

    Parameters
    ----------
    value : ndarray, path or PIL image
        An array is (H, W, 3) or gray, (H, W) or (H, W, 1), of uint8 or of floats from 0 to 1.

    Returns
    -------
    ndarray (H, W, 3) uint8, or float32 where ``value`` is an array of floats
        The array itself where nothing had to be changed.

    Raises
    ------
    DataError
        The file cannot be read.
    TypeError, ValueError
        The value is nothing of the kind; an array has the wrong shape, type or range.
    """
    if isinstance(value, (str, os.PathLike)):
        return read_picture(value)
    if isinstance(value, Image.Image):
        return _decode(value, getattr(value, "filename", "") or "picture")
    if not isinstance(value, np.ndarray):
        raise TypeError(f"as_picture: got {type(value).__name__}, wanted an array, a path or a PIL image")

    if value.ndim == 2:
        value = value[:, :, None]
    if value.shape[2:] == (1,):
        value = np.repeat(value, 3, axis=2)  # (H, W, 1) -> (H, W, 3)
    if value.ndim != 3 or value.shape[2] != 3:
        remedy = "; without its alpha it is picture[..., :3]" if value.shape[2:] == (4,) else ""
        raise ValueError(f"as_picture: array of shape {value.shape}, wanted (H, W, 3) or gray (H, W){remedy}")
    if 0 in value.shape:
        raise ValueError(f"as_picture: array of shape {value.shape} has no pixels")
    if value.dtype == np.uint8:
        return value
    if value.dtype.kind != "f":
        remedy = "; that is picture / 65535" if value.dtype == np.uint16 else ""
        raise ValueError(f"as_picture: array of {value.dtype}, wanted uint8, or floats from 0 to 1{remedy}")
    if not (value.min() >= 0 and value.max() <= 1):  # so written, NaN fails
        raise ValueError(f"as_picture: floats from {value.min():g} to {value.max():g}, wanted 0 to 1")
    return value.astype(np.float32, copy=False)


def read_picture(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a picture file.

    Parameters
    ----------
    path : path
    max_pixels : int
        A larger picture is refused by its header, before anything of it is decoded.

    Returns
    -------
    ndarray (H, W, 3) uint8
        Upright, red, green, blue.

    Raises
    ------
    DataError
        The file is missing, no picture, cut short, or too large.
    """
    with _open(path, max_pixels) as image:
        return _decode(image, path)


def read_values(source, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The values of a picture, upright, but otherwise as stored, for those that number objects: masks, label images.

    Parameters
    ----------
    source : path or file object
    name : str
        What errors call it; the file is the caller's to name.
    max_pixels : int
        A larger one is refused by its header.

    Returns
    -------
    ndarray (H, W) of integers
        Gray values, indices of a palette, or what all three colors agree on.

    Raises
    ------
    DataError
        Not a picture, cut short, too large, or in colors.
    """
    try:
        with Image.open(source, formats=known_formats()) as image:
            _read_stream(image)
            if image.format == "JPEG":
                raise DataError(
                    f"the {name} is a JPEG, which changes the values of pixels; save it as PNG from the start"
                )
            if image.width * image.height > max_pixels:
                raise DataError(
                    f"the {name} has {image.width} x {image.height} pixels, more than the {max_pixels} that are allowed"
                )
            image.load()
            values = np.asarray(_turn_upright(image, _orientation(image)))
            colors = sum(band != "A" for band in image.getbands())
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError("no such file") from None
    except Exception as error:  # see _open
        raise DataError(f"the {name} is not a picture that can be read ({error}); save it as PNG again") from error
    if values.ndim == 3 and (values[:, :, :colors] == values[:, :, :1]).all():
        values = values[:, :, 0]  # gray, saved in colors or with alpha
    if values.ndim != 2 or values.dtype.kind not in "biu":
        raise DataError(f"the {name} has colors or fractions, wanted one whole number a pixel; save it as a gray PNG")
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


def picture_size(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) of a picture file as `read_picture` would return it, from the header alone."""
    with _open(path, max_pixels) as image:
        # Of a TIFF, Pillow's size is that of the upright picture already.
        rotated = image.format != "TIFF" and _has_exif(image) and _orientation(image) >= 5
        return (image.width, image.height) if rotated else (image.height, image.width)


def find_scale(size: tuple[int, int], min_size: int, max_size: int) -> float:
    """By what a model with these sizes in its Config multiplies the sides of a picture (height, width)."""
    return min(min_size / min(size), max_size / max(size))


def reduced_size(size: tuple[int, int], min_size: int, max_size: int) -> tuple[int, int]:
    """The (height, width) that a larger picture can be brought to before a model with these sizes in its Config resizes
    it, as it then leaves it as it is; a smaller one keeps its own."""
    scale = find_scale(size, min_size, max_size)
    return size if scale >= 1 else tuple(max(round(side * scale), 1) for side in size)


def reduce_picture(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture (H, W, 3) uint8 with fewer pixels, ``size`` = (height, width).

    Each is the mixture of four, as `functional.resize_bilinear` mixes them when a model resizes a picture, so that
    objects are trained on as they will be looked for; but rounded, and by NumPy, for the loader's thread.
    """
    (top, bottom, down), (left, right, across) = (
        find_neighbors(side, wanted, np.float32) for side, wanted in zip(picture.shape[:2], size, strict=True)
    )
    across, down = across[:, None], down[:, None, None]
    above, below = (
        picture[rows[:, None], left] * (1 - across) + picture[rows[:, None], right] * across for rows in (top, bottom)
    )
    return np.round(above * (1 - down) + below * down).astype(np.uint8)


def is_deep(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether the values of a picture file have more than 8 bits, from the header alone."""
    with _open(path, max_pixels) as image:
        return image.mode.startswith(("I", "F")) or bool(re.search(";16[BLN]", str(image.tile)))  # gray, or in colors


def is_too_dark(picture: np.ndarray, path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether `TOO_DARK` is to be said of a ``picture`` (H, W, 3) uint8 that `read_picture` gave for ``path``.

    As cameras of microscopes leave them: 12 bits in files of 16. Dark photos of 8 bits are what they are.
    """
    return bool(picture.max() <= DARK) and is_deep(path, max_pixels)


def safe_join(folder: str | os.PathLike, name: str) -> Path:
    """The path of a file that a data set names, which must lie in the data set's folder.

    Windows' backslashes count as slashes. Refused with `DataError` are absolute names, ``..`` and links out of the
    folder: a data set from elsewhere shall not read, or show, other files than its own.
    """
    plain = name.replace("\\", "/")
    path = Path(folder) / plain
    try:
        real = Path(os.path.realpath(path))
    except ValueError:  # letters that a system of fewer has no files with
        real = None
    if not plain.strip("./") or "\0" in plain or real is None:  # some systems find a place for a zero, too
        raise DataError(f"file name {name!r} names no file in {folder}")
    if plain.startswith("/") or re.match("[A-Za-z]:", plain):
        raise DataError(f"file name {name!r} is absolute, wanted a name relative to {folder}")
    if ".." in plain.split("/") or Path(os.path.realpath(folder)) not in real.parents:
        raise DataError(f"file name {name!r} leads out of {folder}; put the file into the folder")
    return path


@functools.cache
def known_formats() -> list[str]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _open(path: str | os.PathLike, max_pixels: int) -> Image.Image:
    """Open a picture file as far as its header, which tells whether it is too large."""
    try:
        image = Image.open(path, formats=known_formats())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: this is a folder, wanted a picture file") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: the picture is absurdly large ({error}); scale it down") from error
    except Exception as error:  # damaged files make Pillow's readers raise all sorts of errors
        if isinstance(error, OSError) and error.errno:  # the system's, not Pillow's
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        if Path(path).suffix.lower() in (".heic", ".heif"):
            raise DataError(f"{path}: pictures of this format are not read; save it as JPEG or PNG") from error
        raise DataError(f"{path}: not a picture that can be read ({error}); replace the file, or remove it") from error
    if image.width * image.height > max_pixels:
        image.close()
        raise DataError(
            f"{path}: {image.width} x {image.height} pixels are more than the {max_pixels} that are allowed; "
            "scale the picture down, or read it with a higher max_pixels"
        )
    _read_stream(image)
    return image


def _read_stream(image: Image.Image) -> None:
    """Have an opened file read, not mapped into memory.

    Pillow (13) lays the rows of a mapped TIFF out by its upright size, so that those of a turned photo come out mixed.
    It maps files by their name.
    """
    image.filename = ""


def _decode(image: Image.Image, name: str | os.PathLike) -> np.ndarray:
    """The pixels of an opened picture, (H, W, 3) uint8."""
    try:
        image.load()
        upright = _turn_upright(_to_rgb(image), _orientation(image))
    except MemoryError:
        raise
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except Exception as error:  # see _open
        raise DataError(f"{name}: the picture is damaged or cut short ({error}); replace the file") from error
    return np.array(upright)  # a copy, which can be written to


def _has_exif(image: Image.Image) -> bool:
    """Whether an opened file may have EXIF data; of a PNG, Pillow would decode all pixels to see what follows them."""
    if image.format != "PNG" or {"exif", "Raw profile type exif"} & set(image.info):
        return True
    before, place, pixels = image.fp.tell(), 8, False
    image.fp.seek(place)  # behind the signature; then come chunks: length, name, contents, checksum
    while len(start := image.fp.read(8)) == 8:
        length, name = struct.unpack(">I4s", start)
        if pixels and name in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
            break
        pixels = pixels or name == b"IDAT"
        place += 12 + length
        image.fp.seek(place)
    image.fp.seek(before)
    return len(start) == 8


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, 1 being upright; 1 if the picture tells none or its EXIF data are damaged."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # see _open; the pixels may be fine all the same
        return 1
    return value if value in UPRIGHT else 1


def _turn_upright(pixels: Image.Image, orientation: int) -> Image.Image:
    return pixels.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    """An RGB image of 8 bits a channel from one of any mode."""
    if image.mode.startswith(("I", "F")):  # one channel of more than 8 bits, which Pillow would cut off
        gray = np.asarray(image).astype(np.float64)
        highest = 1.0 if image.mode == "F" else 65535.0
        if not (gray.min() >= 0 and gray.max() <= highest):
            raise DataError(
                f"gray values from {gray.min():g} to {gray.max():g}, wanted 0 to {highest:g}; save it with 8 bits"
            )
        image = Image.fromarray(np.round(gray * (255 / highest)).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns where this step is left out
    return image.convert("RGB")
