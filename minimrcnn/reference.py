"""Every algorithm as the textbook says it: plain loops in float64, short enough to read aloud.

This is the oracle of the tests, the first page of every lesson and the baseline of the benchmarks. Nothing that must be
fast imports it. The order is the article's: boxes, convolutions, the pyramid, interpolation, RoI pooling, RoIAlign,
losses, masks. A cell of a feature map is a vector of channels and is handled as one; all other loops are written out.

Layouts: features (N, H, W, C), kernels (KH, KW, Cin, Cout), boxes x1, y1, x2, y2, RoIs (image, x1, y1, x2, y2).
"""

from __future__ import annotations

import math

import numpy as np

# ------------------------------------------------------------------------------------------------------------- boxes


def box_iou(a, b):
    """Shared area over the area of both together: boxes (P, 4), (Q, 4) -> (P, Q)."""
    result = np.zeros((len(a), len(b)))
    for i, (ax1, ay1, ax2, ay2) in enumerate(np.asarray(a, float)):
        for j, (bx1, by1, bx2, by2) in enumerate(np.asarray(b, float)):
            width = max(min(ax2, bx2) - max(ax1, bx1), 0)
            height = max(min(ay2, by2) - max(ay1, by1), 0)
            shared = width * height
            union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared
            result[i, j] = shared / union if union > 0 else 0
    return result


def encode_box(box, proposal, weights=(1, 1, 1, 1)):
    """How the proposal must move (in its own widths and heights) and grow (as a logarithm) to become the box."""
    x1, y1, x2, y2 = (float(value) for value in box)
    px1, py1, px2, py2 = (float(value) for value in proposal)
    width, height = px2 - px1, py2 - py1
    dx = ((x1 + x2) / 2 - (px1 + px2) / 2) / width
    dy = ((y1 + y2) / 2 - (py1 + py2) / 2) / height
    dw = math.log((x2 - x1) / width)
    dh = math.log((y2 - y1) / height)
    return [weight * delta for weight, delta in zip(weights, (dx, dy, dw, dh), strict=True)]


def decode_box(deltas, proposal, weights=(1, 1, 1, 1)):
    """The way back; growth is limited to a factor of 1000 / 16."""
    dx, dy, dw, dh = (float(delta) / weight for delta, weight in zip(deltas, weights, strict=True))
    px1, py1, px2, py2 = (float(value) for value in proposal)
    width, height = px2 - px1, py2 - py1
    x, y = (px1 + px2) / 2 + dx * width, (py1 + py2) / 2 + dy * height
    width *= math.exp(min(dw, math.log(1000 / 16)))
    height *= math.exp(min(dh, math.log(1000 / 16)))
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def clip_box(box, size):
    """The box's corners moved into the picture of (height, width)."""
    height, width = size
    x1, y1, x2, y2 = box
    return [min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)]


def make_anchors(size, ratios, level_size, image_size):
    """The anchors of one level, by row, column, ratio: equal areas, rounded to whole pixels (half to even)."""
    rows, columns = level_size
    stride_y, stride_x = image_size[0] // rows, image_size[1] // columns
    anchors = []
    for row in range(rows):
        for column in range(columns):
            for ratio in ratios:  # height / width; width * height stays size * size
                width, height = size / math.sqrt(ratio), size * math.sqrt(ratio)
                corners = round(-width / 2), round(-height / 2), round(width / 2), round(height / 2)
                x, y = column * stride_x, row * stride_y
                anchors.append([corners[0] + x, corners[1] + y, corners[2] + x, corners[3] + y])
    return np.array(anchors, float).reshape(-1, 4)


def match(iou, low, high, allow_low_quality):
    """Each anchor's best object: iou (G, A) -> (A,); -1 below `low`, -2 from there to `high`."""
    objects, anchors = iou.shape
    matches = []
    for anchor in range(anchors):
        best = max(range(objects), key=lambda i: iou[i, anchor], default=None)  # of equals, max takes the first
        if best is None or iou[best, anchor] < low:
            matches.append(-1)
        elif iou[best, anchor] < high:
            matches.append(-2)
        else:
            matches.append(best)
        for i in range(objects if allow_low_quality else 0):
            if iou[i, anchor] == max(iou[i]):  # nobody overlaps object i more
                matches[anchor] = best
    return np.array(matches, dtype=np.int64)


def nms(boxes, scores, iou_threshold):
    """Take the best box left, drop all that overlap it by more than the threshold, and so on."""
    left = sorted(range(len(scores)), key=lambda i: -scores[i])  # sorted() is stable: equals keep their order
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        overlaps = box_iou([boxes[best]], [boxes[i] for i in left])[0]
        left = [i for i, overlap in zip(left, overlaps, strict=True) if overlap <= iou_threshold]
    return np.array(kept, dtype=np.int64)


def assign_level(box):
    """The pyramid level of a box, 2 to 5: 4 for one of 224 x 224, and one lower for every halving of its size."""
    x1, y1, x2, y2 = (float(value) for value in box)
    side = math.sqrt((x2 - x1) * (y2 - y1))
    if side == 0:
        return 2
    level = math.floor(4 + math.log2(side / 224) + 1e-6)
    return min(max(level, 2), 5)


# ------------------------------------------------------------------------------------- convolutions and the pyramid


def conv2d(x, weight, bias=None, stride=1, padding=0, groups=1):
    """Every output cell is the kernel laid over the input there: products summed over the kernel and its channels."""
    x, weight = np.asarray(x, float), np.asarray(weight, float)
    kernel_y, kernel_x, group_in, channels_out = weight.shape
    group_out = channels_out // groups
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    images, height, width, _ = x.shape
    rows, columns = (height - kernel_y) // stride + 1, (width - kernel_x) // stride + 1
    y = np.zeros((images, rows, columns, channels_out))
    for n in range(images):
        for row in range(rows):
            for column in range(columns):
                for channel in range(channels_out):
                    first = channel // group_out * group_in  # a group of outputs sees a group of inputs
                    total = 0.0 if bias is None else float(bias[channel])
                    for i in range(kernel_y):
                        for j in range(kernel_x):
                            cell = x[n, row * stride + i, column * stride + j, first : first + group_in]
                            total += cell @ weight[i, j, :, channel]
                    y[n, row, column, channel] = total
    return y


def conv2d_gradient(gradient, x, weight, stride=1, padding=0, groups=1):
    """Where y was a sum of products, each factor's gradient is the other factor: gradients of x, weight and bias."""
    x, weight = np.asarray(x, float), np.asarray(weight, float)
    kernel_y, kernel_x, group_in, channels_out = weight.shape
    group_out = channels_out // groups
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    x_gradient, weight_gradient = np.zeros_like(x), np.zeros_like(weight)
    images, rows, columns, _ = gradient.shape
    for n in range(images):
        for row in range(rows):
            for column in range(columns):
                for channel in range(channels_out):
                    group = slice(channel // group_out * group_in, channel // group_out * group_in + group_in)
                    incoming = float(gradient[n, row, column, channel])
                    for i in range(kernel_y):
                        for j in range(kernel_x):
                            place = n, row * stride + i, column * stride + j, group
                            x_gradient[place] += incoming * weight[i, j, :, channel]
                            weight_gradient[i, j, :, channel] += incoming * x[place]
    height, width = x.shape[1] - 2 * padding, x.shape[2] - 2 * padding
    x_gradient = x_gradient[:, padding : padding + height, padding : padding + width]
    return x_gradient, weight_gradient, np.asarray(gradient, float).sum(axis=(0, 1, 2))


def conv_transpose2d(x, weight, bias=None, stride=2):
    """Every input cell stamps the kernel, scaled by it, onto the output; where stamps overlap they add up."""
    x, weight = np.asarray(x, float), np.asarray(weight, float)
    kernel_y, kernel_x, _, channels_out = weight.shape
    images, height, width, _ = x.shape
    y = np.zeros((images, (height - 1) * stride + kernel_y, (width - 1) * stride + kernel_x, channels_out))
    if bias is not None:
        y += np.asarray(bias, float)
    for n in range(images):
        for row in range(height):
            for column in range(width):
                for i in range(kernel_y):
                    for j in range(kernel_x):
                        y[n, row * stride + i, column * stride + j] += x[n, row, column] @ weight[i, j]
    return y


def max_pool2d(x, kernel, stride, padding=0, gradient=None):
    """The largest value under the window. With `gradient`: that of x, each value's going to the first largest cell."""
    x = np.asarray(x, float)
    images, height, width, channels = x.shape
    rows, columns = (height + 2 * padding - kernel) // stride + 1, (width + 2 * padding - kernel) // stride + 1
    y, x_gradient = np.zeros((images, rows, columns, channels)), np.zeros_like(x)
    for n, row, column, channel in np.ndindex(y.shape):
        best, place = -math.inf, None
        for i in range(max(row * stride - padding, 0), min(row * stride - padding + kernel, height)):
            for j in range(max(column * stride - padding, 0), min(column * stride - padding + kernel, width)):
                if x[n, i, j, channel] > best:
                    best, place = x[n, i, j, channel], (n, i, j, channel)
        y[n, row, column, channel] = best
        if gradient is not None:
            x_gradient[place] += gradient[n, row, column, channel]
    return y if gradient is None else x_gradient


def group_norm(x, groups, weight, bias, eps=1e-5):
    """Each group of channels of each image is brought to mean 0 and variance 1, then scaled and shifted by channel."""
    x = np.asarray(x, float)
    y = np.zeros_like(x)
    size = x.shape[3] // groups
    for n in range(len(x)):
        for group in range(groups):
            channels = slice(group * size, (group + 1) * size)
            values = x[n, :, :, channels]
            mean = values.sum() / values.size
            variance = ((values - mean) ** 2).sum() / values.size
            y[n, :, :, channels] = (values - mean) / math.sqrt(variance + eps) * weight[channels] + bias[channels]
    return y


def upsample_nearest(x, size):
    """Every output cell copies the input cell it lies in."""
    x = np.asarray(x, float)
    images, height, width, channels = x.shape
    y = np.zeros((images, *size, channels))
    for row in range(size[0]):
        for column in range(size[1]):
            y[:, row, column] = x[:, row * height // size[0], column * width // size[1]]
    return y


# ------------------------------------------------------------------------------------------------------ interpolation


def interpolate_linear(x, x0, y0, x1, y1):
    """Between two points: each is weighed by the distance to the *other* one, and the weights sum to 1."""
    return (x1 - x) / (x1 - x0) * y0 + (x - x0) / (x1 - x0) * y1


def interpolate_bilinear(cells, y, x):
    """Between four cells of a map (H, W, C) whose values sit at whole coordinates: along x twice, then along y.

    The border cells reach on outside the map.
    """
    height, width, _ = cells.shape
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = min(int(y), max(height - 2, 0)), min(int(x), max(width - 2, 0))
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    above = interpolate_linear(x, left, cells[top, left], left + 1, cells[top, right])
    below = interpolate_linear(x, left, cells[bottom, left], left + 1, cells[bottom, right])
    return interpolate_linear(y, top, above, top + 1, below)


def resize_bilinear(x, size):
    """Every output pixel's center, on the input's scale, is read between four input pixels (`align_corners` False)."""
    x = np.asarray(x, float)
    images, height, width, channels = x.shape
    y = np.zeros((images, *size, channels))
    for n in range(images):
        for row in range(size[0]):
            for column in range(size[1]):
                source_y = (row + 0.5) * height / size[0] - 0.5
                source_x = (column + 0.5) * width / size[1] - 0.5
                y[n, row, column] = interpolate_bilinear(x[n], source_y, source_x)
    return y


# -------------------------------------------------------------------------------------------------------- RoI pooling


def round_half_up(value):
    """To the nearest whole number, halves away from zero."""
    return math.floor(value + 0.5) if value >= 0 else -math.floor(-value + 0.5)


def bin_cells(low, high, bins, rule):
    """The whole cells of every bin of one side of a RoI: a list of ranges. `kernels/roi_pool.py` tells the rules."""
    if rule == "caffe":
        first, last = round_half_up(low), round_half_up(high)
        size = max(last - first + 1, 1)  # both corners count
        return [
            range(first + math.floor(p * size / bins), first + math.ceil((p + 1) * size / bins)) for p in range(bins)
        ]
    if rule == "split":
        first, size = round_half_up(low), max(round_half_up(high) - round_half_up(low), 0)
        return [range(first + p * size // bins, first + (p + 1) * size // bins) for p in range(bins)]
    if rule == "floor":
        first, size = math.floor(low), max(math.floor(high - low), 0) // bins
        return [range(first + p * size, first + (p + 1) * size) for p in range(bins)]
    raise ValueError(f"bin_cells: rule is {rule!r}, wanted 'caffe', 'split' or 'floor'")


def roi_pool(features, rois, output_size, spatial_scale, rule="caffe", gradient=None):
    """Every bin's largest value, 0 for a bin without cells. With `gradient`: that of the features."""
    features = np.asarray(features, float)
    _, height, width, channels = features.shape
    y, features_gradient = np.zeros((len(rois), *output_size, channels)), np.zeros_like(features)
    for r, roi in enumerate(rois):
        n = int(roi[0])
        x1, y1, x2, y2 = (float(value) * spatial_scale for value in roi[1:])
        for p, rows in enumerate(bin_cells(y1, y2, output_size[0], rule)):
            for q, columns in enumerate(bin_cells(x1, x2, output_size[1], rule)):
                cells = [(i, j) for i in rows for j in columns if 0 <= i < height and 0 <= j < width]
                for channel in range(channels if cells else 0):
                    best = max(cells, key=lambda cell: features[n, cell[0], cell[1], channel])  # noqa: B023
                    y[r, p, q, channel] = features[n, best[0], best[1], channel]
                    if gradient is not None:
                        features_gradient[n, best[0], best[1], channel] += gradient[r, p, q, channel]
    return y if gradient is None else features_gradient


# ----------------------------------------------------------------------------------------------------------- RoIAlign


def sample_points(low, high, bins, spatial_scale, sampling_ratio, aligned):
    """The sample coordinates of every bin of one side of a RoI: a list of lists. Nothing is rounded."""
    start, end = low * spatial_scale, high * spatial_scale
    if aligned:  # the value of cell i sits at i + 0.5
        start, end = start - 0.5, end - 0.5
    elif end - start < 1:
        end = start + 1
    size = (end - start) / bins
    samples = sampling_ratio if sampling_ratio > 0 else math.ceil(size)
    return [[start + p * size + (i + 0.5) * size / samples for i in range(samples)] for p in range(bins)]


def corner_weights(position, cells):
    """The cells around a coordinate with their weights; none if it lies more than a cell outside of the map."""
    if not -1 <= position <= cells:
        return []
    position = min(max(position, 0), cells - 1)
    low = int(position)
    if low == cells - 1:
        return [(low, 1.0)]
    return [(low, 1 - (position - low)), (low + 1, position - low)]


def roi_align(
    features, rois, output_size, spatial_scale, sampling_ratio=2, aligned=True, mode="average", gradient=None
):
    """Every bin's average (or largest) sample, bilinear between cells. With `gradient`: that of the features."""
    features = np.asarray(features, float)
    _, height, width, channels = features.shape
    y, features_gradient = np.zeros((len(rois), *output_size, channels)), np.zeros_like(features)
    for r, roi in enumerate(rois):
        n = int(roi[0])
        x1, y1, x2, y2 = (float(value) for value in roi[1:])
        points_y = sample_points(y1, y2, output_size[0], spatial_scale, sampling_ratio, aligned)
        points_x = sample_points(x1, x2, output_size[1], spatial_scale, sampling_ratio, aligned)
        for p, q in np.ndindex(*output_size):
            samples, corners = [], []
            for sample_y in points_y[p]:
                for sample_x in points_x[q]:
                    around = [
                        (i, j, weight_y * weight_x)
                        for i, weight_y in corner_weights(sample_y, height)
                        for j, weight_x in corner_weights(sample_x, width)
                    ]
                    corners.append(around)
                    samples.append(sum((weight * features[n, i, j] for i, j, weight in around), np.zeros(channels)))
            if not samples:  # a box of no area, with adaptive samples
                continue
            samples = np.array(samples)  # (S, C)
            share = np.full(samples.shape, 1 / len(samples))  # how much of each sample is in the result
            if mode == "max":
                share = (np.arange(len(samples))[:, None] == samples.argmax(axis=0)).astype(float)
            y[r, p, q] = (share * samples).sum(axis=0)
            if gradient is not None:
                for around, part in zip(corners, share, strict=True):
                    for i, j, weight in around:
                        features_gradient[n, i, j] += weight * part * gradient[r, p, q]
    return y if gradient is None else features_gradient


# ------------------------------------------------------------------------------------------------------------- losses


def smooth_l1(prediction, target, beta):
    """A parabola up to `beta`, a straight line of slope 1 beyond; the sum."""
    total = 0.0
    for difference in np.abs(np.asarray(prediction, float) - np.asarray(target, float)).ravel():
        total += 0.5 * difference**2 / beta if difference < beta else difference - 0.5 * beta
    return total


def softmax(logits):
    """Exponentials over their sum; the largest is subtracted first so that none overflows."""
    exponentials = [math.exp(logit - max(logits)) for logit in logits]
    return [value / sum(exponentials) for value in exponentials]


def cross_entropy(logits, labels):
    """Minus the logarithm of the probability of the right class; the mean over the rows."""
    losses = [-math.log(softmax(row)[label]) for row, label in zip(logits, labels, strict=True)]
    return sum(losses) / len(losses)


def cross_entropy_gradient(logits, labels):
    """Probabilities, less 1 for the right class."""
    return np.array(
        [
            [(value - (k == label)) / len(labels) for k, value in enumerate(softmax(row))]
            for row, label in zip(logits, labels, strict=True)
        ]
    )


def bce_with_logits(logits, target):
    """-t log(sigmoid(z)) - (1 - t) log(1 - sigmoid(z)), in a form that does not overflow; the mean."""
    logits, target = np.asarray(logits, float).ravel(), np.asarray(target, float).ravel()
    losses = [max(z, 0) - z * t + math.log1p(math.exp(-abs(z))) for z, t in zip(logits, target, strict=True)]
    return sum(losses) / len(losses) if losses else 0.0


def mask_loss(logits, targets, labels, kind="sigmoid"):
    """How wrong the masks (R, M, M, K) are: "sigmoid" asks the channel of the RoI's class only, "agnostic" the only
    channel there is, and "softmax" lets the classes compete in every pixel (channel 0 is the background)."""
    if len(labels) == 0:
        return 0.0
    if kind == "softmax":
        classes = np.where(np.asarray(targets) >= 0.5, np.asarray(labels)[:, None, None], 0)  # (R, M, M)
        return cross_entropy(np.reshape(logits, (-1, np.shape(logits)[3])), classes.ravel())
    channels = [0 if kind == "agnostic" else label for label in labels]
    chosen = [logits[r][:, :, channel] for r, channel in enumerate(channels)]
    return bce_with_logits(np.array(chosen), targets)


# -------------------------------------------------------------------------------------------------------------- masks


def crop_masks(masks, rois, matched, size):
    """What the mask head should say: RoIAlign of the matched object's mask, unshifted, with adaptive samples."""
    targets = np.zeros((len(rois), size, size))
    for r, (roi, row) in enumerate(zip(rois, matched, strict=True)):
        picture = np.asarray(masks[row], float)[None, :, :, None]  # (1, H, W, 1)
        crop = roi_align(picture, [[0, *roi]], (size, size), 1.0, sampling_ratio=0, aligned=False)
        targets[r] = crop[0, :, :, 0]
    return targets


def paste_masks(masks, boxes, size):
    """Each mask, with a border of zeros, stretched over its box, which is widened to match and cut to whole pixels."""
    height, width = size
    pictures = np.zeros((len(masks), height, width))
    for d, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
        side = len(mask)
        x1, y1, x2, y2 = (float(value) for value in box)
        widen_x, widen_y = (x2 - x1) / side, (y2 - y1) / side  # one cell of the mask on each side
        left, right = int(x1 - widen_x), int(x2 + widen_x)  # int() cuts toward zero
        top, bottom = int(y1 - widen_y), int(y2 + widen_y)
        rows, columns = max(bottom - top + 1, 1), max(right - left + 1, 1)
        stretched = resize_bilinear(np.pad(mask, 1)[None, :, :, None], (rows, columns))[0, :, :, 0]
        for row in range(max(top, 0), min(top + rows, height)):
            for column in range(max(left, 0), min(left + columns, width)):
                pictures[d, row, column] = stretched[row - top, column - left]
    return pictures
