"""Objects as pictures: one PNG an object, and label images."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minimrcnn.data.coco import CocoFolder
from minimrcnn.data.formats import open_data
from minimrcnn.data.pictures import read_values
from minimrcnn.errors import DataError
from tests.photos_made import HEIGHT, WIDTH, save, save_values, write_nuclei

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def nuclei(tmp_path):
    return write_nuclei(tmp_path)


def test_mask_files(nuclei):
    save(nuclei / "unseen" / "images" / "unseen.png")
    opened = open_data(nuclei)
    assert opened.format == "mask-files"
    assert opened.describe().endswith("one PNG an object, 2 photos, 4 objects, 1 class (object 4)")
    assert opened.faults.notes == {"photos without annotation, left out": ["unseen/images/unseen.png"]}
    _, target = opened.dataset[0]
    assert target.boxes.tolist() == [[2, 3, 10, 9], [12, 5, 20, 11], [20, 14, 28, 20]]
    assert target.masks.sum(axis=(1, 2)).tolist() == [48] * 3


def test_real_nuclei_survive_both_ways(tmp_path):
    if not (DATA / "nuclei").exists():
        pytest.skip(f"{DATA / 'nuclei'} is not on this machine")
    truth = CocoFolder(DATA / "nuclei" / "val").subset(range(0, 20, 5))
    for index, path in enumerate(truth.paths):
        _, target = truth[index]
        numbers = np.zeros(target.masks.shape[1:], np.uint16)
        for number, mask in enumerate(target.masks, 1):
            save_values(tmp_path / "files" / path.stem / "masks" / f"{number:04d}.png", mask * 255)
            numbers[mask > 0] = number
        save_values(tmp_path / "labels" / "masks" / path.name, numbers)
        for folder in (tmp_path / "files" / path.stem / "images", tmp_path / "labels" / "images"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / path.name).write_bytes(path.read_bytes())
    known = truth.class_names, truth.category_ids
    for name in ("files", "labels"):
        dataset = open_data(tmp_path / name, known=known).dataset
        assert dataset.class_names == ("background", "nucleus")
        for index in range(len(truth)):
            (picture, wanted), (again, target) = truth[index], dataset[index]
            np.testing.assert_array_equal(picture, again)
            np.testing.assert_array_equal(wanted.masks, target.masks)
            np.testing.assert_array_equal(wanted.boxes, target.boxes)


def test_mask_files_faults(nuclei):
    path = nuclei / "ff03" / "masks" / "0ff03.png"
    save_values(path, np.full((HEIGHT, WIDTH + 1), 255, np.uint8))
    with pytest.raises(DataError, match=re.escape("0ff03.png: width 33 and height 24, but ")) as caught:
        open_data(nuclei)
    assert str(caught.value).startswith(str(path))
    save_values(path, np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    with pytest.raises(DataError, match=re.escape("0ff03.png: the mask has colors or fractions, wanted one whole")):
        open_data(nuclei)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=re.escape("0ff03.png: the mask is not a picture that can be read")):
        open_data(nuclei)
    save_values(path, np.zeros((HEIGHT, WIDTH), np.uint8))
    notes = open_data(nuclei).faults.notes
    assert len(notes["objects left out, as they cover no pixel"]) == 1


@pytest.mark.parametrize(
    "photos, masks, name, label, mode, words",
    [
        ("PNGImages", "PedMasks", "FudanPed00001.png", "FudanPed00001_mask.png", "L", "person 3"),
        ("PNGImages", "PedMasks", "FudanPed00001.png", "FudanPed00001_mask.png", "P", "person 3"),
        ("images", "masks", "a.jpg", "a.png", "L", "object 3"),
        ("images", "masks", "sub/a.jpg", "sub/A_label.tif", "I;16", "object 3"),
        ("images", "masks", "a_mask.jpg", "a_mask.png", "L", "object 3"),
    ],
)
def test_label_images(tmp_path, photos, masks, name, label, mode, words):
    values = np.zeros((HEIGHT, WIDTH), np.uint16)
    values[2:8, 3:9], values[10:20, 3:9], values[0:5, 20:30] = 1, 2, 7
    values = values * 300 if mode == "I;16" else values.astype(np.uint8)
    save(tmp_path / photos / name)
    save(tmp_path / photos / "unseen.png")
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    (tmp_path / masks / label).parent.mkdir(parents=True)
    image.save(tmp_path / masks / label)
    opened = open_data(tmp_path)
    assert opened.format == "label-images" and words in opened.describe()
    assert opened.dataset[0][1].boxes.tolist() == [[3, 2, 9, 8], [3, 10, 9, 20], [20, 0, 30, 5]]
    assert opened.faults.notes == {"photos without annotation, left out": [f"{photos}/unseen.png"]}


def test_a_label_image_of_the_very_name_goes_before_one_with_an_ending(tmp_path):
    save(tmp_path / "images" / "a.png")
    for name, height in (("a.png", 3), ("a_mask.png", 7)):
        save_values(tmp_path / "masks" / name, (np.mgrid[:HEIGHT, :WIDTH][0] < height).astype(np.uint8))
    assert open_data(tmp_path).dataset[0][1].boxes.tolist() == [[0, 0, WIDTH, 3]]


def test_label_images_faults(tmp_path):
    save(tmp_path / "images" / "a.png")
    label = save_values(tmp_path / "masks" / "a.png", np.zeros((WIDTH, HEIGHT), np.uint8))
    with pytest.raises(DataError, match="masks/a.png: width 24 and height 32, but .*; was it annotated before it was"):
        open_data(tmp_path)
    numbers = np.arange(6000, dtype=np.uint16).reshape(60, 100)
    save_values(label, numbers)
    save(tmp_path / "images" / "a.png", 60, 100)
    with pytest.raises(DataError, match="masks/a.png: holds 5999 values from 1 to 5999, .* is it a photo"):
        open_data(tmp_path)
    save_values(label, np.eye(60, 100, dtype=np.uint8)[::-1] * (np.arange(100) % 4 == 0))
    places = open_data(tmp_path).faults.notes["label images with one value in several places, taken for one object"]
    assert places == ["masks/a.png"]
    label.unlink()
    label = save_values(label.with_suffix(".tif"), numbers.astype(np.int32) % 7 - (numbers == 0))
    with pytest.raises(DataError, match="masks/a.tif: holds 7 values from -1 to 6, .* is it a photo"):
        open_data(tmp_path)
    label.unlink()
    Image.fromarray(numbers.astype(np.uint8)).save(tmp_path / "masks" / "a.jpg")
    with pytest.raises(DataError, match="label image is a JPEG, which changes the values of pixels"):
        open_data(tmp_path)


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "I", "RGB", "RGBA"])
def test_read_values_of_every_mode(tmp_path, mode):
    values = np.zeros((5, 7), np.uint8)
    values[1:3, 2:6] = 1
    image = Image.fromarray(values * 255).convert("1") if mode == "1" else Image.fromarray(values).convert(mode)
    if mode == "P":
        image = Image.fromarray(values)
        image.putpalette([9, 9, 9, 200, 0, 0])
    path = tmp_path / ("m.tif" if mode == "I" else "m.png")
    image.save(path)
    got = read_values(path, "mask")
    assert got.shape == (5, 7) and got.dtype.kind in "iu"
    np.testing.assert_array_equal(got != 0, values != 0)
