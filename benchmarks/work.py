"""What is timed: every operation with the shapes that real use gives it, and the numbers that go in.

A picture of 800x1088 pixels (800x1066, padded) gives ResNet-50 maps of 200x272 (C2, P2), 100x136, 50x68 and 25x34
cells. The same seed makes the same numbers for every contestant.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

# Contestants do a kind of work in a function of the same name, but for these, which share one.
BUILDERS = {"roi_align": "cut", "roi_pool": "cut", "adamw": "optimizer", "sgd": "optimizer"}
PICTURE, RESIZED = (800, 1088), (800, 1066)
C2, C3, C4, C5 = (200, 272), (100, 136), (50, 68), (25, 34)


@dataclass(frozen=True)
class Work:
    """One thing to time.

    Attributes
    ----------
    name : str
    kind : str
        What the contestants look up: ``"conv"``, ``"roi_align"``, ...
    size : dict
        The numbers that make the shapes.
    backward : bool
        Time the gradients alone, the forward pass being done.
    both : bool
        Time forward and backward together, as a training does.
    curve : (str, number) or None
        The growth curve this is a point of, and where on its axis.
    """

    name: str
    kind: str
    size: dict = field(hash=False)
    backward: bool = False
    both: bool = False
    curve: tuple | None = None

    @property
    def operations(self) -> float:
        """Multiplications and additions by the definition, whatever algorithm is used; 0 where nobody counts them."""
        return OPERATIONS[self.kind](**self.size) * (3 if self.both else 1)

    @property
    def bytes(self) -> float:
        """The least that has to go through memory: what comes in is read once, what goes out is written once.

        A forward and a backward pass together are counted as two and a half forward passes, which is not too much.
        """
        whole_map = C2[0] * C2[1] * self.size["channels"] if self.backward and self.kind.startswith("roi") else 0
        return 4.0 * (TRAFFIC[self.kind](**self.size) * (2.5 if self.both else 1) + whole_map)


def _conv_output(height, width, kernel, stride):
    padding = kernel // 2
    return (height + 2 * padding - kernel) // stride + 1, (width + 2 * padding - kernel) // stride + 1


def _conv_operations(batch, height, width, inner, outer, kernel, stride, groups):
    out_height, out_width = _conv_output(height, width, kernel, stride)
    return 2.0 * batch * out_height * out_width * outer * kernel * kernel * inner / groups


def _conv_traffic(batch, height, width, inner, outer, kernel, stride, groups):
    out_height, out_width = _conv_output(height, width, kernel, stride)
    cells = height * width if kernel >= stride else out_height * out_width  # those that are read
    return batch * (cells * inner + out_height * out_width * outer) + kernel**2 * inner * outer / groups


OPERATIONS = {
    "conv": _conv_operations,
    "conv_transpose": lambda batch, height, width, inner, outer: 2.0 * batch * height * width * 4 * inner * outer,
    "linear": lambda rows, inner, outer: 2.0 * rows * inner * outer,
    # four corners of 2x2 samples, and their mean
    "roi_align": lambda rois, side, channels, clustered: 2.0 * 16 * rois * side * side * channels,
}
TRAFFIC = {
    "conv": _conv_traffic,
    "conv_transpose": lambda batch, height, width, inner, outer: (
        batch * height * width * (inner + 4 * outer) + 4 * inner * outer
    ),
    "linear": lambda rows, inner, outer: rows * (inner + outer) + inner * outer,
    "roi_align": lambda rois, side, channels, clustered: rois * side * side * channels,  # RoIs may share all they read
    "roi_pool": lambda rois, side, channels, clustered: rois * side * side * channels,
    "max_pool": lambda height, width, channels: 1.25 * height * width * channels,
    "upsample": lambda height, width, channels: 5 * height * width * channels,
    "resize": lambda height, width, channels: (height * width + RESIZED[0] * RESIZED[1]) * channels,
    "group_norm": lambda batch, height, width, channels: 2 * batch * height * width * channels,
    "relu": lambda height, width, channels: 3 * height * width * channels,
    "box_iou": lambda first, second: first * second + 4 * (first + second),
    "paste_masks": lambda masks, soft: masks * (PICTURE[0] * PICTURE[1] / (1 if soft else 4) + 28 * 28),
    "crop_masks": lambda masks, rois: masks * PICTURE[0] * PICTURE[1] / 4 + rois * 28 * 28,
    "adamw": lambda parameters: 7 * parameters,
    "sgd": lambda parameters: 5 * parameters,
    "clip": lambda parameters: 2 * parameters,
}
for _kind in ("nms", "inference", "training_step", "demo_step"):
    TRAFFIC[_kind] = lambda **size: 0.0
for _kind in TRAFFIC:
    OPERATIONS.setdefault(_kind, lambda **size: 0.0)


def conv(map_size, inner, outer, kernel=3, stride=1, groups=1, batch=1, curve=None, **passes) -> Work:
    height, width = map_size
    size = dict(
        batch=batch, height=height, width=width, inner=inner, outer=outer, kernel=kernel, stride=stride, groups=groups
    )
    channels = f"{inner}" if inner == outer else f"{inner} to {outer}"
    name = f"conv {kernel}x{kernel} {channels} at {height}x{width}"
    name += f" stride {stride}" * (stride > 1) + f" groups {groups}" * (groups > 1) + f" batch {batch}" * (batch > 1)
    name += " forward and backward" * passes.get("both", False)
    return Work(name, "conv", size, curve=curve, **passes)


def cut(kind, rois, side, clustered=True, channels=256, curve=None, **passes) -> Work:
    where = "clustered" if clustered else "spread"
    name = f"{kind} {rois} x {side}x{side} x {channels} {where}" + " backward" * passes.get("backward", False)
    size = dict(rois=rois, side=side, channels=channels, clustered=clustered)
    return Work(name, kind, size, curve=curve, **passes)


def boxes(kind, count, curve=None) -> Work:
    return Work(f"nms {count} clustered boxes", kind, dict(count=count), curve=curve)


WORK = (
    # ResNet-50-FPN's convolutions
    conv(PICTURE, 3, 64, kernel=7, stride=2),
    conv(C2, 64, 64),
    conv(C3, 128, 128),
    conv(C4, 256, 256),
    conv(C5, 512, 512),
    conv(C2, 256, 256),  # pyramid and RPN
    conv(C2, 256, 256, both=True),
    conv(C2, 64, 256, kernel=1),
    conv(C2, 256, 64, kernel=1),
    conv(C4, 1024, 256, kernel=1),
    conv(C5, 512, 2048, kernel=1),
    conv(C2, 128, 128, stride=2),
    conv(C3, 512, 1024, kernel=1, stride=2),
    conv(C3, 256, 256, groups=32),  # ResNeXt
    conv((14, 14), 256, 256, batch=100),  # the mask head
    Work("conv transpose 256 on 100 crops of 14x14", "conv_transpose",
         dict(batch=100, height=14, width=14, inner=256, outer=256)),
    Work("linear 12544 to 1024 on 1000 crops", "linear", dict(rows=1000, inner=12544, outer=1024)),
    # cutting
    cut("roi_align", 1000, 7),
    cut("roi_align", 1000, 7, backward=True),
    cut("roi_align", 1000, 7, clustered=False),
    cut("roi_align", 1000, 7, clustered=False, backward=True),
    cut("roi_align", 100, 14),
    cut("roi_align", 100, 14, backward=True),
    cut("roi_align", 100, 14, clustered=False),
    cut("roi_align", 100, 14, clustered=False, backward=True),
    cut("roi_pool", 1000, 7),
    cut("roi_pool", 1000, 7, backward=True),
    cut("roi_pool", 1000, 7, clustered=False),
    cut("roi_pool", 1000, 7, clustered=False, backward=True),
    # boxes and masks
    *(boxes("nms", count) for count in (1000, 5000, 20000)),
    Work("box_iou 20 x 73000", "box_iou", dict(first=20, second=73000)),
    Work("paste_masks 100 to bool at 800x1088", "paste_masks", dict(masks=100, soft=False)),
    Work("paste_masks 20 soft at 800x1088", "paste_masks", dict(masks=20, soft=True)),
    Work("crop_masks 128 RoIs of 20 masks at 800x1088", "crop_masks", dict(masks=20, rois=128)),
    # the other layers
    Work("max_pool 3x3 stride 2, 64 at 400x544", "max_pool", dict(height=400, width=544, channels=64)),
    Work("max_pool 3x3 stride 2, 64 at 400x544 backward", "max_pool", dict(height=400, width=544, channels=64),
         backward=True),
    Work("upsample 2x, 256 from 100x136", "upsample", dict(height=100, width=136, channels=256)),
    Work("upsample 2x, 256 from 100x136 backward", "upsample", dict(height=100, width=136, channels=256),
         backward=True),
    Work("resize_bilinear 3 from 600x800 to 800x1066", "resize", dict(height=600, width=800, channels=3)),
    Work("group_norm 32 groups, 64 at 4x32x32", "group_norm", dict(batch=4, height=32, width=32, channels=64)),
    Work("group_norm 32 groups, 64 at 4x32x32 forward and backward", "group_norm",
         dict(batch=4, height=32, width=32, channels=64), both=True),
    Work("relu 256 at 200x272 backward", "relu", dict(height=200, width=272, channels=256), backward=True),
    Work("adamw on 12 million parameters", "adamw", dict(parameters=12_000_000)),
    Work("sgd on 44 million parameters", "sgd", dict(parameters=44_000_000)),
    Work("clip 44 million gradients", "clip", dict(parameters=44_000_000)),
    # the whole
    Work("inference R-50-FPN 800x1088, 100 detections", "inference", dict(threshold=0.0)),
    Work("inference R-50-FPN 800x1088, few detections", "inference", dict(threshold=0.05)),
    Work("training step R-50-FPN 480x640, 5 objects", "training_step", dict(objects=5)),
    Work("demo step, batch 4 of 128x128", "demo_step", dict(batch=4)),
)  # fmt: skip

GROWTH = (
    *(conv(C4, c, c, curve=("conv 3x3 at 50x68: channels", c)) for c in (2, 16, 32, 64, 128, 256, 512)),
    *(conv(s, 128, 128, curve=("conv 3x3 128 channels: cells", s[0] * s[1])) for s in ((7, 9), C5, C4, C3, C2)),
    *(cut("roi_align", r, 7, curve=("roi_align 7x7 x 256: RoIs", r)) for r in (1, 10, 100, 300, 1000, 3000)),
    *(cut("roi_align", 300, 7, channels=c, curve=("roi_align 300 RoIs: channels", c)) for c in (2, 16, 64, 256)),
    *(boxes("nms", b, curve=("nms: boxes", b)) for b in (10, 100, 1000, 5000, 20000)),
)


def make_inputs(work: Work) -> dict[str, np.ndarray]:
    """The arrays that go in, channels last; the same for everybody."""
    rng, size = np.random.default_rng(0), work.size
    normal = lambda *shape: rng.standard_normal(shape, dtype=np.float32)  # noqa: E731
    if work.kind == "conv":
        kernel, inner = size["kernel"], size["inner"] // size["groups"]
        return dict(
            x=normal(size["batch"], size["height"], size["width"], size["inner"]),
            weight=normal(kernel, kernel, inner, size["outer"]) / np.float32(np.sqrt(kernel * kernel * inner)),
            bias=normal(size["outer"]),
        )
    if work.kind == "conv_transpose":
        shape = size["batch"], size["height"], size["width"], size["inner"]
        return dict(x=normal(*shape), weight=normal(2, 2, size["inner"], size["outer"]) / np.float32(16))
    if work.kind == "linear":
        return dict(x=normal(size["rows"], size["inner"]), weight=normal(size["inner"], size["outer"]) / np.float32(99))
    if work.kind in ("roi_align", "roi_pool"):
        found = make_boxes(rng, size["rois"], clustered=size["clustered"])
        return dict(
            x=normal(1, *C2, size["channels"]),
            rois=np.concatenate([np.zeros((len(found), 1), np.float32), found], axis=1),
            gradient=normal(size["rois"], size["side"], size["side"], size["channels"]),
        )
    if work.kind == "nms":
        return dict(boxes=make_boxes(rng, size["count"]), scores=rng.random(size["count"], dtype=np.float32))
    if work.kind == "box_iou":
        return dict(a=make_boxes(rng, size["first"]), b=make_boxes(rng, size["second"], clustered=False))
    if work.kind == "paste_masks":
        return dict(masks=rng.random((size["masks"], 28, 28), dtype=np.float32), boxes=make_boxes(rng, size["masks"]))
    if work.kind == "crop_masks":
        found = make_boxes(rng, size["rois"])
        masks = (rng.random((size["masks"], *PICTURE), dtype=np.float32) < 0.5).astype(np.uint8)
        return dict(masks=masks, rois=found, matched=rng.integers(0, size["masks"], size["rois"]))
    if work.kind in ("adamw", "sgd", "clip"):
        shape = size["parameters"] // 2, 2  # a vector would be spared the weight decay
        return dict(parameter=normal(*shape), gradient=normal(*shape))
    if work.kind in ("inference", "training_step", "demo_step"):
        return {}  # pictures and weights are made with the models
    shape = size.get("batch", 1), size["height"], size["width"], size["channels"]
    return dict(x=normal(*shape), scale=normal(shape[-1]), shift=normal(shape[-1]))


def make_boxes(rng, count: int, clustered: bool = True) -> np.ndarray:
    """Boxes (count, 4) inside the picture: 20 objects with their many proposals, or all over the place."""
    height, width = PICTURE
    spread = [rng.uniform(16, width - 16, count), rng.uniform(16, height - 16, count)]
    sides = np.exp(rng.uniform(np.log(24), np.log(320), (count, 2)))
    if clustered:
        objects = rng.integers(0, 20, count)
        centers = rng.uniform(0.15, 0.85, (20, 2)) * (width, height)
        shapes = np.exp(rng.uniform(np.log(48), np.log(256), (20, 2)))
        spread = (centers[objects] + rng.normal(0, 12, (count, 2))).T
        sides = shapes[objects] * rng.uniform(0.7, 1.4, (count, 2))
    x, y = spread
    found = np.stack([x - sides[:, 0] / 2, y - sides[:, 1] / 2, x + sides[:, 0] / 2, y + sides[:, 1] / 2], axis=1)
    return np.clip(found, 0, (width, height, width, height)).astype(np.float32)
