"""The categories of COCO, by the numbers that its annotations and the published models have for them.

The 80 categories are numbered up to 90, since eleven that were planned were never annotated; models have a label for
those, too, which they never give. So label and category id are the same number.

Source: Lin et al. 2014, Microsoft COCO; the names as torchvision's weights list them.
"""

from __future__ import annotations

BACKGROUND, UNUSED = "__background__", "N/A"

# fmt: off
COCO_NAMES = (
    BACKGROUND, "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", UNUSED, "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse",
    "sheep", "cow", "elephant", "bear", "zebra", "giraffe", UNUSED, "backpack", "umbrella", UNUSED, UNUSED, "handbag",
    "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove",
    "skateboard", "surfboard", "tennis racket", "bottle", UNUSED, "wine glass", "cup", "fork", "knife", "spoon",
    "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake",
    "chair", "couch", "potted plant", "bed", UNUSED, "dining table", UNUSED, UNUSED, "toilet", UNUSED, "tv", "laptop",
    "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", UNUSED,
    "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # 91, the label is the place in the list
# fmt: on
COCO_CATEGORY_IDS = (None, *range(1, len(COCO_NAMES)))
