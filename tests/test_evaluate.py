"""The twelve figures against pycocotools, on drawn cases and on the real data; and files of results, good and bad."""

import contextlib
import copy
import io
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from minimrcnn.data.coco import CocoFolder
from minimrcnn.errors import DataError
from minimrcnn.evaluate import (
    FIGURES,
    detections_to_results,
    evaluate,
    evaluate_model,
    format_figures,
    load_results,
)
from minimrcnn.geometry import run_lengths
from minimrcnn.structures import Detections, Target

DATA = Path(__file__).parents[2] / "shared" / "data"


def their_figures(annotations, results, kind):
    """What pycocotools says."""
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is what the figures are compared with")
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = coco.COCO(), coco.COCO()
        truth.dataset = copy.deepcopy(annotations)
        truth.createIndex()
        if results:
            found = truth.loadRes(copy.deepcopy(results))
        else:  # loadRes fails on an empty list
            found.dataset = {**copy.deepcopy(annotations), "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def assert_same_figures(annotations, results):
    without_boxes = [{key: value for key, value in row.items() if key != "bbox"} for row in results]
    for kind, rows in (("bbox", results), ("segm", results), ("segm", without_boxes)):  # boxes decide what is small
        got = evaluate(annotations, rows, kind)
        assert tuple(got) == FIGURES and all(type(value) is float for value in got.values())
        np.testing.assert_allclose(list(got.values()), their_figures(annotations, rows, kind), atol=1e-6, err_msg=kind)


def segmentation_of(mask):
    return {"size": list(mask.shape), "counts": run_lengths.to_string(run_lengths.encode(mask))}


def mask_of(row, size):
    return run_lengths.decode(run_lengths.segmentation_to_counts(row["segmentation"], size), size)


def perturbed(annotations, generator, copies=3, decimals=2):
    """Detections as a middling model finds them: objects moved, some twice, some as another class, some missed."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in annotations["images"]}
    categories = [category["id"] for category in annotations["categories"]]
    results = []
    for row in annotations["annotations"]:
        mask = mask_of(row, sizes[row["image_id"]])
        for _ in range(generator.integers(0, copies + 1)):
            reach = max(1, int(0.1 * max(row["bbox"][2:])))
            shift = generator.integers(-reach, reach + 1, 2)
            box = np.array(row["bbox"]) + generator.normal(0, 0.05, 4) * max(row["bbox"][2:])
            results.append(
                {
                    "image_id": row["image_id"],
                    "category_id": row["category_id"]
                    if generator.random() < 0.9
                    else int(generator.choice(categories)),
                    "bbox": [*box[:2].tolist(), *box[2:].clip(0.5).tolist()],
                    "score": round(float(generator.random()), decimals),
                    "segmentation": segmentation_of(np.roll(mask, tuple(shift), (0, 1))),
                }
            )
    return results


def drawn(generator, pictures=4, most_objects=8):
    """Annotations with crowds, areas on either side of 32^2 and 96^2, a class without objects, equal shapes."""
    images = [{"id": 11 * (pictures - n), "height": 150, "width": 170} for n in range(pictures)]  # ids descend
    rows = []
    for image in images:
        for _ in range(generator.integers(0, most_objects + 1)):
            side = generator.choice([12, 32, 50, 96, 120], 2) + generator.integers(0, 3, 2)
            x, y = (int(v) for v in generator.integers(0, [170 - side[0], 150 - side[1]]))
            mask = np.zeros((150, 170), np.uint8)
            mask[y : y + side[1], x : x + side[0]] = 1
            mask[y, x : x + side[0] // 2] = 0
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": image["id"],
                    "category_id": int(generator.choice([2, 5, 9], p=[0.7, 0.3, 0])),
                    "bbox": [x, y, int(side[0]), int(side[1])],
                    "area": float(generator.choice([mask.sum(), 32**2, 96**2])),
                    "iscrowd": int(generator.random() < 0.2),
                    "segmentation": segmentation_of(mask),
                }
            )
            if generator.random() < 0.2:
                rows.append({**rows[-1], "id": len(rows) + 1})
    categories = [{"id": id, "name": str(id)} for id in (9, 5, 2)]
    return {"images": images, "annotations": rows, "categories": categories}


@pytest.mark.parametrize("seed", range(12))
def test_drawn_cases(seed):
    generator = np.random.default_rng(seed)
    annotations = drawn(generator)
    assert_same_figures(annotations, perturbed(annotations, generator, copies=4, decimals=seed % 3))


def test_an_object_of_nothing_is_never_found():
    generator = np.random.default_rng(0)
    annotations = drawn(generator)
    line = {"bbox": [20, 30, 8, 0], "area": 0.3, "iscrowd": 0, "segmentation": [[20, 30, 20, 30, 28, 30, 28, 30]]}
    annotations["annotations"].append({**annotations["annotations"][0], **line, "id": 1000})
    assert_same_figures(annotations, perturbed(annotations, generator, copies=4))


def test_an_annotation_with_the_id_0_is_found():
    """pycocotools takes the number for that of no annotation."""
    row = {"id": 0, "image_id": 1, "category_id": 1, "bbox": [2, 3, 8, 8], "area": 64, "iscrowd": 0}
    annotations = {
        "images": [{"id": 1, "height": 20, "width": 20}],
        "annotations": [row],
        "categories": [{"id": 1, "name": "a"}],
    }
    results = [{"image_id": 1, "category_id": 1, "bbox": [2, 3, 8, 8], "score": 0.5}]
    assert evaluate(annotations, results)["AP"] == 1
    assert their_figures(annotations, results, "bbox")[0] == 0


def test_masks_of_which_some_have_boxes():
    generator = np.random.default_rng(1)
    annotations = drawn(generator)
    results = perturbed(annotations, generator)
    plain = [{key: value for key, value in row.items() if key != "bbox"} for row in results]
    assert evaluate(annotations, results[:2] + plain[2:], "segm") == evaluate(annotations, plain, "segm")


def test_more_than_a_hundred_detections_of_a_class_with_equal_scores():
    generator = np.random.default_rng(0)
    annotations = drawn(generator, pictures=2)
    results = perturbed(annotations, generator, copies=60, decimals=1)
    assert max(Counter((row["image_id"], row["category_id"]) for row in results).values()) > 100
    assert_same_figures(annotations, results)


def of_boxes(*boxes, kind="annotations"):
    """Rows of one picture and class; as detections each scores less than the one before it."""
    rows = [{"image_id": 1, "category_id": 1, "bbox": list(box)} for box in boxes]
    if kind == "results":
        return [{**row, "score": 0.9 - 0.1 * number} for number, row in enumerate(rows)]
    rows = [{**row, "id": n, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0} for n, row in enumerate(rows, 1)]
    return {
        "images": [{"id": 1, "height": 200, "width": 200}],
        "annotations": rows,
        "categories": [{"id": 1, "name": "a"}],
    }


@pytest.mark.parametrize("side, small, medium, large", [(32, 0.5, 0.5, -1), (96, -1, 0.5, 0.5)])
def test_a_made_up_detection_at_a_limit_of_areas_is_wrong_on_both_sides(side, small, medium, large):
    objects = [(0, 0, side - 1, side - 1), (0, 100, side + 1, side + 1)]
    annotations, results = of_boxes(*objects), of_boxes((100, 100, side, side), *objects, kind="results")
    figures = evaluate(annotations, results)
    np.testing.assert_allclose(list(figures.values()), their_figures(annotations, results, "bbox"), atol=1e-6)
    assert [figures[name] for name in ("APs", "APm", "APl")] == pytest.approx([small, medium, large])


@pytest.mark.parametrize("second, found", [(0, 2), (1, 1)])
def test_of_equal_overlaps_the_last_object_is_taken(second, found):
    """The first detection lies midway between two objects, the second on one of them: is that still free?"""
    objects = (0, 0, 10, 10), (4, 0, 10, 10)
    annotations, results = of_boxes(*objects), of_boxes((2, 0, 10, 10), objects[second], kind="results")
    figures = evaluate(annotations, results)
    np.testing.assert_allclose(list(figures.values()), their_figures(annotations, results, "bbox"), atol=1e-6)
    assert figures["AR1"] < figures["AR10"] if found == 2 else figures["AP50"] < 0.6


def test_empty_results_no_objects_and_only_crowds():
    annotations = drawn(np.random.default_rng(1))
    assert_same_figures(annotations, [])
    assert evaluate(annotations, [])["AP"] == 0
    results = perturbed(annotations, np.random.default_rng(2))
    crowds = {**annotations, "annotations": [{**row, "iscrowd": 1} for row in annotations["annotations"]]}
    for nothing in ({**annotations, "annotations": []}, crowds):
        assert_same_figures(nothing, results)
        assert set(evaluate(nothing, results, "segm").values()) == {-1.0}


def test_the_truth_itself_is_found_completely():
    annotations = drawn(np.random.default_rng(3))
    for row in annotations["annotations"]:
        row["iscrowd"] = 0
    results = [{**row, "score": 0.5} for row in annotations["annotations"]]
    for kind in ("bbox", "segm"):
        figures = evaluate(annotations, results, kind)
        assert figures["AP"] == figures["AP50"] == figures["AR100"] == 1
        assert 0 < figures["AR1"] < figures["AR10"] <= 1


def test_empty_masks_and_boxes_without_area():
    annotations = drawn(np.random.default_rng(4))
    empty = segmentation_of(np.zeros((150, 170), np.uint8))
    results = perturbed(annotations, np.random.default_rng(5))
    results += [{**row, "segmentation": empty, "bbox": [5.0, 5.0, 0.0, 0.0], "score": 0.9} for row in results[:5]]
    annotations["annotations"][0].update(segmentation=empty, bbox=[5, 5, 0, 0])
    assert_same_figures(annotations, results)


@pytest.mark.parametrize("name", ["coco", "nuclei/val"])
def test_real_annotations(name):
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not on this machine")
    annotations = CocoFolder(DATA / name).annotations()
    assert_same_figures(annotations, perturbed(annotations, np.random.default_rng(6)))


# Results from detections, and back from files


def found(masks=True):
    mask = np.zeros((2, 6, 5), bool)
    mask[0, 1:3, 2:4] = True
    return Detections(
        boxes=np.array([[2, 1, 4, 3], [0.5, 0, 5, 6]], np.float32),
        labels=np.array([2, 1]),
        scores=np.array([0.75, 0.5], np.float32),
        masks=mask if masks else None,
    )


def test_detections_become_rows_for_json():
    rows = detections_to_results(found(), 42, (None, 3, 7))
    assert json.loads(json.dumps(rows)) == rows
    assert rows[0]["image_id"] == 42 and [row["category_id"] for row in rows] == [7, 3]
    assert [row["bbox"] for row in rows] == [[2, 1, 2, 2], [0.5, 0, 4.5, 6]]
    assert [row["score"] for row in rows] == [0.75, 0.5]
    np.testing.assert_array_equal(mask_of(rows[0], (6, 5)), found().masks[0])
    assert "segmentation" not in detections_to_results(found(masks=False), 42, (None, 3, 7))[0]


class TwoPictures:
    """The least that is a data set."""

    class_names, category_ids, image_ids = ("background", "cat", "dog"), (None, 3, 7), [42, 41]

    def __len__(self):
        return 2

    def __getitem__(self, index):
        none = Target(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, 6, 5), np.uint8))
        return np.full((6, 5, 3), index, np.uint8), none

    def annotations(self):
        rows = detections_to_results(found(), 42, self.category_ids)
        return {
            "images": [{"id": 41, "height": 6, "width": 5}, {"id": 42, "height": 6, "width": 5}],
            "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
            "annotations": [{**row, "id": n, "area": 4, "iscrowd": 0} for n, row in enumerate(rows[:1])],
        }


class FirstOnly:
    """A model that finds something on the picture of zeros; it remembers how it was asked."""

    def __init__(self, masks):
        self.masks, self.asked = masks, []

    def predict(self, pictures, score_thresh=None):
        self.asked.append((len(pictures), score_thresh))
        full, none = found(self.masks), np.zeros(0, np.int64)
        if pictures[0].max() == 0:
            return [full]
        return [Detections(full.boxes[:0], none, full.scores[:0], full.masks[:0] if self.masks else None)]


def test_a_model_over_a_data_set():
    model = FirstOnly(masks=True)
    figures, results = evaluate_model(model, TwoPictures(), score_thresh=0.3, progress=False)
    assert model.asked == [(1, 0.3)] * 2
    assert results == detections_to_results(found(), 42, (None, 3, 7))
    assert set(figures) == {f"{kind}_{name.lower()}" for kind in ("box", "mask") for name in FIGURES}
    assert figures["box_ap"] == figures["mask_ap"] == figures["mask_ar1"] == 1 and figures["box_apl"] == -1
    table = format_figures(figures).splitlines()
    assert [line.split()[0] for line in table] == ["AP", "box", "mask"]
    assert table[1].split()[1:] == ["1.000"] * 4 + ["-"] * 2 + ["1.000"] * 4 + ["-"] * 2

    figures, _ = evaluate_model(FirstOnly(masks=False), TwoPictures(), progress=False)
    assert set(figures) == {f"box_{name.lower()}" for name in FIGURES}
    assert len(format_figures(figures).splitlines()) == 2
    assert "0.000" in format_figures({**figures, "box_ap": 0.0})  # which is not that there is nothing to find


def test_results_from_a_file(tmp_path):
    rows = detections_to_results(found(), 42, (None, 3, 7))
    (tmp_path / "r.json").write_text(json.dumps(rows))
    assert load_results(tmp_path / "r.json", TwoPictures().annotations()) == rows
    (tmp_path / "r.json").write_text("[]")
    assert load_results(tmp_path / "r.json", TwoPictures().annotations()) == []


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image_id": 9}, "image_id is 9, which the annotations do not have; are they of the same data set?"),
        ({"image_id": "42"}, "image_id is '42', wanted an integer"),
        ({"category_id": 1}, "category_id is 1, which the annotations do not have"),
        ({"score": None}, "score is None, wanted a finite number"),
        ({"score": float("nan")}, "score is nan, wanted a finite number"),
        ({"bbox": [1, 2, 3]}, "bbox is [1, 2, 3], wanted a list of four numbers"),
        ({"bbox": [1, 2, float("inf"), 3]}, "bbox width is inf, wanted a finite number"),
        ({"bbox": [1, 2, -3, 3]}, "bbox is [1, 2, -3, 3], wanted x, y, width, height with lengths from 0"),
        ({"segmentation": {"size": [5, 6], "counts": [30]}}, "run lengths are for size [5, 6], wanted the picture's"),
        ({"segmentation": {"size": [6, 5], "counts": "0"}}, "run lengths add up to 0, wanted 30"),
    ],
)
def test_wrong_rows_of_results_are_named(tmp_path, change, message):
    rows = detections_to_results(found(), 42, (None, 3, 7))
    rows[1].update(change)
    (tmp_path / "r.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=re.escape(f"r.json: row 1: {message}")):
        load_results(tmp_path / "r.json", TwoPictures().annotations())
    with pytest.raises(DataError, match=re.escape(f"results: row 1: {message}")):
        evaluate(TwoPictures().annotations(), rows, "segm")


def test_file_names_number_the_pictures(tmp_path):
    """`minimrcnn predict` numbers pictures by their names, which need not be the annotations' numbers."""
    annotations, rows = TwoPictures().annotations(), detections_to_results(found(), 42, (None, 3, 7))
    for image, name in zip(annotations["images"], ("a.png", "42.png"), strict=True):
        image["file_name"] = name
    (tmp_path / "r.json").write_text(json.dumps([{**row, "file_name": "a.png"} for row in rows]))
    wanted = annotations["images"][0]["id"]
    assert {row["image_id"] for row in load_results(tmp_path / "r.json", annotations)} == {wanted}
    (tmp_path / "r.json").write_text(json.dumps([{**row, "file_name": "b.png"} for row in rows]))
    with pytest.raises(DataError, match="r.json: row 0: file_name is b.png, which the annotations have 0 times"):
        load_results(tmp_path / "r.json", annotations)

    for image, name in zip(annotations["images"], ("one/a.png", "two/a.png"), strict=True):  # folders tell them apart
        image["file_name"] = name
    (tmp_path / "r.json").write_text(json.dumps([{**rows[0], "file_name": "one/a.png"}]))
    assert load_results(tmp_path / "r.json", annotations)[0]["image_id"] == wanted
    (tmp_path / "r.json").write_text(json.dumps([{**rows[0], "file_name": "a.png"}]))
    with pytest.raises(DataError, match="r.json: row 0: file_name is a.png, which the annotations have 2 times"):
        load_results(tmp_path / "r.json", annotations)


def test_wrong_results_files_and_kinds(tmp_path):
    annotations, rows = TwoPictures().annotations(), detections_to_results(found(masks=False), 42, (None, 3, 7))
    for text, message in (
        ("{}", "holds a dict, wanted a list of detections"),
        ("[", "not JSON at line 1"),
        ("[3]", "row 0: holds a int, wanted an object"),
        ('[{"image_id": 42, "category_id": 3, "score": 1}]', "row 0: neither bbox nor segmentation is there"),
    ):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(DataError, match=f"r.json: {message}"):
            load_results(tmp_path / "r.json", annotations)
    with pytest.raises(DataError, match="results: row 0: segmentation is missing, and is what is to be scored"):
        evaluate(annotations, rows, "segm")
    with pytest.raises(ValueError, match="evaluate: kind is 'mask', wanted 'bbox' or 'segm'"):
        evaluate(annotations, rows, "mask")
