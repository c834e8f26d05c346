"""The figure of lesson 7: Mask R-CNN from a picture to masks, with the shape of what every part gives.

The numbers are those of the published model and a picture of 800 x 1088 pixels; lessons 7 and 12 assert them.
"""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgb
from style import BLUE, COLORS, GRAY, ORANGE, draw_arrow, draw_box, plt

BANDS = (  # top, bottom, color, and what stands where
    (-1.5, 1.75, BLUE, "Stage one proposes:\nwhere may there be an object?", 15.2, 0),
    (1.95, 8.6, ORANGE, "Stage two looks at each:\nwhat is it, and which pixels are it?", 21.9, 3.4),
)
PARTS = (  # name, x, y, color, what comes out
    ("backbone", 3.2, 0, GRAY, "C2 to C5"),
    ("RPN", 9.4, 0, BLUE, "217,413 logits\nand 4 deltas each"),
    ("RoIAlign", 12.9, 3.4, ORANGE, "1000 x 7 x 7 x 256"),
    ("box head", 16.4, 3.4, ORANGE, "1000 x 91 class logits\n1000 x 91 x 4 deltas"),
    ("RoIAlign", 19.9, 6.8, ORANGE, "100 x 14 x 14 x 256"),
    ("mask head", 23.4, 6.8, ORANGE, "100 x 28 x 28 x 91"),
)
VIEWS = (  # x, y, what is seen, boxes of each object, how far they are off in pixels
    (0, 0, "picture\n800 x 1088 x 3", 0, 0),
    (12.9, 0, "proposals\n1000 x 4", 4, 5),
    (19.9, 3.4, "detections, at most 100:\nbox, class, score", 1, 0),
    (26.9, 6.8, "masks, at most 100\nof 800 x 1088 pixels", 1, 0),
)
ARROWS = (  # from x, y to x, y, and what stands over it
    (1.4, 0, 2.1, 0, ""), (4.3, 0, 4.95, 0, ""), (7.65, 0, 8.3, 0, ""), (10.5, 0, 11.5, 0, "NMS"),
    (12.9, 1.9, 12.9, 2.9, ""), (7.65, 3.4, 11.8, 3.4, "cut out of P2 to P5"), (14, 3.4, 15.3, 3.4, ""),
    (17.5, 3.4, 18.5, 3.4, "NMS"), (19.9, 5.3, 19.9, 6.3, ""),
    (7.65, 6.8, 18.8, 6.8, "cut out of P2 to P5 once more"), (21, 6.8, 22.3, 6.8, ""), (24.5, 6.8, 25.5, 6.8, ""),
)  # fmt: skip
WIDTH, ROWS = (
    2.6,
    94,
)  # of a small picture: units of the figure; rows that are shown, so that it is as wide as 800 x 1088


def draw_two_stages(picture, target, sizes):
    """The figure; picture (128, 128, 3) and target are for the small pictures, sizes the cells of P2 to P6."""
    figure, axes = plt.subplots(figsize=(14, 5.6))
    for top, bottom, color, text, x, y in BANDS:
        axes.fill_between([8, 28.7], top, bottom, color=color, alpha=0.1, linewidth=0, zorder=-1)
        axes.text(x, y, text, va="center", fontsize=11, style="italic")
    for name, x, y, color, shape in PARTS:
        draw_box(axes, (x - 1.1, y - 0.5, x + 1.1, y + 0.5), color)
        axes.text(x, y, name, ha="center", va="center", weight="bold")
        axes.text(x, y + 0.65, shape, ha="center", va="top", fontsize=9)
    draw_box(axes, (4.95, -1.4, 7.65, 8.4), GRAY)
    axes.text(6.3, -0.85, "pyramid", ha="center", va="center", weight="bold")
    for number, (rows, columns) in enumerate(sizes):
        text = f"P{number + 2}{' (RPN only)' * (number == 4)}\n{rows} x {columns} x 256"
        axes.text(6.3, 0.7 + 1.75 * number, text, ha="center", va="center", fontsize=9)
    scale, generator = WIDTH / picture.shape[1], np.random.default_rng(2)
    for x, y, text, boxes, off in VIEWS:
        left, top = x - WIDTH / 2, y - ROWS * scale / 2
        view = 0.5 + 0.5 * picture[:ROWS] / 255  # paler, so that boxes stand out
        for box, mask, color in zip(target.boxes, target.masks[:, :ROWS], COLORS, strict=False):
            if text.startswith("masks"):
                view[mask > 0] = to_rgb(color)
            for shift in generator.normal(0, off, (boxes, 4)):
                moved = np.clip(box + shift, 0, [picture.shape[1], ROWS] * 2)
                draw_box(axes, moved * scale + [left, top, left, top], color, width=1)
        axes.imshow(view, extent=(left, left + WIDTH, top + ROWS * scale, top))
        axes.text(x, y + 1.05, text, ha="center", va="top", fontsize=9)
    for x1, y1, x2, y2, text in ARROWS:
        draw_arrow(axes, (y1, x1), (y2, x2))
        axes.text((x1 + x2) / 2, y1 - 0.15, text, ha="center", fontsize=9)
    axes.set(xlim=(-1.5, 28.7), ylim=(8.7, -1.6), title="Mask R-CNN: two stages that read the same pyramid")
    axes.set_aspect("auto")
    axes.set_axis_off()
    return figure
