"""Mistakes that people really make, each as a change of a line or two of `tests/right_versions.py`.

For each, the property that must be the first to break, as that is the one whose hint a student reads.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from pathlib import Path

RIGHT = Path(__file__).with_name("right_versions.py").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Mistake:
    """``old``, which must occur once from the function's ``def`` on, becomes ``new``.

    ``version`` is the function that is changed, if that is another way to write it.
    """

    function: str
    name: str
    property: str
    old: str
    new: str
    version: str = ""

    def source(self) -> str:
        """The whole file, with the mistake in it."""
        start = RIGHT.index(f"def {self.version or self.function}(")
        before, text = RIGHT[:start], RIGHT[start:]
        assert self.old in text, f"{self.function}, {self.name}: the line is gone"
        text = before + text.replace(self.old, self.new, 1)
        return text + f"\n\n{self.function} = {self.version}\n" if self.version else text

    def load(self):
        """The wrong function."""
        module = types.ModuleType("wrong_version")
        exec(compile(self.source(), f"<{self.function}, {self.name}>", "exec"), module.__dict__)
        return getattr(module, self.function)


ORDER = 'np.argsort(-scores, kind="stable")'
SAMPLE_Y, SAMPLE_X = "(i + 0.5) / samples_y", "(j + 0.5) / samples_x"
CLAMP = "y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)"
ROUND = "[round_half_away(side * spatial_scale) for side in roi[1:]]"
INTERPOLATE = "samples.append(interpolate(image, y, x))"
SCALED = "x1, y1, x2, y2 = (side * spatial_scale for side in (x1, y1, x2, y2))"
HALF = "x1, y1, x2, y2 = (side - 0.5 for side in (x1, y1, x2, y2))"
BIN_ROWS = "y1 + p * roi_height // rows, y1 - (-(p + 1) * roi_height // rows)"
IOU_WIDTH = "width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)"
IOU_SIDES = f"{IOU_WIDTH}\n    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)"
ANCHOR_SIZE = "width, height = size / math.sqrt(ratio), size * math.sqrt(ratio)"
CORNERS = "np.round([-width / 2, -height / 2, width / 2, height / 2])"
LOOPS = """    for row in range(rows):
        for column in range(columns):
            for ratio in ratios:"""
LOSSES = "np.maximum(own, 0) - own * targets + np.log1p(np.exp(-np.abs(own)))"
OWN = "np.stack([logits[r, :, :, label] for r, label in enumerate(labels)])"
AT_ONCE = "roi_align_gradient_at_once"
SHARE = "gradient[r, p, q] / (samples_y * samples_x)"
SEND = "result[image, row, column] += weight_y * weight_x * share"
ADD_AT = "np.add.at(result, places, values)"
CELL = "cell_x, cell_y = (x2 - x1) / side, (y2 - y1) / side"
REACH = """left, right = int(x1 - cell_x), int(x2 + cell_x)
        top, bottom = int(y1 - cell_y), int(y2 + cell_y)"""
COUNT = "columns, rows = max(right - left + 1, 1), max(bottom - top + 1, 1)"
READ = "bilinear(padded[:, :, None], y, x)[0]"
SOURCE_Y, SOURCE_X = "(row + 0.5) * (side + 2) / rows - 0.5", "(column + 0.5) * (side + 2) / columns - 0.5"
SOURCE = f"y = {SOURCE_Y}\n                    x = {SOURCE_X}"

MISTAKES = [
    # ------------------------------------------------------------------------------------------------------ bilinear
    Mistake("bilinear", "x and y exchanged", "x and y",
            "def bilinear(features, y, x):", "def bilinear(features, x, y):"),
    Mistake("bilinear", "weights exchanged", "between cells", "dy, dx = y - top, x - left",
            "dy, dx = 1 - (y - top), 1 - (x - left)"),
    Mistake("bilinear", "nearest cell", "between cells", "dy, dx = y - top, x - left",
            "dy, dx = round(y - top), round(x - left)"),
    Mistake("bilinear", "half a pixel", "on a cell", "height, width, _ = features.shape",
            "(height, width, _), y, x = features.shape, y - 0.5, x - 0.5"),
    Mistake("bilinear", "no clamp", "at the border",
            "    y = min(max(y, 0), height - 1)\n    x = min(max(x, 0), width - 1)\n", ""),
    Mistake("bilinear", "outside is 0", "at the border", "    y = min(max(y, 0), height - 1)\n",
            "    if y < 0 or x < 0:\n        return 0 * features[0, 0]\n    y = min(max(y, 0), height - 1)\n"),
    # ----------------------------------------------------------------------------------------------------- roi_align
    Mistake("roi_align", "sum for mean", "constant", "sum(samples) / len(samples)", "sum(samples)"),
    Mistake("roi_align", "average of channels, too", "channels", "sum(samples) / len(samples)", "np.mean(samples)"),
    Mistake("roi_align", "picture ignored", "picture", "features[int(roi[0])]", "features[0]"),
    Mistake("roi_align", "number of the picture scaled", "picture", "int(roi[0])", "int(roi[0] * spatial_scale)"),
    Mistake("roi_align", "maximum for average", "average", "sum(samples) / len(samples)", "np.max(samples, axis=0)"),
    Mistake("roi_align", "RoI read as y, x", "x and y", "x1, y1, x2, y2 = roi[1:]", "y1, x1, y2, x2 = roi[1:]"),
    Mistake("roi_align", "size read as width, height", "answers", "rows, columns = output_size",
            "columns, rows = output_size"),
    Mistake("roi_align", "scale ignored", "scale", SCALED, "pass"),
    Mistake("roi_align", "divided by the scale", "scale", "side * spatial_scale", "side / spatial_scale"),
    Mistake("roi_align", "half a pixel before scaling", "scale", HALF,
            "x1, y1, x2, y2 = (side - 0.5 * spatial_scale for side in (x1, y1, x2, y2))"),
    Mistake("roi_align", "corners rounded", "no rounding", "(side * spatial_scale for",
            "(float(round(side * spatial_scale)) for"),
    Mistake("roi_align", "corners cut off", "no rounding", "(side * spatial_scale for",
            "(float(int(side * spatial_scale)) for"),
    Mistake("roi_align", "nearest cell", "no rounding", "interpolate(image, y, x)", "image[round(y), round(x)]"),
    Mistake("roi_align", "whole numbers", "no rounding", "rows, columns, channels))", "rows, columns, channels), int)"),
    Mistake("roi_align", "bins rounded", "width", "roi_height / rows, roi_width / columns",
            "roi_height // rows, roi_width // columns"),
    Mistake("roi_align", "bins as wide as high", "width", "roi_width / columns", "roi_width / rows"),
    Mistake("roi_align", "inclusive end", "width", "x2 - x1, y2 - y1", "x2 - x1 + 1, y2 - y1 + 1"),
    Mistake("roi_align", "samples at the bin's edge", "bin centers", SAMPLE_Y, "i / samples_y"),
    Mistake("roi_align", "half a pixel always", "bin centers", "if aligned:", "if True:"),
    Mistake("roi_align", "half a pixel missing", "half a pixel", "if aligned:", "if False:"),
    Mistake("roi_align", "half a pixel with the wrong sign", "half a pixel", "(side - 0.5 for", "(side + 0.5 for"),
    Mistake("roi_align", "half a pixel in one corner only", "half a pixel", HALF, "x1, y1 = x1 - 0.5, y1 - 0.5"),
    Mistake("roi_align", "at least 1 though aligned", "small, aligned", "if not aligned:", "if True:"),
    Mistake("roi_align", "never at least 1", "small, not aligned", "if not aligned:", "if False:"),
    Mistake("roi_align", "at least 1 before scaling", "small, not aligned", "max(roi_width, 1), max(roi_height, 1)",
            "max(roi_width, spatial_scale), max(roi_height, spatial_scale)"),
    Mistake("roi_align", "samples at both edges", "samples",
            SAMPLE_Y, "(i / (samples_y - 1) if samples_y > 1 else 0.5)"),
    Mistake("roi_align", "always one sample", "samples", "sampling_ratio or math.ceil(bin_height)", "1"),
    Mistake("roi_align", "no clamp", "at the border", CLAMP, "pass"),
    Mistake("roi_align", "x clamped by the height", "at the border", CLAMP, CLAMP.replace("width", "height")),
    Mistake("roi_align", "x asked against the height", "at the border", "x > width:", "x > height:"),
    Mistake("roi_align", "a whole cell below is outside", "at the border", "y > height", "y >= height"),
    Mistake("roi_align", "a whole cell to the right is outside", "at the border", "x > width:", "x >= width:"),
    Mistake("roi_align", "a whole cell above is outside", "at the border", "y < -1", "y <= -1"),
    Mistake("roi_align", "a whole cell to the left is outside", "at the border", "x < -1", "x <= -1"),
    Mistake("roi_align", "the edge counts for nothing", "at the border", "y < -1 or y > height or x < -1 or x > width",
            "y < 0 or y > height - 1 or x < 0 or x > width - 1"),
    Mistake("roi_align", "samples outside counted", "outside", "if y < -1 or y > height or x < -1 or x > width:",
            "if False:"),
    Mistake("roi_align", "samples outside not in the mean", "outside", "samples.append(np.zeros(channels))", "pass"),
    Mistake("roi_align", "adaptive before scaling", "adaptive", "sampling_ratio or math.ceil(bin_height)",
            "sampling_ratio or math.ceil(bin_height / spatial_scale)"),
    Mistake("roi_align", "adaptive by the first RoI", "adaptive", "sampling_ratio or math.ceil(bin_height)",
            "sampling_ratio or math.ceil(max((rois[0, 4] - rois[0, 2]) * spatial_scale, 1 - aligned) / rows)"),
    Mistake("roi_align", "adaptive cut off", "adaptive", "sampling_ratio or math.ceil(bin_width)",
            "sampling_ratio or max(int(bin_width), 1)"),
    # -------------------------------------------------------------------------------------------- roi_align_gradient
    Mistake("roi_align_gradient", "one picture", "answers", "result = np.zeros(features_shape)",
            "result = np.zeros(features_shape[1:])[None]"),
    Mistake("roi_align_gradient", "rows and columns exchanged", "answers", "result = np.zeros(features_shape)",
            "result = np.zeros([features_shape[k] for k in (0, 2, 1, 3)])"),
    Mistake("roi_align_gradient", "sum of channels", "channels", SHARE, f"{SHARE.replace('q]', 'q].sum()')}"),
    Mistake("roi_align_gradient", "first channel only", "channels", SEND,
            SEND.replace("column]", "column, 0]").replace("share", "share[0]")),
    Mistake("roi_align_gradient", "picture ignored", "picture", "int(roi[0])", "0"),
    Mistake("roi_align_gradient", "number of the picture scaled", "picture", "int(roi[0])",
            "int(roi[0] * spatial_scale)"),
    Mistake("roi_align_gradient", "number of the RoI for the picture's", "picture", "image = int(roi[0])",
            "image = min(r, len(result) - 1)"),
    Mistake("roi_align_gradient", "cut off at 0", "linear", SHARE, f"np.maximum({SHARE}, 0)"),
    Mistake("roi_align_gradient", "normalized", "linear", "    return result\n",
            "    return result / max(np.abs(result).max(), 1)\n"),
    Mistake("roi_align_gradient", "sum for average", "nothing lost", SHARE, "gradient[r, p, q]"),
    Mistake("roi_align_gradient", "divided by samples along one axis", "nothing lost", SHARE,
            "gradient[r, p, q] / samples_y"),
    Mistake("roi_align_gradient", "divided by the bins, too", "nothing lost", SHARE,
            "gradient[r, p, q] / (samples_y * samples_x * rows * columns)"),
    Mistake("roi_align_gradient", "all of it to each cell", "nothing lost", SEND,
            "result[image, row, column] += share"),
    Mistake("roi_align_gradient", "to the upper left cell only", "nothing lost", SEND,
            "result[image, row, column] += weight_y * weight_x * share * ((row, column) == (top, left))"),
    Mistake("roi_align_gradient", "RoI read as y, x", "x and y", "x1, y1, x2, y2 = (side", "y1, x1, y2, x2 = (side"),
    Mistake("roi_align_gradient", "columns for rows", "x and y", "result[image, row, column]",
            "result[image, column, row]"),
    Mistake("roi_align_gradient", "scale ignored", "scale", "side * spatial_scale", "side"),
    Mistake("roi_align_gradient", "half a pixel before scaling", "scale",
            "side * spatial_scale - (0.5 if aligned else 0)", "(side - (0.5 if aligned else 0)) * spatial_scale"),
    Mistake("roi_align_gradient", "gradient scaled, too", "scale", SHARE, f"{SHARE} * spatial_scale"),
    Mistake("roi_align_gradient", "inclusive end", "bins", "x2 - x1, y2 - y1", "x2 - x1 + 1, y2 - y1 + 1"),
    Mistake("roi_align_gradient", "gradient read as [column, row]", "bins", "gradient[r, p, q]",
            "gradient.swapaxes(1, 2)[r, p, q]"),
    Mistake("roi_align_gradient", "bins as wide as high", "bins", "roi_width / columns", "roi_height / rows"),
    Mistake("roi_align_gradient", "half a pixel always", "on a cell", "(0.5 if aligned else 0)", "0.5"),
    Mistake("roi_align_gradient", "samples at the bin's edge", "on a cell", SAMPLE_Y, "i / samples_y"),
    Mistake("roi_align_gradient", "nearest cell", "between cells", "top, left = int(y), int(x)",
            "y, x = round(y), round(x)\n                        top, left = int(y), int(x)"),
    Mistake("roi_align_gradient", "weights exchanged", "on a cell",
            "((top, 1 - (y - top)), (top + 1, y - top))", "((top, y - top), (top + 1, 1 - (y - top)))"),
    Mistake("roi_align_gradient", "corners cut off", "between cells",
            "side * spatial_scale", "int(side * spatial_scale)"),
    Mistake("roi_align_gradient", "half a pixel missing", "half a pixel", "(0.5 if aligned else 0)", "0"),
    Mistake("roi_align_gradient", "half a pixel with the wrong sign", "half a pixel", "- (0.5 if", "+ (0.5 if"),
    Mistake("roi_align_gradient", "at least 1 though aligned", "small", "if not aligned:", "if True:"),
    Mistake("roi_align_gradient", "never at least 1", "small", "if not aligned:", "if False:"),
    Mistake("roi_align_gradient", "all through the middle of the bin", "samples", SAMPLE_Y, "0.5"),
    Mistake("roi_align_gradient", "samples at both edges", "samples",
            SAMPLE_Y, "(i / (samples_y - 1) if samples_y > 1 else 0.5)"),
    Mistake("roi_align_gradient", "overwritten", "adds up", SEND, SEND.replace("+=", "=")),
    Mistake("roi_align_gradient", "+= with places that repeat", "adds up", ADD_AT, "result[places] += values", AT_ONCE),
    Mistake("roi_align_gradient", "a RoI overwrites those before", "adds up", "        image = int(roi[0])\n",
            "        image = int(roi[0])\n        if r and int(rois[r - 1][0]) == image:\n"
            "            result[image] = 0\n"),
    Mistake("roi_align_gradient", "no clamp", "at the border", CLAMP, "pass"),
    Mistake("roi_align_gradient", "x clamped by the height", "at the border", CLAMP, CLAMP.replace("width", "height")),
    Mistake("roi_align_gradient", "the edge gets nothing", "at the border",
            "y < -1 or y > height or x < -1 or x > width", "y < 0 or y > height - 1 or x < 0 or x > width - 1"),
    Mistake("roi_align_gradient", "samples outside counted", "outside",
            "if y < -1 or y > height or x < -1 or x > width:", "if False:"),
    Mistake("roi_align_gradient", "adaptive, always 2", "adaptive", "sampling_ratio or math.ceil(bin_height)",
            "sampling_ratio or 2"),
    Mistake("roi_align_gradient", "adaptive rounded down", "adaptive", "sampling_ratio or math.ceil(bin_width)",
            "sampling_ratio or int(bin_width)"),
    Mistake("roi_align_gradient", "at least one adaptive sample", "adaptive",
            "sampling_ratio or math.ceil(bin_width)", "sampling_ratio or max(math.ceil(bin_width), 1)"),
    # ------------------------------------------------------------------------------------------------------ roi_pool
    Mistake("roi_pool", "picture ignored", "picture", "features[int(roi[0])]", "features[0]"),
    Mistake("roi_pool", "number of the picture scaled", "picture", "int(roi[0])", "int(roi[0] * spatial_scale)"),
    Mistake("roi_pool", "maximum of channels, too", "channels", ".max(axis=(0, 1))", ".max()"),
    Mistake("roi_pool", "average for maximum", "maximum", ".max(axis=(0, 1))", ".mean(axis=(0, 1))"),
    Mistake("roi_pool", "maximum begins at 0", "negative values", ".max(axis=(0, 1))", ".max(axis=(0, 1), initial=0)"),
    Mistake("roi_pool", "RoI read as y, x", "x and y", f"x1, y1, x2, y2 = {ROUND}", f"y1, x1, y2, x2 = {ROUND}"),
    Mistake("roi_pool", "scale ignored", "scale", "side * spatial_scale", "side"),
    Mistake("roi_pool", "cut off for rounded", "rounding", "round_half_away(side * spatial_scale)",
            "int(side * spatial_scale)"),
    Mistake("roi_pool", "half a cell taken off", "rounding", "side * spatial_scale)", "side * spatial_scale - 0.5)"),
    Mistake("roi_pool", "outwards for rounded", "rounding", ROUND,
            "[math.floor(side * spatial_scale) for side in roi[1:3]] + "
            "[math.ceil(side * spatial_scale) for side in roi[3:]]"),
    Mistake("roi_pool", "halves to even", "halves", "round_half_away(side * spatial_scale)",
            "round(side * spatial_scale)"),
    Mistake("roi_pool", "halves up", "halves", "round_half_away(side * spatial_scale)",
            "math.floor(side * spatial_scale + 0.5)"),
    Mistake("roi_pool", "end not counted", "last cell", "max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)",
            "max(y2 - y1, 1), max(x2 - x1, 1)"),
    Mistake("roi_pool", "one cell too many", "last cell", "max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)",
            "max(y2 - y1 + 2, 1), max(x2 - x1 + 2, 1)"),
    Mistake("roi_pool", "whole bins", "bins", BIN_ROWS,
            "y1 + p * max(roi_height // rows, 1), y1 + (p + 1) * max(roi_height // rows, 1)"),
    Mistake("roi_pool", "bins that do not overlap", "bins", BIN_ROWS,
            "y1 + p * roi_height // rows, y1 + max((p + 1) * roi_height // rows, p * roi_height // rows + 1)"),
    Mistake("roi_pool", "no smallest size", "smallest", "max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)",
            "y2 - y1 + 1, x2 - x1 + 1"),
    Mistake("roi_pool", "no clamp", "at the border", "top, bottom = max(top, 0), min(bottom, height)", "pass"),
    Mistake("roi_pool", "last row missing", "at the border", "min(bottom, height)", "min(bottom, height - 1)"),
    Mistake("roi_pool", "x clamped by the height", "at the border", "min(right, width)", "min(right, height)"),
    Mistake("roi_pool", "half added, then cut off", "at the border", "round_half_away(side * spatial_scale)",
            "int(side * spatial_scale + 0.5)"),
    Mistake("roi_pool", "RoI clamped before the bins", "at the border", "roi_height, roi_width =",
            "x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width - 1), min(y2, height - 1)\n"
            "        roi_height, roi_width ="),
    # ------------------------------------------------------------------------------------------------------- box_iou
    Mistake("box_iou", "transposed", "answers", "result = np.zeros((len(a), len(b)))\n",
            "a, b = b, a\n    result = np.zeros((len(a), len(b)))\n"),
    Mistake("box_iou", "union forgotten", "itself", "union = area_a + area_b - shared", "union = area_a + area_b"),
    Mistake("box_iou", "negative sides", "apart", IOU_WIDTH, "width = min(a[2], b[2]) - max(a[0], b[0])"),
    Mistake("box_iou", "minus times minus", "apart", IOU_SIDES,
            "width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])"),
    Mistake("box_iou", "over one area", "symmetric", "union = area_a + area_b - shared", "union = area_a"),
    Mistake("box_iou", "inclusive ends", "scale", "def overlap(a, b):\n",
            "def overlap(a, b):\n    a, b = a + [0, 0, 1, 1], b + [0, 0, 1, 1]\n"),
    Mistake("box_iou", "whole corners", "any two", "def overlap(a, b):\n",
            "def overlap(a, b):\n    a, b = a.astype(int), b.astype(int)\n"),
    Mistake("box_iou", "over the smaller area", "any two", "area_a + area_b - shared", "min(area_a, area_b)"),
    Mistake("box_iou", "rounded", "any two", "shared / union if", "round(shared / union, 3) if"),
    Mistake("box_iou", "nothing where one contains the other", "any two", "shared = width * height",
            "shared = width * height * (not ((a[:2] < b[:2]).all() and (a[2:] > b[2:]).all()))"),
    Mistake("box_iou", "no area not guarded", "no area", "shared / union if union > 0 else 0",
            "np.divide(shared, union)"),
    # ----------------------------------------------------------------------------------------------------------- nms
    Mistake("nms", "booleans", "answers", "np.array(keep, np.int64)", "np.isin(np.arange(len(boxes)), keep)"),
    Mistake("nms", "ascending", "best first", ORDER, 'np.argsort(scores, kind="stable")'),
    Mistake("nms", "order of the input", "best first", "np.array(keep, np.int64)", "np.array(sorted(keep), np.int64)"),
    Mistake("nms", "places in the sorted list", "best first", "keep.append(i)", "keep.append(position)"),
    Mistake("nms", "inclusive ends", "two boxes", "overlap(boxes[i], boxes[j])",
            "overlap(boxes[i] + [0, 0, 1, 1], boxes[j] + [0, 0, 1, 1])"),
    Mistake("nms", "whole corners", "two boxes", "overlap(boxes[i], boxes[j])",
            "overlap(boxes[i].astype(int), boxes[j].astype(int))"),
    Mistake("nms", "only those of a higher index", "stack", "order[position + 1 :]", "range(i + 1, len(boxes))"),
    Mistake("nms", "only the next", "stack", "order[position + 1 :]", "order[position + 1 : position + 2]"),
    Mistake("nms", "suppressed boxes suppress", "chain", "        if gone[i]:\n            continue\n"
            "        keep.append(i)\n", "        if not gone[i]:\n            keep.append(i)\n"),
    Mistake("nms", ">= for >", "threshold", "> iou_threshold", ">= iou_threshold"),
    Mistake("nms", "ties turned around", "ties", ORDER, 'np.argsort(scores, kind="stable")[::-1]'),
    Mistake("nms", "ties by place", "ties", ORDER, "np.lexsort((boxes[:, 0], -scores))"),
    Mistake("nms", "boxes of no area dropped", "no area", "if gone[i]:",
            "if gone[i] or (boxes[i, 2:] == boxes[i, :2]).any():"),
    # -------------------------------------------------------------------------------------------------- encode_boxes
    Mistake("encode_boxes", "corner for center", "center", "dx, dy = (box_x - x) / width, (box_y - y) / height",
                 "dx, dy = (boxes[:, 0] - proposals[:, 0]) / width, (boxes[:, 1] - proposals[:, 1]) / height"),
    Mistake("encode_boxes", "width and height exchanged", "move", "(box_x - x) / width, (box_y - y) / height",
            "(box_x - x) / height, (box_y - y) / width"),
    Mistake("encode_boxes", "over the box's own size", "move", "(box_x - x) / width, (box_y - y) / height",
            "(box_x - x) / box_width, (box_y - y) / box_height"),
    Mistake("encode_boxes", "inclusive ends", "move",
            "width, height = proposals[:, 2] - proposals[:, 0], proposals[:, 3] - proposals[:, 1]\n    box",
            "width, height = proposals[:, 2] - proposals[:, 0] + 1, proposals[:, 3] - proposals[:, 1] + 1\n"
            "    boxes = boxes + [0, 0, 1, 1]\n    box"),
    Mistake("encode_boxes", "no logarithm", "grow", "np.log(box_width / width), np.log(box_height / height)",
            "box_width / width, box_height / height"),
    Mistake("encode_boxes", "logarithm to base 2", "grow", "np.log(box_width / width), np.log(box_height / height)",
            "np.log2(box_width / width), np.log2(box_height / height)"),
    Mistake("encode_boxes", "divided by the weights", "weights", "* np.array(weights)", "/ np.array(weights)"),
    Mistake("encode_boxes", "the weight of x for y", "weights", "np.array(weights)", "np.array(weights)[[0, 0, 2, 3]]"),
    # -------------------------------------------------------------------------------------------------- decode_boxes
    Mistake("decode_boxes", "centers and sizes", "no change",
            "[x - half_width, y - half_height, x + half_width, y + half_height]",
            "[x, y, 2 * half_width, 2 * half_height]"),
    Mistake("decode_boxes", "width and height exchanged", "move",
            "dx * width, proposals[:, 1] + height / 2 + dy * height",
            "dx * height, proposals[:, 1] + height / 2 + dy * width"),
    Mistake("decode_boxes", "whole corners", "no change", "    width, height",
            "    proposals = proposals.astype(int)\n    width, height"),
    Mistake("decode_boxes", "moves limited", "move", "dw, dh = np.minimum",
            "dx, dy = np.minimum(dx, limit), np.minimum(dy, limit)\n    dw, dh = np.minimum"),
    Mistake("decode_boxes", "moved by the new width", "grow", "dx * width", "dx * width * np.exp(dw)"),
    Mistake("decode_boxes", "no exponential", "grow", "np.exp(dw) * width / 2, np.exp(dh) * height / 2",
            "(1 + dw) * width / 2, (1 + dh) * height / 2"),
    Mistake("decode_boxes", "multiplied by the weights", "weights", "deltas / np.array(weights)",
            "deltas * np.array(weights)"),
    Mistake("decode_boxes", "the weight of x for y", "weights", "np.array(weights)", "np.array(weights)[[0, 0, 2, 3]]"),
    Mistake("decode_boxes", "not clipped", "limit", "limit = math.log(1000 / 16)", "limit = 50.0"),
    Mistake("decode_boxes", "clipped before the weights", "weights", "dx, dy, dw, dh = (deltas / np.array(weights)).T\n"
            "    limit = math.log(1000 / 16)\n", "dx, dy, dw, dh = (deltas / np.array(weights)).T\n"
            "    limit = math.log(1000 / 16) / weights[2]\n"),
    # ------------------------------------------------------------------------------------------------- assign_levels
    Mistake("assign_levels", "floats", "answers", "np.array(levels, np.int64)", "np.array(levels, float)"),
    Mistake("assign_levels", "area for side", "octaves", "math.sqrt((x2 - x1) * (y2 - y1))", "(x2 - x1) * (y2 - y1)"),
    Mistake("assign_levels", "natural logarithm", "octaves", "math.log2(", "math.log("),
    Mistake("assign_levels", "longer side", "area", "math.sqrt((x2 - x1) * (y2 - y1))", "max(x2 - x1, y2 - y1)"),
    Mistake("assign_levels", "rounded", "rounded down", "math.floor(", "round("),
    Mistake("assign_levels", "rounded up", "rounded down", "math.floor(4 + math.log2(side / 224) + 1e-6)",
            "math.ceil(4 + math.log2(side / 224) - 1e-6)"),
    Mistake("assign_levels", "no limits", "limits", "min(max(level, 2), 5)", "level"),
    Mistake("assign_levels", "no epsilon", "epsilon", " + 1e-6", ""),
    Mistake("assign_levels", "no area not guarded", "no area", "if side == 0:", "if False:"),
    # -------------------------------------------------------------------------------------------------- make_anchors
    Mistake("make_anchors", "about the middle of the cell", "first center", "column * stride_x, row * stride_y",
            "(column + 0.5) * stride_x, (row + 0.5) * stride_y"),
    Mistake("make_anchors", "from the corner on", "first center", CORNERS, "np.round([0, 0, width, height])"),
    Mistake("make_anchors", "strides exchanged", "stride", "stride_y, stride_x =", "stride_x, stride_y ="),
    Mistake("make_anchors", "x and y exchanged", "stride", "[x, y, x, y]", "[y, x, y, x]"),
    Mistake("make_anchors", "strides that are not whole", "stride", "image_size[0] // rows, image_size[1] // columns",
            "image_size[0] / rows, image_size[1] / columns"),
    Mistake("make_anchors", "ratio inverted", "ratio", ANCHOR_SIZE,
            "width, height = size * math.sqrt(ratio), size / math.sqrt(ratio)"),
    Mistake("make_anchors", "ratio without the root", "ratio",
            ANCHOR_SIZE, "width, height = size / ratio, size * ratio"),
    Mistake("make_anchors", "area not kept", "area", ANCHOR_SIZE, "width, height = size, size * ratio"),
    Mistake("make_anchors", "not rounded", "whole pixels",
            f"corners = {CORNERS}", f"corners = np.array({CORNERS[9:-1]})"),
    Mistake("make_anchors", "halves up", "whole pixels",
            f"corners = {CORNERS}", f"corners = np.floor(np.array({CORNERS[9:-1]}) + 0.5)"),
    Mistake("make_anchors", "columns first", "order", LOOPS, """    for column in range(columns):
        for row in range(rows):
            for ratio in ratios:"""),
    Mistake("make_anchors", "ratios first", "order", LOOPS, """    for ratio in ratios:
        for row in range(rows):
            for column in range(columns):"""),
    Mistake("make_anchors", "ratios sorted", "order", "in ratios:", "in sorted(ratios):"),
    # ----------------------------------------------------------------------------------------------------- mask_loss
    Mistake("mask_loss", "one loss a pixel", "answers", "losses.mean()", "losses"),
    Mistake("mask_loss", "no RoIs forgotten", "answers", "if len(labels) == 0:", "if False:"),
    Mistake("mask_loss", "sum for mean", "mean", "losses.mean()", "losses.sum()"),
    Mistake("mask_loss", "sum over pixels", "mean", "losses.mean()", "losses.sum() / len(labels)"),
    Mistake("mask_loss", "softmax for sigmoid", "ln 2", LOSSES,
            "-np.where(targets > 0.5, own, logits[..., 0]) + np.log(np.exp(logits).sum(axis=-1))"),
    Mistake("mask_loss", "only where the target is 1", "ln 2", LOSSES, "targets * np.log1p(np.exp(-own))"),
    Mistake("mask_loss", "all classes", "one channel", f"own = {OWN}", "own, targets = logits, targets[..., None]"),
    Mistake("mask_loss", "class off by one", "own class",
            "logits[r, :, :, label] for", "logits[r, :, :, label - 1] for"),
    Mistake("mask_loss", "turned around", "own class", "- own * targets", "- own * (1 - targets)"),
    Mistake("mask_loss", "overflow", "large logits", LOSSES,
            "-targets * np.log(1 / (1 + np.exp(-own))) - (1 - targets) * np.log(1 - 1 / (1 + np.exp(-own)))"),
    # --------------------------------------------------------------------------------------------------- paste_masks
    Mistake("paste_masks", "size read as width, height", "answers", "height, width = image_size",
            "width, height = image_size"),
    Mistake("paste_masks", "pictures summed", "answers", "    return pictures\n", "    return pictures.sum(axis=0)\n"),
    Mistake("paste_masks", "compared with 0.5", "constant", READ, f"{READ} > 0.5"),
    Mistake("paste_masks", "whole numbers", "constant", "height, width))", "height, width), np.uint8)"),
    Mistake("paste_masks", "sigmoid once more", "constant", READ, f"1 / (1 + np.exp(-{READ}))"),
    Mistake("paste_masks", "always the first box", "its own picture", "= boxes[n]", "= boxes[0]"),
    Mistake("paste_masks", "always the first mask", "its own picture", "np.pad(masks[n], 1)", "np.pad(masks[0], 1)"),
    Mistake("paste_masks", "one picture for all", "its own picture", "    return pictures\n",
            "    return np.repeat(pictures.max(axis=0, initial=0)[None], len(masks), axis=0)\n"),
    Mistake("paste_masks", "padded with the edge", "fades out", "np.pad(masks[n], 1)", 'np.pad(masks[n], 1, "edge")'),
    Mistake("paste_masks", "widened without zeros", "fades out", READ,
            f"bilinear(masks[n][:, :, None], {SOURCE_Y.replace(' + 2', '')}, {SOURCE_X.replace(' + 2', '')})[0]"),
    Mistake("paste_masks", "over the whole picture", "x and y", COUNT,
            "left, top, columns, rows = 0, 0, width, height"),
    Mistake("paste_masks", "y widened as x", "fades out", CELL, "cell_x = cell_y = (x2 - x1) / side"),
    Mistake("paste_masks", "box read as y, x", "x and y", "x1, y1, x2, y2 = boxes", "y1, x1, y2, x2 = boxes"),
    Mistake("paste_masks", "box read as x, y, width, height", "x and y", f"        {CELL}",
            f"        x2, y2 = x1 + x2, y1 + y2\n        {CELL}"),
    Mistake("paste_masks", "upside down", "upright", "np.pad(masks[n], 1)", "np.pad(masks[n][::-1], 1)"),
    Mistake("paste_masks", "transposed", "upright", "np.pad(masks[n], 1)", "np.pad(masks[n].T, 1)"),
    Mistake("paste_masks", "nearest cell", "between cells", READ,
            "padded[min(max(round(y), 0), side + 1), min(max(round(x), 0), side + 1)]"),
    Mistake("paste_masks", "box not widened", "widened", REACH,
            "left, right, top, bottom = int(x1), int(x2), int(y1), int(y2)"),
    Mistake("paste_masks", "neither padded nor widened", "widened", f"        {CELL}",
            "        padded, side, cell_x, cell_y = masks[n], side - 2, 0, 0"),
    Mistake("paste_masks", "widened by a pixel", "widened", CELL, "cell_x = cell_y = 1"),
    Mistake("paste_masks", "widened by a cell of the padded mask", "widened", CELL,
            "cell_x, cell_y = (x2 - x1) / (side + 2), (y2 - y1) / (side + 2)"),
    Mistake("paste_masks", "corners rounded", "whole pixels", REACH, REACH.replace("int(", "round(")),
    Mistake("paste_masks", "box cut before it is widened", "whole pixels", "= boxes[n]", "= boxes[n].astype(int)"),
    Mistake("paste_masks", "outwards", "whole pixels", "int(x2 + cell_x)", "math.ceil(x2 + cell_x)"),
    Mistake("paste_masks", "not cut", "whole pixels", "row + 0.5) * (side + 2) / rows",
            "top + row - y1 + cell_y) * side / max(y2 - y1, 0.01)"),
    Mistake("paste_masks", "end not counted", "both ends", COUNT,
            "columns, rows = max(right - left, 1), max(bottom - top, 1)"),
    Mistake("paste_masks", "a pixel too many", "both ends", COUNT,
            "columns, rows = max(right - left + 2, 1), max(bottom - top + 2, 1)"),
    Mistake("paste_masks", "no half pixel", "pixel centers", SOURCE,
            "y, x = row * (side + 2) / rows, column * (side + 2) / columns"),
    Mistake("paste_masks", "corners aligned", "pixel centers", SOURCE,
            "y, x = row * (side + 1) / max(rows - 1, 1), column * (side + 1) / max(columns - 1, 1)"),
    Mistake("paste_masks", "box clipped before", "cut off", "        columns, rows =",
            "        left, right = max(left, 0), min(right, width - 1)\n"
            "        top, bottom = max(top, 0), min(bottom, height - 1)\n"
            "        columns, rows ="),
    Mistake("paste_masks", "negative places", "cut off", "0 <= top + row < height and 0 <= left + column < width",
            "-height <= top + row < height and -width <= left + column < width"),
    Mistake("paste_masks", "last row missing", "cut off", "top + row < height", "top + row < height - 1"),
    Mistake("paste_masks", "rows asked against the width", "cut off", "top + row < height", "top + row < width"),
    Mistake("paste_masks", "rounded down", "toward zero", REACH, REACH.replace("int(", "math.floor(")),
    Mistake("paste_masks", "no area skipped", "no area", f"        {CELL}",
            f"        if x2 <= x1 or y2 <= y1:\n            continue\n        {CELL}"),
    Mistake("paste_masks", "no area moved to a pixel", "no area", f"        {CELL}",
            f"        x2, y2 = (x1 + 1 if x2 == x1 else x2), (y1 + 1 if y2 == y1 else y2)\n        {CELL}"),
    # -------------------------------------------------------------------------------------------------------- conv2d
    Mistake("conv2d", "channels transposed", "channels", "@ weight[i, j]", "@ weight[i, j].T"),
    Mistake("conv2d", "kernel flipped", "not flipped", "weight[i, j]", "weight[-1 - i, -1 - j]"),
    Mistake("conv2d", "bias for every tap", "bias", "@ weight[i, j]\n",
            "@ weight[i, j] + (0 if bias is None else bias)\n"),
    Mistake("conv2d", "one bias for all channels", "bias", "+= bias", "+= bias[0]"),
    Mistake("conv2d", "padding forgotten", "padding", "(padding, padding), (padding, padding)", "(0, 0), (0, 0)"),
    Mistake("conv2d", "one row above at most", "padding", "(padding, padding), (padding, padding)",
            "(min(padding, 1), max(padding, 2 * padding - 1)), (padding, padding)"),
    Mistake("conv2d", "padded with the edge", "padding", "(padding, padding), (0, 0))",
            "(padding, padding), (0, 0)), mode=\"edge\""),
    Mistake("conv2d", "stride ignored", "stride",
            "x[:, row * stride + i, column * stride + j]", "x[:, row + i, column + j]"),
    Mistake("conv2d", "stride ignored in the size, too", "stride", "kernel_height, kernel_width, _, channels =",
            "stride = 1\n    kernel_height, kernel_width, _, channels ="),
    Mistake("conv2d", "whole numbers", "textbook", "    return y", "    return y.astype(int)"),
]  # fmt: skip


def find_mistake(function, name):
    return next(mistake for mistake in MISTAKES if (mistake.function, mistake.name) == (function, name))
