"""Detections elsewhere: in a notebook, in COCO's and LabelMe's files, as plain arrays; and they keep no picture."""

import gc
import io
import json
import pickle
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from minimrcnn.errors import DataError
from minimrcnn.evaluate import load_results
from minimrcnn.geometry.run_lengths import polygons_to_mask, segmentation_to_counts
from minimrcnn.structures import Detections, refer_to

NAMES = ("background", "cat", "dog")


def found(masks=True, picture=None, names=NAMES):
    """A dog with a hole, and a cat in two parts, in a picture 80 wide and 60 high."""
    mask = np.zeros((2, 60, 80), bool)
    mask[0, 10:50, 5:35] = True
    mask[0, 20:30, 12:24] = False
    mask[1, 5:25, 40:60] = mask[1, 40:55, 50:75] = True
    return Detections(
        boxes=np.array([[5, 10, 35, 50], [40, 5, 75, 55]], np.float32),
        labels=np.array([2, 1]),
        scores=np.array([0.75, 0.5], np.float32),
        masks=mask if masks else None,
        names=names,
        category_ids=(None, 3, 7),
        picture=picture,
    )


def nothing():
    return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))


def read_png(data):
    return np.array(Image.open(io.BytesIO(data)))


def test_a_line_says_what_was_found():
    assert repr(found()) == "Detections(2 objects: dog 0.75, cat 0.50; masks 80 wide, 60 high)"
    assert repr(nothing()) == "Detections(0 objects; boxes only)"
    many = Detections(np.zeros((9, 4)), np.arange(9), np.linspace(1, 0.2, 9), names=("background", "nucleus"))
    assert (
        repr(many)
        == "Detections(9 objects: background 1.00, nucleus 0.90, 2 0.80, 3 0.70, 4 0.60, and 4 more; boxes only)"
    )


def test_coco_rows_are_read_again(tmp_path):
    annotations = {"images": [{"id": 42, "width": 80, "height": 60}], "categories": [{"id": 3}, {"id": 7}]}
    for polygons in (False, True):
        rows = found().to_coco(42, polygons=polygons)
        (tmp_path / "r.json").write_text(json.dumps(rows))
        assert load_results(tmp_path / "r.json", annotations) == rows
        assert [row["category_id"] for row in rows] == [7, 3] and rows[0]["bbox"] == [5, 10, 30, 40]
        assert isinstance(rows[0]["segmentation"], list) == polygons
        pixels = [sum(segmentation_to_counts(row["segmentation"], (60, 80))[1::2]) for row in rows]
        assert pixels == found().masks.sum(axis=(1, 2)).tolist()
    assert [row["category_id"] for row in found().to_coco(1, (None, 70, 71))] == [71, 70]
    unknown = Detections(*(getattr(found(), name) for name in ("boxes", "labels", "scores")))
    assert [row["category_id"] for row in unknown.to_coco(1)] == [2, 1] and "segmentation" not in unknown.to_coco(1)[0]
    assert nothing().to_coco(1) == []
    rows = found().to_coco(1, np.array([0, 70, 71]))
    assert json.loads(json.dumps(rows)) == rows and [row["category_id"] for row in rows] == [71, 70]
    for ids in ([None], np.array([0, 7])):
        with pytest.raises(ValueError, match=f"to_coco: {len(ids)} category_ids, the labels go up to 2; wanted one a"):
            found().to_coco(1, ids)
    empty = Detections(np.ones((1, 4)), np.array([1]), np.ones(1), np.zeros((1, 4, 4), bool))
    assert empty.to_coco(1, polygons=True)[0]["segmentation"]["size"] == [4, 4]


def test_labelme_file(tmp_path):
    Image.new("RGB", (80, 60)).save(tmp_path / "photo.jpg")
    (tmp_path / "corrected").mkdir()
    path = tmp_path / "corrected" / "photo.json"
    found(picture=str(tmp_path / "photo.jpg")).to_labelme(path)
    document = json.loads(path.read_text())
    assert (document["imageWidth"], document["imageHeight"], document["imageData"]) == (80, 60, None)
    assert document["imagePath"] == "../photo.jpg" and document["version"] and document["flags"] == {}
    shapes = document["shapes"]
    assert [(shape["label"], shape["group_id"]) for shape in shapes] == [("dog", None), ("cat", 2), ("cat", 2)]
    assert all(shape["shape_type"] == "polygon" and len(shape["points"]) >= 4 for shape in shapes)
    assert shapes[0]["description"] == "score 0.750"

    with pytest.raises(DataError, match=r"photo.json: is there already, and may have been corrected"):
        found(picture=str(tmp_path / "photo.jpg")).to_labelme(path)
    found(masks=False).to_labelme(path, tmp_path / "photo.jpg", overwrite=True)
    shapes = json.loads(path.read_text())["shapes"]
    assert [shape["shape_type"] for shape in shapes] == ["rectangle"] * 2
    assert shapes[0]["points"] == [[5, 10], [35, 50]]
    with pytest.raises(DataError, match=r"wanted to_labelme\(path, picture=...\)"):
        found().to_labelme(tmp_path / "other.json")
    with pytest.raises(TypeError, match="picture is a ndarray, wanted picture=the path of its file"):
        found().to_labelme(tmp_path / "other.json", picture=np.zeros((60, 80, 3), np.uint8))
    Image.new("RGB", (60, 80)).save(tmp_path / "turned.jpg")
    with pytest.raises(
        DataError, match=r"turned\.jpg: the picture is 60 wide and 80 high, the masks are 80 wide and 60"
    ):
        found().to_labelme(tmp_path / "other.json", tmp_path / "turned.jpg")
    assert not (tmp_path / "other.json").exists()
    found().to_labelme(tmp_path / "gone.json", tmp_path / "gone.jpg")  # the masks tell how large it was
    document = json.loads((tmp_path / "gone.json").read_text())
    assert (document["imageWidth"], document["imageHeight"], document["imagePath"]) == (80, 60, "gone.jpg")


def read_masks(path, size):
    """The masks of a LabelMe file: polygons of one group are one object."""
    groups = {}
    for number, shape in enumerate(json.loads(path.read_text())["shapes"]):
        key = ("alone", number) if shape["group_id"] is None else shape["group_id"]
        groups.setdefault(key, []).append(np.ravel(shape["points"]).tolist())
    return [polygons_to_mask(polygons, size) > 0 for polygons in groups.values()]


@given(arrays(bool, (3, 8, 9)), st.integers(1, 12))
def test_masks_come_back_from_labelme(tmp_path_factory, masks, times):
    path = tmp_path_factory.mktemp("labelme") / "photo.json"
    masks = masks.repeat(times, axis=1).repeat(times, axis=2)
    Image.new("L", masks.shape[:0:-1]).save(path.with_suffix(".png"))
    Detections(np.zeros((3, 4)), np.ones(3, int), np.ones(3), masks).to_labelme(path, path.with_suffix(".png"))
    wanted = [mask for mask in masks if mask.any()]  # of no pixel there is no polygon
    back = read_masks(path, masks.shape[1:])
    assert len(back) == len(wanted)
    for mask, again in zip(wanted, back, strict=True):
        assert (mask & again).sum() / (mask | again).sum() >= 0.95


def test_plain_arrays_are_saved_without_pickles(tmp_path):
    np.savez(tmp_path / "found.npz", **found().to_dict())
    with np.load(tmp_path / "found.npz") as arrays:
        assert {name: arrays[name].shape for name in arrays} == {
            "boxes": (2, 4), "labels": (2,), "scores": (2,), "names": (2,), "masks": (2, 60, 80),
        }  # fmt: skip
        assert arrays["names"].tolist() == ["dog", "cat"]
    assert "masks" not in nothing().to_dict() and nothing().to_dict()["names"].shape == (0,)


def test_a_notebook_shows_the_picture_while_it_is_there(tmp_path):
    picture = np.full((60, 80, 3), 40, np.uint8)
    detections = found(picture=refer_to(picture))
    assert (read_png(detections._repr_png_())[-1, -1] == 40).all()
    np.testing.assert_array_equal(read_png(detections._repr_png_()), detections.draw())
    seen = weakref.ref(picture)
    del picture
    gc.collect()
    assert seen() is None, "detections keep no picture"
    assert (read_png(detections._repr_png_())[-1, -1] == 128).all()

    Image.new("RGB", (80, 60), (9, 9, 9)).save(tmp_path / "photo.png")
    detections = found(picture=refer_to(tmp_path / "photo.png"))
    assert (detections.draw()[-1, -1] == 9).all()
    assert (detections.draw(np.full((60, 80, 3), 200, np.uint8))[-1, -1] == 200).all()
    with pytest.raises(DataError, match="draw: the picture is 81 wide and 60 high, the masks are 80 wide and 60 high"):
        detections.draw(np.zeros((60, 81, 3), np.uint8))
    Image.new("RGB", (81, 60)).save(tmp_path / "photo.png")  # another picture by now
    assert (detections.draw()[-1, -1] == 128).all()
    (tmp_path / "photo.png").unlink()
    assert (detections.draw()[-1, -1] == 128).all()


@pytest.mark.parametrize("rows", [slice(1), np.array([True, False]), np.array([0]), [0], 0, np.int64(0)], ids=repr)
def test_some_of_what_was_found(rows):
    one = found(picture="a.jpg")[rows]
    assert isinstance(one, Detections) and len(one) == len(one.scores) == 1 and one.labels.tolist() == [2]
    assert np.array_equal(one.masks, found().masks[:1]) and np.array_equal(one.boxes, found().boxes[:1])
    assert (one.names, one.category_ids, one.picture) == (NAMES, (None, 3, 7), "a.jpg")


def test_none_of_what_was_found():
    assert len(found()[found().scores > 0.9]) == len(found()[[]]) == len(nothing()[:5]) == 0
    assert found(masks=False)[:1].masks is None
    assert [len(one) for one in found()] == [1, 1]
    with pytest.raises(IndexError, match="3"):
        found()[np.array([True, False, True])]


def test_boxes_alone_are_shown_on_gray_as_large_as_they_reach():
    detections = Detections(np.float32([[0, 0, 900, 9.5], [5, 400.2, 9, 500]]), np.ones(2, int), np.float32([0.9, 0.8]))
    assert detections.draw().shape == (500, 900, 3)


def test_a_large_picture_is_shown_small():
    masks = np.zeros((1, 3000, 50), bool)
    masks[0, 1000:2000] = True
    tall = Detections(np.array([[0, 1000, 50, 2000]], np.float32), np.ones(1, int), np.ones(1), masks)
    assert read_png(tall._repr_png_()).shape == (1024, 17, 3)
    assert read_png(found(masks=False)._repr_png_()).size and read_png(nothing()._repr_png_()).size


def test_pickles_and_copies_know_paths_only():
    array = np.zeros((60, 80, 3), np.uint8)
    assert pickle.loads(pickle.dumps(found(picture="a.jpg"))).picture == "a.jpg"
    again = pickle.loads(pickle.dumps(found(picture=refer_to(array))))
    assert again.picture is None and again.names == NAMES and np.array_equal(again.masks, found().masks)
    assert refer_to(3) is None
