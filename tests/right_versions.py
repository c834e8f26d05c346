"""All thirteen functions of the exercises, right and in plain loops, as a good student would hand them in.

Two of them come a second time, without loops over samples and pixels, as people make other mistakes there.

Nothing of the package is used. `tests/wrong_versions.py` makes its mistakes by changing a line or two of this text.
"""

import math

import numpy as np


def bilinear(features, y, x):
    height, width, _ = features.shape
    y = min(max(y, 0), height - 1)
    x = min(max(x, 0), width - 1)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    above = (1 - dx) * features[top, left] + dx * features[top, right]
    below = (1 - dx) * features[bottom, left] + dx * features[bottom, right]
    return (1 - dy) * above + dy * below


def roi_align(features, rois, output_size, spatial_scale=1.0, sampling_ratio=2, aligned=True):
    _, height, width, channels = features.shape
    rows, columns = output_size
    crops = np.zeros((len(rois), rows, columns, channels))
    for r, roi in enumerate(rois):
        image = features[int(roi[0])]
        x1, y1, x2, y2 = roi[1:]
        x1, y1, x2, y2 = (side * spatial_scale for side in (x1, y1, x2, y2))
        if aligned:
            x1, y1, x2, y2 = (side - 0.5 for side in (x1, y1, x2, y2))
        roi_width, roi_height = x2 - x1, y2 - y1
        if not aligned:
            roi_width, roi_height = max(roi_width, 1), max(roi_height, 1)
        bin_height, bin_width = roi_height / rows, roi_width / columns
        samples_y = sampling_ratio or math.ceil(bin_height)
        samples_x = sampling_ratio or math.ceil(bin_width)
        for p in range(rows):
            for q in range(columns):
                samples = []
                for i in range(samples_y):
                    for j in range(samples_x):
                        y = y1 + (p + (i + 0.5) / samples_y) * bin_height
                        x = x1 + (q + (j + 0.5) / samples_x) * bin_width
                        if y < -1 or y > height or x < -1 or x > width:
                            samples.append(np.zeros(channels))
                        else:
                            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
                            samples.append(interpolate(image, y, x))
                if samples:
                    crops[r, p, q] = sum(samples) / len(samples)
    return crops


def interpolate(image, y, x):
    top, left = int(y), int(x)
    total = 0
    for row, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            if weight_y * weight_x:
                total = total + weight_y * weight_x * image[row, column]
    return total


def roi_align_gradient(gradient, features_shape, rois, spatial_scale=1.0, sampling_ratio=2, aligned=True):
    _, height, width, _ = features_shape
    _, rows, columns, _ = gradient.shape
    result = np.zeros(features_shape)
    for r, roi in enumerate(rois):
        image = int(roi[0])
        x1, y1, x2, y2 = (side * spatial_scale - (0.5 if aligned else 0) for side in roi[1:])
        roi_width, roi_height = x2 - x1, y2 - y1
        if not aligned:
            roi_width, roi_height = max(roi_width, 1), max(roi_height, 1)
        bin_height, bin_width = roi_height / rows, roi_width / columns
        samples_y = sampling_ratio or math.ceil(bin_height)
        samples_x = sampling_ratio or math.ceil(bin_width)
        for p in range(rows):
            for q in range(columns):
                for i in range(samples_y):
                    for j in range(samples_x):
                        y = y1 + (p + (i + 0.5) / samples_y) * bin_height
                        x = x1 + (q + (j + 0.5) / samples_x) * bin_width
                        if y < -1 or y > height or x < -1 or x > width:
                            continue
                        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
                        share = gradient[r, p, q] / (samples_y * samples_x)
                        top, left = int(y), int(x)
                        for row, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
                            for column, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
                                if weight_y * weight_x:
                                    result[image, row, column] += weight_y * weight_x * share
    return result


def roi_align_gradient_at_once(gradient, features_shape, rois, spatial_scale=1.0, sampling_ratio=2, aligned=True):
    """All samples of a RoI at once: the four cells of each, as arrays of places."""
    result = np.zeros(features_shape)
    size = np.array(features_shape[1:3])
    bins = np.array(gradient.shape[1:3])
    for roi, sent in zip(rois, gradient, strict=True):
        start, end = roi[[2, 1]] * spatial_scale, roi[[4, 3]] * spatial_scale  # y first
        if aligned:
            start, end = start - 0.5, end - 0.5
        else:
            end = np.maximum(end, start + 1)
        step = (end - start) / bins
        counts = [sampling_ratio] * 2 if sampling_ratio else np.ceil(step).astype(int)
        sent = sent.repeat(counts[0], axis=0).repeat(counts[1], axis=1) / max(counts[0] * counts[1], 1)
        cells, weights = [], []
        for axis in (0, 1):
            points = start[axis] + (np.arange(bins[axis] * counts[axis]) + 0.5) * step[axis] / max(counts[axis], 1)
            inside = (points >= -1) & (points <= size[axis])
            points = points.clip(0, size[axis] - 1)
            low = np.floor(points).astype(int)
            high = np.minimum(low + 1, size[axis] - 1)
            cells.append((low, high))
            weights.append((inside * (1 - (points - low)), inside * (points - low)))
        for i in (0, 1):
            for j in (0, 1):
                values = weights[0][i][:, None, None] * weights[1][j][None, :, None] * sent
                places = int(roi[0]), cells[0][i][:, None], cells[1][j][None, :]
                np.add.at(result, places, values)
    return result


def roi_pool(features, rois, output_size, spatial_scale=1.0):
    _, height, width, channels = features.shape
    rows, columns = output_size
    crops = np.zeros((len(rois), rows, columns, channels))
    for r, roi in enumerate(rois):
        image = features[int(roi[0])]
        x1, y1, x2, y2 = [round_half_away(side * spatial_scale) for side in roi[1:]]
        roi_height, roi_width = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for p in range(rows):
            for q in range(columns):
                top, bottom = y1 + p * roi_height // rows, y1 - (-(p + 1) * roi_height // rows)
                left, right = x1 + q * roi_width // columns, x1 - (-(q + 1) * roi_width // columns)
                top, bottom = max(top, 0), min(bottom, height)
                left, right = max(left, 0), min(right, width)
                if top < bottom and left < right:
                    crops[r, p, q] = image[top:bottom, left:right].max(axis=(0, 1))
    return crops


def round_half_away(value):
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def box_iou(a, b):
    result = np.zeros((len(a), len(b)))
    for i in range(len(a)):
        for j in range(len(b)):
            result[i, j] = overlap(a[i], b[j])
    return result


def overlap(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    shared = width * height
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    union = area_a + area_b - shared
    return shared / union if union > 0 else 0


def nms(boxes, scores, iou_threshold):
    order = np.argsort(-scores, kind="stable")
    gone = np.zeros(len(boxes), bool)
    keep = []
    for position, i in enumerate(order):
        if gone[i]:
            continue
        keep.append(i)
        for j in order[position + 1 :]:
            if overlap(boxes[i], boxes[j]) > iou_threshold:
                gone[j] = True
    return np.array(keep, np.int64)


def encode_boxes(boxes, proposals, weights=(1.0, 1.0, 1.0, 1.0)):
    width, height = proposals[:, 2] - proposals[:, 0], proposals[:, 3] - proposals[:, 1]
    box_width, box_height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    x, y = proposals[:, 0] + width / 2, proposals[:, 1] + height / 2
    box_x, box_y = boxes[:, 0] + box_width / 2, boxes[:, 1] + box_height / 2
    dx, dy = (box_x - x) / width, (box_y - y) / height
    dw, dh = np.log(box_width / width), np.log(box_height / height)
    return np.stack([dx, dy, dw, dh], axis=1) * np.array(weights)


def decode_boxes(deltas, proposals, weights=(1.0, 1.0, 1.0, 1.0)):
    dx, dy, dw, dh = (deltas / np.array(weights)).T
    limit = math.log(1000 / 16)
    dw, dh = np.minimum(dw, limit), np.minimum(dh, limit)
    width, height = proposals[:, 2] - proposals[:, 0], proposals[:, 3] - proposals[:, 1]
    x, y = proposals[:, 0] + width / 2 + dx * width, proposals[:, 1] + height / 2 + dy * height
    half_width, half_height = np.exp(dw) * width / 2, np.exp(dh) * height / 2
    return np.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=1)


def assign_levels(boxes):
    levels = []
    for x1, y1, x2, y2 in boxes:
        side = math.sqrt((x2 - x1) * (y2 - y1))
        if side == 0:
            levels.append(2)
            continue
        level = math.floor(4 + math.log2(side / 224) + 1e-6)
        levels.append(min(max(level, 2), 5))
    return np.array(levels, np.int64)


def make_anchors(size, ratios, level_size, image_size):
    rows, columns = level_size
    stride_y, stride_x = image_size[0] // rows, image_size[1] // columns
    anchors = []
    for row in range(rows):
        for column in range(columns):
            for ratio in ratios:
                width, height = size / math.sqrt(ratio), size * math.sqrt(ratio)
                x, y = column * stride_x, row * stride_y
                corners = np.round([-width / 2, -height / 2, width / 2, height / 2])
                anchors.append(corners + [x, y, x, y])
    return np.array(anchors)


def mask_loss(logits, targets, labels):
    if len(labels) == 0:
        return 0.0
    own = np.stack([logits[r, :, :, label] for r, label in enumerate(labels)])
    losses = np.maximum(own, 0) - own * targets + np.log1p(np.exp(-np.abs(own)))
    return losses.mean()


def paste_masks(masks, boxes, image_size):
    height, width = image_size
    pictures = np.zeros((len(masks), height, width))
    for n in range(len(masks)):
        side = len(masks[n])
        padded = np.pad(masks[n], 1)
        x1, y1, x2, y2 = boxes[n]
        cell_x, cell_y = (x2 - x1) / side, (y2 - y1) / side
        left, right = int(x1 - cell_x), int(x2 + cell_x)
        top, bottom = int(y1 - cell_y), int(y2 + cell_y)
        columns, rows = max(right - left + 1, 1), max(bottom - top + 1, 1)
        for row in range(rows):
            for column in range(columns):
                if 0 <= top + row < height and 0 <= left + column < width:
                    y = (row + 0.5) * (side + 2) / rows - 0.5
                    x = (column + 0.5) * (side + 2) / columns - 0.5
                    pictures[n, top + row, left + column] = bilinear(padded[:, :, None], y, x)[0]
    return pictures


def paste_masks_at_once(masks, boxes, image_size):
    """Each mask between two matrices, which say how much of each cell is in a row and in a column of the picture."""
    pictures = np.zeros((len(masks), *image_size))
    for mask, (x1, y1, x2, y2), picture in zip(masks, boxes, pictures, strict=True):
        vertical = share_cells(y1, y2, len(mask), image_size[0])
        horizontal = share_cells(x1, x2, len(mask), image_size[1])
        picture[:] = vertical @ mask @ horizontal.T
    return pictures


def share_cells(low, high, side, pixels):
    """How much of each of the mask's cells is in each pixel of an axis: (pixels, side)."""
    center, half = (low + high) / 2, (high - low) / 2 * (side + 2) / side
    first, last = np.trunc([center - half, center + half])
    count = max(last - first + 1, 1)
    pixel = np.arange(pixels) - first
    place = ((pixel + 0.5) * (side + 2) / count - 0.5)[:, None]
    shares = np.maximum(1 - np.abs(place - np.arange(1, side + 1)), 0)
    return shares * ((pixel >= 0) & (pixel < count))[:, None]


def conv2d(x, weight, bias=None, stride=1, padding=0):
    kernel_height, kernel_width, _, channels = weight.shape
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    images, height, width, _ = x.shape
    rows, columns = (height - kernel_height) // stride + 1, (width - kernel_width) // stride + 1
    y = np.zeros((images, rows, columns, channels))
    for row in range(rows):
        for column in range(columns):
            for i in range(kernel_height):
                for j in range(kernel_width):
                    y[:, row, column] += x[:, row * stride + i, column * stride + j] @ weight[i, j]
            if bias is not None:
                y[:, row, column] += bias
    return y
