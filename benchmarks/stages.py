"""Where the time of the whole inference goes: the same stages of both networks, by a clock around their methods.

torchvision's conversion of the picture and its comparison of the pasted masks with 0.5 are outside of its methods and
stand under "rest"; ours are in "prepare" and "paste".
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable

from benchmarks.work import Work

STAGES = ("prepare", "ResNet-50", "pyramid", "RPN head", "proposals", "box RoIAlign", "box head", "box post-processing",
          "mask RoIAlign", "mask head", "paste", "rest")  # fmt: skip


class Stopwatch:
    """Milliseconds by stage; a stage inside another is taken off the outer one."""

    def __init__(self):
        self.times, self.inside = defaultdict(float), [0.0]

    def watch(self, owner, method: str, stage: str | Callable[..., str]) -> None:
        """Put the clock around ``owner.method``; ``stage`` names it, from the arguments if need be."""
        function = getattr(owner, method)

        def timed(*arguments, **options):
            self.inside.append(0.0)
            start = time.perf_counter()
            output = function(*arguments, **options)
            elapsed = 1000 * (time.perf_counter() - start)
            name = stage if isinstance(stage, str) else stage(*arguments, **options)
            self.times[name] += elapsed - self.inside.pop()
            self.inside[-1] += elapsed
            return output

        setattr(owner, method, timed)


def time_stages(role: str, work: Work, layout: str | None, repeats: int) -> dict[str, float]:
    """The median milliseconds of every stage of ``STAGES``, and ``"whole"``."""
    clock = Stopwatch()
    if role == "torch":
        from benchmarks import peer

        task = peer.inference(work, layout, watch=lambda model: watch_torchvision(clock, model))
    else:
        from benchmarks import ours

        task = ours.inference(work, "auto", watch=lambda model: watch_minimrcnn(clock, model))
    runs = []
    for _ in range(repeats + 1):
        clock.times.clear()
        seconds, _ = task.once()
        clock.times["whole"] = 1000 * seconds
        clock.times["rest"] = clock.times["whole"] - sum(clock.times[stage] for stage in STAGES if stage != "rest")
        runs.append(dict(clock.times))
    return {stage: statistics.median(run.get(stage, 0.0) for run in runs[1:]) for stage in (*STAGES, "whole")}


def watch_minimrcnn(clock: Stopwatch, model) -> None:
    from minimrcnn import geometry
    from minimrcnn.models import mask_rcnn

    size = model.config.box_pool_size
    clock.watch(mask_rcnn, "prepare", "prepare")
    clock.watch(model.backbone, "forward", "ResNet-50")
    clock.watch(model.pyramid, "forward", "pyramid")
    clock.watch(model.rpn, "forward", "RPN head")
    clock.watch(model.rpn, "anchors", "proposals")
    clock.watch(model.rpn, "propose", "proposals")
    clock.watch(model, "crop", lambda pyramid, boxes, side: "box RoIAlign" if side == size else "mask RoIAlign")
    clock.watch(model.box_head, "forward", "box head")
    clock.watch(model.box_head, "detect", "box post-processing")
    clock.watch(model.mask_head, "forward", "mask head")
    clock.watch(model.mask_head, "choose", "mask head")
    clock.watch(geometry, "paste_masks_bool", "paste")


def watch_torchvision(clock: Stopwatch, model) -> None:
    heads = model.roi_heads
    clock.watch(model.transform, "forward", "prepare")
    clock.watch(model.backbone.body, "forward", "ResNet-50")
    clock.watch(model.backbone.fpn, "forward", "pyramid")
    clock.watch(model.rpn.head, "forward", "RPN head")
    clock.watch(model.rpn, "forward", "proposals")
    clock.watch(heads.box_roi_pool, "forward", "box RoIAlign")
    clock.watch(heads.box_head, "forward", "box head")
    clock.watch(heads.box_predictor, "forward", "box head")
    clock.watch(heads, "postprocess_detections", "box post-processing")
    clock.watch(heads.mask_roi_pool, "forward", "mask RoIAlign")
    clock.watch(heads.mask_head, "forward", "mask head")
    clock.watch(heads.mask_predictor, "forward", "mask head")
    clock.watch(model.transform, "postprocess", "paste")
