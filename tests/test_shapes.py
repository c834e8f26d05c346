"""The generated pictures keep their promises, plain and textured."""

import json

import numpy as np
import pytest
from PIL import Image

from minimrcnn.data import Shapes
from minimrcnn.data.shapes import MOST_SHAPES, RADII, VISIBLE_PIXELS, Shape, draw_layout, inside
from minimrcnn.data.transforms import tight_boxes


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "hard"])
def pictures(request):
    return Shapes(60, seed=5, hard=request.param)


def test_every_picture_is_as_described(pictures):
    counts, labels = set(), []
    for picture, target in pictures:
        assert picture.shape == (128, 128, 3) and picture.dtype == np.uint8
        assert target.masks.dtype == np.uint8 and target.labels.dtype == np.int64
        assert set(np.unique(target.masks)) <= {0, 1}
        assert target.masks.sum(axis=(1, 2)).min() >= VISIBLE_PIXELS
        assert target.masks.sum(axis=0).max() == 1, "what one shape hides must not be another's"
        np.testing.assert_array_equal(target.boxes, tight_boxes(target.masks))
        assert (target.boxes[:, 2:] - target.boxes[:, :2]).max() <= 2 * RADII[1]
        counts.add(len(target.labels))
        labels += target.labels.tolist()
    assert counts == set(range(1, MOST_SHAPES + 1))
    assert min(np.bincount(labels, minlength=4)[1:]) > len(labels) / 5


def test_a_picture_depends_on_seed_and_index_only():
    few, many = Shapes(3, seed=7), Shapes(30, seed=7)
    last = many[2]  # in another order than below
    for index in range(3):
        np.testing.assert_array_equal(few[index][0], many[index][0])
        np.testing.assert_array_equal(few[index][1].masks, many[index][1].masks)
    assert many[2] is last, "pictures are kept"
    assert not np.array_equal(few[0][0], few[1][0])
    assert not np.array_equal(few[0][0], Shapes(3, seed=8)[0][0])


def test_hard_pictures_have_the_layout_of_the_plain_ones():
    plain, hard = Shapes(2, seed=1)[1], Shapes(2, seed=1, hard=True)[1]
    np.testing.assert_array_equal(plain[1].masks, hard[1].masks)
    ground = hard[1].masks.sum(axis=0) == 0
    assert hard[0][ground].std(axis=0).mean() > 2 * plain[0][ground].std(axis=0).mean()


def test_every_radius_is_drawn():
    drawn = {shape.radius for seed in range(100) for shape in draw_layout(np.random.default_rng(seed), 128)[1]}
    assert drawn == set(range(RADII[0], RADII[1] + 1))


@pytest.mark.parametrize("label", [1, 2, 3])
def test_a_shape_spans_twice_its_radius_about_its_center(label):
    mask = inside(Shape(label, 20, 30, 10, np.zeros(3)), 64)
    top = 21 if label == 3 else 20  # of the tip not even the middle of a pixel is covered
    assert tight_boxes(mask[None]).tolist() == [[10, top, 30, 40]]
    np.testing.assert_array_equal(mask[20:40, 10:30], mask[20:40, 29:9:-1])


def test_noise_is_as_strong_as_promised_and_shapes_are_of_one_color():
    picture, target = next(item for item in Shapes(20, seed=3) if len(item[1].labels) == 2)
    for region in (*target.masks.astype(bool), target.masks.sum(axis=0) == 0):
        colors = picture[region] / 255  # (P, 3)
        inner = (colors.mean(axis=0) > 0.1) & (colors.mean(axis=0) < 0.9)  # not clipped
        np.testing.assert_allclose(colors.std(axis=0)[inner], 0.02, rtol=0.25)


def test_the_share_of_its_box_that_a_whole_shape_fills_tells_its_class():
    shares = {1: [], 2: [], 3: []}
    for _, target in Shapes(80, seed=2):
        sides = target.boxes[:, 2:] - target.boxes[:, :2]
        if len(target.labels) == 1:  # nothing hides it
            shares[int(target.labels[0])].append(target.masks.sum() / sides.prod())
            assert abs(sides[0, 0] - sides[0, 1]) <= 1, "the box must not give the class away"
    for label, share in ((1, 1.0), (2, np.pi / 4), (3, 0.5)):
        np.testing.assert_allclose(shares[label], share, atol=0.04)


def test_small_pictures_have_at_least_one_shape():
    assert min(len(target.labels) for _, target in Shapes(40, seed=0, size=64)) >= 1


def test_annotations_decode_to_the_masks_and_a_written_folder_holds_them(tmp_path):
    coco_mask = pytest.importorskip("pycocotools.mask")
    dataset = Shapes(5, seed=4).subset([3, 0])
    assert dataset.image_ids == [4, 1] and len(dataset) == 2
    dataset.write(tmp_path)
    annotations = json.loads((tmp_path / "annotations.json").read_text())
    assert annotations == dataset.annotations()
    assert [category["name"] for category in annotations["categories"]] == list(dataset.class_names[1:])
    for index, image in enumerate(annotations["images"]):
        picture, target = dataset[index]
        np.testing.assert_array_equal(np.array(Image.open(tmp_path / "images" / image["file_name"])), picture)
        rows = [row for row in annotations["annotations"] if row["image_id"] == image["id"]]
        assert [row["category_id"] for row in rows] == [dataset.category_ids[label] for label in target.labels]
        for row, mask, box in zip(rows, target.masks, target.boxes, strict=True):
            np.testing.assert_array_equal(coco_mask.decode(row["segmentation"]), mask)
            assert row["bbox"] == [box[0], box[1], box[2] - box[0], box[3] - box[1]] and row["area"] == mask.sum()


def test_a_folder_whose_writing_fails_keeps_what_was_there(tmp_path, monkeypatch):
    Shapes(1, seed=4).write(tmp_path)
    picture, annotations = tmp_path / "images" / "000001.png", tmp_path / "annotations.json"
    before = picture.read_bytes(), annotations.read_bytes()

    def save(image, file, *_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OSError, match="No space left"):
        Shapes(1, seed=5).write(tmp_path)
    assert (picture.read_bytes(), annotations.read_bytes()) == before
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["000001.png", "annotations.json", "images"]


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="count is 0"):
        Shapes(0, seed=0)
    with pytest.raises(ValueError, match="seed is -1"):
        Shapes(1, seed=-1)
    with pytest.raises(ValueError, match="size is 32"):
        Shapes(1, seed=0, size=32)
    with pytest.raises(IndexError):
        Shapes(2, seed=0)[2]
    for wrong in ([], [0, 0], [0, -2]):
        with pytest.raises(ValueError, match=f"Shapes.subset: {len(wrong)} indices, wanted one or more, none twice"):
            Shapes(2, seed=0).subset(wrong)
