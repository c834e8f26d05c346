"""Thirteen functions of Mask R-CNN to write yourself, in any order, each with what goes in, what comes out, the rules.

Copy this file to my_functions.py, replace a ``raise NotImplementedError`` by your own code, and ask

    minimrcnn check my_functions.py                       # all that is written
    minimrcnn check my_functions.py --only roi_align      # one of them

For each function you see which properties hold and which do not, and for the first that does not the smallest example
that shows it, in numbers and as a picture, with the usual cause. Plain loops are fast enough: examples are tiny.
What your code prints is not shown then: to see it, run your file yourself, ``python my_functions.py``.

What is common to all:

- Arrays are NumPy's, float64 unless it says otherwise. Arguments come by position: rename them as you like. Do not
  change them; whoever called you still needs them.
- Features are (N, H, W, C): pictures, rows, columns, channels. Rows go with y, columns with x: ``features[n, y, x]``.
- A box is ``x1, y1, x2, y2`` in continuous coordinates, and its width is x2 - x1, without + 1.
- A size is (height, width).
"""

import numpy as np  # noqa: F401

# ------------------------------------------------------------------------------------------------------ interpolation


def bilinear(features, y, x):
    """The value of a map between its cells.

    Parameters
    ----------
    features : array (H, W, C)
        The value of cell i sits at coordinate i: ``features[2, 3]`` at y = 2, x = 3.
    y, x : float
        In cells. Outside of the map (below 0, above H - 1 or W - 1) the nearest border cells count.

    Returns
    -------
    array (C,)
        Interpolated between two cells along x, in the row above and in the row below, and between these along y. Each
        is weighed by the distance to the *other* one.

    Examples
    --------
    >>> features = np.array([[0.0, 10.0], [20.0, 30.0]])[:, :, None]
    >>> bilinear(features, 0.5, 0.25)  # 2.5 in row 0, 22.5 in row 1
    array([12.5])
    """
    raise NotImplementedError


def roi_align(features, rois, output_size, spatial_scale=1.0, sampling_ratio=2, aligned=True):
    """RoIAlign: cut each RoI out of a map without rounding anything (He et al. 2017, section 3).

    1. Scale the RoI to cells. If ``aligned``, take half a cell off all four coordinates.
    2. Cut it into ``output_size`` equal bins.
    3. In each bin, put sampling_ratio x sampling_ratio samples into the middle of equal shares of it, at
       (i + 0.5) / sampling_ratio.
    4. Read the map at each sample, as `bilinear` does, and average.

    Parameters
    ----------
    features : array (N, H, W, C)
    rois : array (R, 5)
        Number of the picture (0 to N - 1, as a float), x1, y1, x2, y2 in pixels. R may be 0.
    output_size : (int, int)
        Rows and columns of a crop.
    spatial_scale : float
        Cells per pixel: 1 / stride.
    sampling_ratio : int
        0 means: ceil(bin height) rows of ceil(bin width) samples, which may be none; a bin without samples is 0.
    aligned : bool
        If not, a scaled RoI is made at least 1 cell wide and 1 cell high (x2 = x1 + 1).

    Returns
    -------
    array (R, rows, columns, C)

    Notes
    -----
    A sample reads the map if -1 <= y <= H and -1 <= x <= W, where beyond the middle of the border cells these count;
    any other sample is 0 (and still counts in the average).

    Examples
    --------
    >>> features = np.arange(25.0).reshape(1, 5, 5, 1)
    >>> roi_align(features, np.array([[0.0, 1, 1, 3, 3]]), (2, 2), 1.0, 2, True)[0, :, :, 0]  # at 1 and 2
    array([[ 6.,  7.],
           [11., 12.]])
    """
    raise NotImplementedError


def roi_align_gradient(gradient, features_shape, rois, spatial_scale=1.0, sampling_ratio=2, aligned=True):
    """The backward pass of `roi_align`: from the gradient of the crops to the gradient of the map.

    A number of a crop is a weighted sum of cells. Each of these cells gets the number's gradient times its weight, and
    a cell that is read several times, by samples, bins or RoIs, gets the sum. The values of the map do not matter.

    Parameters
    ----------
    gradient : array (R, rows, columns, C)
        Of each number of the crops.
    features_shape : (N, H, W, C)
        Four ints.
    rois : array (R, 5)
        Number of the picture, x1, y1, x2, y2 in pixels. R may be 0.
    spatial_scale, sampling_ratio, aligned
        As in `roi_align`, and so are the samples: bins are averages, samples beyond the middle of the border cells read
        these, and samples more than a cell outside of the map read nothing.

    Returns
    -------
    array (N, H, W, C)

    Examples
    --------
    >>> gradient = np.full((1, 1, 1, 1), 16.0)
    >>> rois = np.array([[0.0, 0, 0, 1.5, 2]])  # aligned, its middle lies at x = 0.25, y = 0.5
    >>> roi_align_gradient(gradient, (1, 3, 3, 1), rois, 1.0, 1, True)[0, :, :, 0]
    array([[6., 2., 0.],
           [6., 2., 0.],
           [0., 0., 0.]])
    """
    raise NotImplementedError


def roi_pool(features, rois, output_size, spatial_scale=1.0):
    """RoI pooling as in Caffe and torchvision (Girshick 2015, section 2.1): whole cells, and the largest of each bin.

    1. Scale the four coordinates and round them to whole numbers, halves away from zero (2.5 to 3, -2.5 to -3).
    2. Both corners count: height = y2 - y1 + 1 cells, width = x2 - x1 + 1, each at least 1.
    3. Row p of the bins has the cells from y1 + floor(p * height / rows) up to but without
       y1 + ceil((p + 1) * height / rows); columns likewise. Bins may share cells.
    4. Each bin takes the largest of its cells. Cells outside of the map do not exist; a bin without cells is 0.

    Parameters
    ----------
    features : array (N, H, W, C)
    rois : array (R, 5)
        Number of the picture, x1, y1, x2, y2 in pixels.
    output_size : (int, int)
    spatial_scale : float

    Returns
    -------
    array (R, rows, columns, C)

    Examples
    --------
    >>> features = np.arange(25.0).reshape(1, 5, 5, 1)
    >>> roi_pool(features, np.array([[0.0, 1, 1, 3, 3]]), (2, 2), 1.0)[0, :, :, 0]  # rows 1, 2 and 2, 3
    array([[12., 13.],
           [17., 18.]])
    """
    raise NotImplementedError


# -------------------------------------------------------------------------------------------------------------- boxes


def box_iou(a, b):
    """Intersection over union of every pair of boxes.

    Parameters
    ----------
    a : array (P, 4)
    b : array (Q, 4)

    Returns
    -------
    array (P, Q)
        The area that both share over the area of both together, from 0 to 1; 0 where the union has no area.

    Examples
    --------
    >>> box_iou(np.array([[0.0, 0, 10, 10]]), np.array([[0.0, 0, 10, 5], [20, 20, 30, 30]]))
    array([[0.5, 0. ]])
    """
    raise NotImplementedError


def nms(boxes, scores, iou_threshold):
    """Non-maximum suppression: take the best box that is left, send away all that overlap it too much, and so on.

    Parameters
    ----------
    boxes : array (P, 4)
    scores : array (P,)
        Of equal scores the lower index comes first.
    iou_threshold : float
        A box goes if it overlaps a box that is *kept* by more than this; exactly this much may stay.

    Returns
    -------
    array (K,) of integers
        The indices of the boxes that are kept, the best first.

    Examples
    --------
    >>> boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 5]])
    >>> nms(boxes, np.array([0.9, 0.9, 0.8]), 0.5)
    array([0, 2])
    """
    raise NotImplementedError


def encode_boxes(boxes, proposals, weights=(1.0, 1.0, 1.0, 1.0)):
    """What the network learns to say about a proposal: how to move and stretch it to make it the box.

    Parameters
    ----------
    boxes, proposals : array (P, 4)
        Row by row; all at least a pixel wide and high.
    weights : four floats

    Returns
    -------
    array (P, 4)
        dx: from the proposal's center to the box's, in widths of the proposal; dy: in its heights; dw: the natural
        logarithm of the box's width over the proposal's; dh: of the heights; each *times* its weight.

    Examples
    --------
    >>> encode_boxes(np.array([[10.0, 20, 110, 220]]), np.array([[0.0, 0, 100, 200]]), (10.0, 10.0, 5.0, 5.0))
    array([[1., 1., 0., 0.]])
    """
    raise NotImplementedError


def decode_boxes(deltas, proposals, weights=(1.0, 1.0, 1.0, 1.0)):
    """The way back from `encode_boxes`.

    Parameters
    ----------
    deltas : array (P, 4)
        dx, dy, dw, dh, each of which is to be *divided* by its weight, first of all.
    proposals : array (P, 4)
    weights : four floats

    Returns
    -------
    array (P, 4)
        The boxes. dw and dh (divided by their weights) above log(1000 / 16) count as log(1000 / 16), so that what an
        untrained network says does not overflow.

    Examples
    --------
    >>> decode_boxes(np.array([[1.0, 1, 0, 0]]), np.array([[0.0, 0, 100, 200]]), (10.0, 10.0, 5.0, 5.0))
    array([[ 10.,  20., 110., 220.]])
    """
    raise NotImplementedError


# ------------------------------------------------------------------------------------------------ levels and anchors


def assign_levels(boxes):
    """Which level of the pyramid each box is cut from (Lin et al. 2017, equation 1).

    Parameters
    ----------
    boxes : array (R, 4)
        In pixels.

    Returns
    -------
    array (R,) of integers
        floor(4 + log2(sqrt(width x height) / 224) + 1e-6), but at least 2 and at most 5; 2 for a box of no area. The
        1e-6 is torchvision's: a side of 223.9999 is 224 but for rounding.

    Examples
    --------
    >>> assign_levels(np.array([[0.0, 0, 224, 224], [0, 0, 111, 111], [0, 0, 896, 896]]))
    array([4, 2, 5])
    """
    raise NotImplementedError


def make_anchors(size, ratios, level_size, image_size):
    """The anchors of one level of the pyramid (Ren et al. 2015, section 3.1.1), as the published weights want them.

    Parameters
    ----------
    size : float
        Side of the square anchor, in pixels.
    ratios : A floats
        Height over width. Every anchor has the area size x size (before it is rounded).
    level_size : (int, int)
        Rows and columns of the level's map.
    image_size : (int, int)
        Height and width of the picture in pixels; strides are image_size // level_size, on each axis its own.

    Returns
    -------
    array (rows * columns * A, 4)
        By row, in it by column, in it by ratio. Corners -width / 2, -height / 2, width / 2, height / 2, rounded to
        whole pixels (halves to the even one, as np.round does: 22.5 to 22), plus the cell's upper left corner: (0, 0)
        for the first, (stride, 0) for the second of the row.

    Examples
    --------
    >>> make_anchors(32, (0.5, 1.0, 2.0), (1, 1), (32, 32))
    array([[-23., -11.,  23.,  11.],
           [-16., -16.,  16.,  16.],
           [-11., -23.,  11.,  23.]])
    """
    raise NotImplementedError


# -------------------------------------------------------------------------------------------------- network and loss


def conv2d(x, weight, bias=None, stride=1, padding=0):
    """Convolution: at each place, the kernel is laid over the map, and products are summed. The kernel is not flipped.

    Parameters
    ----------
    x : array (N, H, W, Cin)
    weight : array (KH, KW, Cin, Cout)
        ``weight[i, j]`` meets ``x[n, row * stride + i, column * stride + j]`` of the padded map.
    bias : array (Cout,) or None
    stride : int
    padding : int
        Rows and columns of zeros on each side.

    Returns
    -------
    array (N, (H + 2 * padding - KH) // stride + 1, (W + 2 * padding - KW) // stride + 1, Cout)

    Examples
    --------
    >>> x = np.arange(9.0).reshape(1, 3, 3, 1)
    >>> conv2d(x, np.ones((2, 2, 1, 1)), np.array([100.0]))[0, :, :, 0]
    array([[108., 112.],
           [120., 124.]])
    """
    raise NotImplementedError


def mask_loss(logits, targets, labels):
    """How far the predicted masks are from the true ones (He et al. 2017, section 3).

    Parameters
    ----------
    logits : array (R, M, M, K)
        One mask for each class; channel 0 is the background's, and nothing is ever asked of it.
    targets : array (R, M, M)
        From 0 to 1.
    labels : array (R,) of integers, 1 to K - 1
        The class of each RoI: only its mask, channel ``labels[r]``, counts.

    Returns
    -------
    float
        The mean over RoIs and pixels of -t log(s) - (1 - t) log(1 - s), where s = sigmoid(logit); finite for logits
        of +-1000, too. Without RoIs it is 0.

    Examples
    --------
    >>> float(round(mask_loss(np.zeros((1, 2, 2, 3)), np.ones((1, 2, 2)), np.array([1])), 6))  # ln 2
    0.693147
    """
    raise NotImplementedError


def paste_masks(masks, boxes, image_size):
    """Stretch each mask over its box in the picture (He et al. 2017, section 3.1, with torchvision's rules of pixels).

    1. Surround the mask with a row and a column of zeros on each side: M + 2 cells.
    2. Widen the box by as much, a cell of the mask on each side: (x2 - x1) / M to the left and to the right,
       (y2 - y1) / M above and below.
    3. Cut the four corners to whole numbers, toward zero, as ``int()`` does. Both ends count: bottom - top + 1 rows and
       right - left + 1 columns of pixels, each at least 1.
    4. Pixel i of n reads the padded mask at (i + 0.5) * (M + 2) / n - 0.5, in rows and in columns, as `bilinear` does.
    5. Pixels that lie in the picture are kept.

    Parameters
    ----------
    masks : array (N, M, M)
        Probabilities, rows first. N may be 0.
    boxes : array (N, 4)
        x1, y1, x2, y2 in pixels. They may reach out of the picture, or have no area.
    image_size : (int, int)
        Height and width of the picture.

    Returns
    -------
    array (N, height, width)
        Probabilities, a picture for each mask; 0 where the padded mask does not reach.

    Examples
    --------
    >>> masks = np.array([[[1.0, 0.5], [0.25, 0.0]]])
    >>> paste_masks(masks, np.array([[0.75, 0.75, 2.25, 2.25]]), (4, 5))  # widened: from 0 to 3, four pixels
    array([[[0.  , 0.  , 0.  , 0.  , 0.  ],
            [0.  , 1.  , 0.5 , 0.  , 0.  ],
            [0.  , 0.25, 0.  , 0.  , 0.  ],
            [0.  , 0.  , 0.  , 0.  , 0.  ]]])
    """
    raise NotImplementedError
