"""Pictures of every kind, made here, and everything that is not one."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from minimrcnn.data.pictures import as_picture, is_too_dark, picture_size, read_picture, read_values, safe_join
from minimrcnn.errors import DataError

# Four colors in the corners of a 40 x 24 picture tell every rotation and flip apart.
COLORS = np.array([[[250, 10, 10], [10, 250, 10]], [[10, 10, 250], [240, 240, 20]]], np.uint8)
PICTURE = COLORS.repeat(20, axis=0).repeat(12, axis=1)  # (2, 2, 3) -> (40, 24, 3)


def test_rgb(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    got = read_picture(tmp_path / "a.png")
    assert got.dtype == np.uint8 and got.flags.writeable and got.flags.c_contiguous
    np.testing.assert_array_equal(got, PICTURE)
    assert picture_size(tmp_path / "a.png") == (40, 24)


SEEN = {  # how the stored pixels are to be seen, by EXIF orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
    99: lambda a: a,
}


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", SEEN)
def test_exif_rotation_is_applied(tmp_path, orientation, suffix):
    exif, path = Image.Exif(), tmp_path / f"a.{suffix}"
    exif[0x0112] = orientation
    Image.fromarray(PICTURE).save(path, exif=exif)
    wanted = SEEN[orientation](PICTURE)
    np.testing.assert_array_equal(read_picture(path), wanted)
    assert picture_size(path) == wanted.shape[:2]
    with Image.open(path) as image:
        np.testing.assert_array_equal(as_picture(image), wanted)


@pytest.mark.parametrize("orientation", SEEN)
@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "I;16"])
def test_a_turned_tiff_is_not_mixed_up(tmp_path, mode, orientation):
    """Pillow maps such files into memory, with rows as long as those of the upright picture."""
    exif, path, gray = Image.Exif(), tmp_path / "a.tif", PICTURE[:, :, 0]
    exif[0x0112] = orientation
    image = Image.fromarray(gray * np.uint16(257)) if mode == "I;16" else Image.fromarray(gray).convert(mode)
    image.save(path, exif=exif)
    wanted = SEEN[orientation](PICTURE)[:, :, 0]
    np.testing.assert_array_equal(read_picture(path)[:, :, 0], wanted)
    assert picture_size(path) == wanted.shape


def test_masks_are_turned_upright_as_photos_are(tmp_path):
    exif, path = Image.Exif(), tmp_path / "a.png"
    exif[0x0112] = 6
    for mode in ("L", "RGB", "LA", "RGBA"):
        gray = Image.fromarray(PICTURE[:, :, 0])
        gray.convert(mode).save(path, exif=exif)
        np.testing.assert_array_equal(read_values(path, "mask"), np.rot90(PICTURE[:, :, 0], -1))


def test_exif_behind_the_pixels_of_a_png(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    whole, data = (tmp_path / "a.png").read_bytes(), b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    (tmp_path / "a.png").write_bytes(whole[:-12] + chunk + whole[-12:])  # the last chunk, IEND, has 12 bytes
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), np.rot90(PICTURE, -1))
    assert picture_size(tmp_path / "a.png") == (24, 40)


def test_the_size_of_a_png_is_told_without_its_pixels(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    start = whole.index(b"IDAT") + 4
    (tmp_path / "a.png").write_bytes(whole[:start] + b"\0" * 8 + whole[start + 8 :])  # no pixels can be made of that
    assert picture_size(tmp_path / "a.png") == (40, 24)
    with pytest.raises(DataError, match="damaged"):
        read_picture(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_jpeg_with_exif_and_with_damaged_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURE).save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    assert np.abs(read_picture(tmp_path / "a.jpg").astype(int) - np.rot90(PICTURE, -1)).mean() < 5
    Image.fromarray(PICTURE).save(tmp_path / "b.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff", quality=95)
    assert read_picture(tmp_path / "b.jpg").shape == (40, 24, 3)  # the pixels are fine


def test_palette_gray_alpha_and_cmyk(tmp_path):
    image = Image.fromarray(PICTURE)
    image.quantize(4).save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "palette.png"), PICTURE)
    image.quantize(4).save(tmp_path / "transparent.png", transparency=bytes([0, 255, 255, 255]))
    np.testing.assert_array_equal(read_picture(tmp_path / "transparent.png"), PICTURE)

    gray = np.arange(960, dtype=np.uint8).reshape(40, 24)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "gray.png"), gray[:, :, None].repeat(3, 2))
    Image.fromarray(gray > 99).save(tmp_path / "one_bit.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "one_bit.png")[:, :, 1], np.where(gray > 99, 255, 0))

    alpha = np.full((40, 24, 1), 7, np.uint8)
    Image.fromarray(np.concatenate([PICTURE, alpha], axis=2)).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "rgba.png"), PICTURE)
    Image.fromarray(np.concatenate([gray[:, :, None], alpha], axis=2)).save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "la.png")[:, :, 2], gray)

    image.convert("CMYK").save(tmp_path / "cmyk.tif")
    assert np.abs(read_picture(tmp_path / "cmyk.tif").astype(int) - PICTURE).max() < 3


def test_gray_of_16_bits_is_scaled_not_cut_off(tmp_path):
    gray = np.linspace(0, 65535, 960).astype(np.uint16).reshape(40, 24)
    Image.fromarray(gray).save(tmp_path / "deep.png")
    Image.fromarray(gray).save(tmp_path / "deep.tif")
    Image.fromarray(gray.astype(np.int32)).save(tmp_path / "deeper.tif")
    Image.fromarray(gray.astype(np.float32) / 65535).save(tmp_path / "float.tif")
    for name in ("deep.png", "deep.tif", "deeper.tif", "float.tif"):
        np.testing.assert_array_equal(read_picture(tmp_path / name)[:, :, 0], np.round(gray / 257))
    Image.fromarray(gray.astype(np.float32)).save(tmp_path / "wild.tif")
    with pytest.raises(DataError, match=r"wild.tif: gray values from 0 to 65535, wanted 0 to 1"):
        read_picture(tmp_path / "wild.tif")


@pytest.mark.parametrize("bits, dark", [(12, True), (14, True), (15, False)])
def test_photos_of_fewer_bits_than_their_file_has_are_dark(tmp_path, bits, dark):
    Image.fromarray(np.linspace(0, 2**bits - 1, 64).round().astype(np.uint16).reshape(8, 8)).save(tmp_path / "a.png")
    assert is_too_dark(read_picture(tmp_path / "a.png"), tmp_path / "a.png") == dark


def test_damaged_files_are_named(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 24, 3), np.uint8)).save(tmp_path / "whole.png")
    Image.fromarray(PICTURE).save(tmp_path / "whole.jpg")
    for suffix in ("png", "jpg"):
        content = (tmp_path / f"whole.{suffix}").read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(content[: len(content) * 2 // 3])
        with pytest.raises(DataError, match=rf"cut.{suffix}: .*replace the file"):
            read_picture(tmp_path / f"cut.{suffix}")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name in ("text.png", "empty.jpg"):
        with pytest.raises(DataError, match=f"{name}: not a picture that can be read"):
            read_picture(tmp_path / name)
    (tmp_path / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(DataError, match="phone.HEIC: pictures of this format are not read; save it as JPEG or PNG"):
        read_picture(tmp_path / "phone.HEIC")
    with pytest.raises(DataError, match="a{300}: cannot be read"):  # whatever the system says: here, a name too long
        read_picture(tmp_path / ("a" * 300))
    with pytest.raises(DataError, match="missing.png: no such file"):
        read_picture(tmp_path / "missing.png")
    with pytest.raises(DataError, match="this is a folder"):
        read_picture(tmp_path)


def test_programs_are_not_pictures(tmp_path):
    """PostScript is one, and Pillow would start Ghostscript to run it, whatever the file is called."""
    Image.fromarray(PICTURE).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "EPS"
    with pytest.raises(DataError, match="not a picture"):
        read_picture(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="not a picture"):
        read_values(tmp_path / "a.jpg", "mask")


def png_header(path, width, height):
    """A PNG that claims a size and holds no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = b"IDAT" + zlib.compress(b"")
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_000, 10_000, 100_000])
def test_absurdly_large_pictures_are_refused_by_their_header(tmp_path, side):
    png_header(tmp_path / "bomb.png", side, side)
    for read in (read_picture, picture_size):
        with pytest.raises(DataError, match="bomb.png: .*scale (it|the picture) down"):
            read(tmp_path / "bomb.png")


def test_the_limit_can_be_changed(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="24 x 40 pixels are more than the 959 that are allowed"):
        read_picture(tmp_path / "a.png", max_pixels=959)
    assert read_picture(tmp_path / "a.png", max_pixels=960).shape == (40, 24, 3)


def test_as_picture_takes_arrays_paths_and_images(tmp_path):
    assert as_picture(PICTURE) is PICTURE
    floats = (PICTURE / 255).astype(np.float64)
    assert as_picture(floats).dtype == np.float32
    np.testing.assert_allclose(as_picture(floats), floats, atol=1e-7)
    np.testing.assert_array_equal(as_picture(PICTURE[:, :, 0]), PICTURE[:, :, :1].repeat(3, 2))
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    for value in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(PICTURE)):
        np.testing.assert_array_equal(as_picture(value), PICTURE)


@pytest.mark.parametrize(
    "value, error, message",
    [
        (PICTURE[:, :, :2], ValueError, r"shape \(40, 24, 2\), wanted \(H, W, 3\)"),
        (PICTURE[None], ValueError, r"shape \(1, 40, 24, 3\)"),
        (PICTURE[:0], ValueError, "has no pixels"),
        (PICTURE.astype(np.int64), ValueError, "array of int64, wanted uint8"),
        (PICTURE.astype(np.float32), ValueError, "floats from 10 to 250, wanted 0 to 1"),
        (np.full((4, 4, 3), np.nan), ValueError, "floats from nan to nan"),
        (np.full((4, 4, 3), -0.1), ValueError, "floats from -0.1"),
        ([[1, 2], [3, 4]], TypeError, "got list, wanted an array, a path or a PIL image"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_as_picture_refuses(value, error, message):
    with pytest.raises(error, match=message):
        as_picture(value)


def test_safe_join(tmp_path):
    assert safe_join(tmp_path, "a.png") == tmp_path / "a.png"
    assert safe_join(tmp_path, "train\\a.png") == safe_join(tmp_path, "train/a.png") == tmp_path / "train" / "a.png"
    for name in ("../a.png", "x/../../a.png", "x\\..\\..\\a.png", "x/../a.png"):
        with pytest.raises(DataError, match="leads out of"):
            safe_join(tmp_path, name)
    for name in ("/etc/passwd", "\\\\server\\a.png", "C:\\a.png", "c:a.png"):
        with pytest.raises(DataError, match="is absolute"):
            safe_join(tmp_path, name)
    without_letters = () if os.name == "nt" else ("\ud800.png",)  # which Windows has files with
    for name in ("", ".", "./", "a\0.png", *without_letters):
        with pytest.raises(DataError, match="names no file"):
            safe_join(tmp_path, name)


def test_safe_join_where_realpath_accepts_a_zero(tmp_path, monkeypatch):
    """As on Windows from Python 3.12 on."""
    monkeypatch.setattr(os.path, "realpath", str)
    with pytest.raises(DataError, match="names no file"):
        safe_join(tmp_path, "a\0.png")


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_safe_join_follows_links(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.png").write_text("secret")
    (tmp_path / "inside" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "inside" / "loop.png").symlink_to(tmp_path / "inside" / "loop.png")
    with pytest.raises(DataError, match="leads out of"):
        safe_join(tmp_path / "inside", "link.png")
    with pytest.raises(DataError):
        read_picture(safe_join(tmp_path / "inside", "loop.png"))
    (tmp_path / "other").symlink_to(tmp_path / "inside")  # the folder itself may be a link
    assert safe_join(tmp_path / "other", "a.png") == tmp_path / "other" / "a.png"
