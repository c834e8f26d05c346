"""Photos on their way through all that handles data: marked, read, converted, predicted, corrected, read again."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from minimrcnn import predicting
from minimrcnn.cli import main
from minimrcnn.data.coco import CocoFolder
from minimrcnn.data.formats import open_data
from minimrcnn.structures import Detections
from tests.photos_made import HEIGHT, SQUARE, WIDTH, labelme, region, save, shape, via_entry, write

ORIENTATION, TURNED = 0x0112, 6  # EXIF: to be seen, the photo is turned by a quarter to the right
CORNERS = [[3.0, 20.0], [14.0, 20.0], [14.0, 29.0], [3.0, 29.0]]  # in the photo as it is seen, which is WIDTH high


class Oracle:
    """A model that finds in a photo what is marked in it."""

    def __init__(self, dataset):
        names, ids = dataset.class_names, dataset.category_ids
        self.config = SimpleNamespace(
            box_detections_per_img=100, class_names=names, category_ids=ids, num_classes=len(names)
        )
        self.photos = [dataset[index] for index in range(len(dataset))]

    def predict(self, pictures, score_thresh):
        (target,) = (target for photo, target in self.photos if np.array_equal(photo, pictures[0]))
        scores = np.ones(len(target.labels), np.float32)
        return [
            Detections(
                target.boxes,
                target.labels,
                scores,
                target.masks.astype(bool),
                self.config.class_names,
                self.config.category_ids,
            )
        ]


@pytest.fixture
def predict(tmp_path, monkeypatch):
    """``predict --labelme`` with an oracle; returns the folder of the results."""
    monkeypatch.setattr(predicting, "compile_ahead", lambda *_, **__: None)

    def run(dataset, photos):
        assert predicting.predict_files(Oracle(dataset), [photos], tmp_path / "found", 0.5, labelme=True) == 0
        return tmp_path / "found"

    return run


@pytest.mark.parametrize("format", ["labelme", "via", "coco"])
def test_a_rotated_photo_is_marked_as_it_is_seen_all_the_way(tmp_path, predict, format):
    """What comes back is the same photo, with the same pixels marked."""
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED
    photos = tmp_path / "photos"
    save(photos / "a.jpg", exif=exif)
    if format == "labelme":
        write(photos / "a.json", labelme([shape("polygon", CORNERS)], "a.jpg", WIDTH, HEIGHT))
    else:
        x, y = np.transpose(CORNERS).tolist()
        polygon = {"name": "polygon", "all_points_x": x, "all_points_y": y}
        write(photos / "via.json", via_entry("a.jpg", [region(polygon, kind="cat")]))
    if format == "coco":
        assert main(["convert-data", str(photos), str(tmp_path / "coco")]) == 0
        photos = tmp_path / "coco"
    before = open_data(photos)
    assert before.format == format
    picture, target = before.dataset[0]
    assert picture.shape == (WIDTH, HEIGHT, 3) and target.masks[0, 20:29, 3:14].all() and target.masks.sum() == 99

    again = open_data(predict(before.dataset, photos) / "labelme").dataset
    assert again.class_names == ("background", "cat") and again.paths[0].suffix == ".jpg"
    np.testing.assert_array_equal(again[0][0], picture)
    np.testing.assert_array_equal(again[0][1].masks, target.masks)
    np.testing.assert_array_equal(again[0][1].boxes, target.boxes)


def test_a_class_with_an_umlaut_keeps_its_name_all_the_way(tmp_path, predict, capsys):
    """Read from VIA's and LabelMe's files as one class, written as COCO's, found, corrected."""
    save(tmp_path / "via" / "Gebiß.png", value=50)
    write(tmp_path / "via" / "via.json", via_entry("Gebiß.png", [region(SQUARE, kind="Zähne")]))
    save(tmp_path / "labelme" / "b.png", value=90)
    write(tmp_path / "labelme" / "b.json", labelme([shape("circle", [[16, 12], [16, 18]], "Zähne")], "b.png"))
    folders = [str(tmp_path / name) for name in ("via", "labelme", "all")]
    assert main(["convert-data", *folders]) == 0
    assert "1 class (Zähne 1)" in capsys.readouterr().err
    dataset = CocoFolder(tmp_path / "all")
    assert dataset.class_names == ("background", "Zähne") and dataset.paths[0].name == "Gebiß.png"

    found = predict(dataset, tmp_path / "all")
    results = json.loads((found / "detections.json").read_text(encoding="utf-8"))
    assert [(row["category_name"], row["file_name"]) for row in results] == [
        ("Zähne", "images/Gebiß.png"),
        ("Zähne", "images/b.png"),
    ]
    again = open_data(found / "labelme", known=(dataset.class_names, dataset.category_ids)).dataset
    assert [len(again[index][1].labels) for index in range(2)] == [1, 1] and again.class_names == dataset.class_names
