"""Small data sets as annotation tools write them, with their quirks."""

import base64
import io
import json

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 32


def save(path, height=HEIGHT, width=WIDTH, value=120, **keywords):
    """A gray photo."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(path, **keywords)
    return path


def write(path, document):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def inside(height=HEIGHT, width=WIDTH):
    """x and y of all pixel centers."""
    y, x = np.mgrid[:height, :width] + 0.5
    return x, y


def rows_of(dataset):
    return dataset.annotations()["annotations"]


def region(shape, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


SQUARE = {"name": "polygon", "all_points_x": [4, 12, 12, 4], "all_points_y": [2, 2, 10, 10]}
CLOSED = {"name": "polygon", "all_points_x": [4, 12, 12, 4, 4], "all_points_y": [2, 2, 10, 10, 2]}
RECT = {"name": "rect", "x": 20, "y": 5, "width": 6, "height": 4}


def via_entry(name, regions, size=-1, version=2):
    """An entry as VIA exports it; version 1 numbers the regions, and has two fields that were dropped later."""
    if version == 1:
        regions = {str(number): one for number, one in enumerate(regions)}
        old = {"fileref": "", "base64_img_data": ""}
    else:
        old = {}
    return {f"{name}{size}": {**old, "filename": name, "size": size, "regions": regions, "file_attributes": {}}}


def via_project(entries, attributes=None):
    return {
        "_via_settings": {"ui": {}, "core": {"buffer_size": 18, "filepath": {}, "default_filepath": ""}},
        "_via_img_metadata": entries,
        "_via_attributes": {"region": attributes or {}, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(entries),
    }


def labelme(shapes, name="a.png", height=HEIGHT, width=WIDTH, **more):
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
        **more,
    }


def shape(kind, points, label="cat", group=None, **more):
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}, **more}


POINTS = [[4.0, 2.0], [12.0, 2.0], [12.0, 10.0], [4.0, 10.0]]


def png(mask):
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def save_values(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def coco(name="a.png"):
    return {
        "images": [{"id": 4, "file_name": name, "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 9, "name": "cat"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 4,
                "category_id": 9,
                "bbox": [4, 2, 8, 8],
                "segmentation": [[4, 2, 12, 2, 12, 10, 4, 10]],
            }
        ],
    }


def write_nuclei(folder):
    """Two photos as in the challenge of 2018, the second with one mask saved in colors."""
    for name, boxes in (("0a1b", [(2, 3), (12, 5), (20, 14)]), ("ff03", [(7, 7)])):
        save(folder / name / "images" / f"{name}.png", value=120 + len(boxes))
        for number, (left, top) in enumerate(boxes):
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[top : top + 6, left : left + 8] = 255
            mask = mask if name == "0a1b" else np.dstack([mask] * 3 + [np.full_like(mask, 255)])
            save_values(folder / name / "masks" / f"{number}{name}.png", mask)
    return folder
