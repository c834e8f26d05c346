"""How well anchors cover objects: the short way to the best anchor against all anchors, and what is chosen from it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimrcnn import recipes
from minimrcnn.config import Config
from minimrcnn.errors import DataError
from minimrcnn.geometry import box_iou, make_anchors
from minimrcnn.models.coverage import best_ious, covers_badly, describe_coverage
from minimrcnn.models.presets import choose_min_size, object_sizes
from minimrcnn.recipes import (
    COUNTED,
    LEARNT,
    Earlier,
    explain_fit,
    find_earlier,
    fit_small,
    given_anchors,
    judge_crops,
    kept_fields,
    make_published,
    make_recipe,
    make_small,
)
from minimrcnn.training.options import TrainOptions

LEVELS = {"fpn": (4, 8, 16, 32, 64), "c4": (16,), "c5": (32,)}


def annotate(height, width, boxes):
    """One picture and its objects, ``x, y, width, height``."""
    rows = [{"image_id": 1, "bbox": list(box), "iscrowd": 0} for box in boxes]
    crowd = {"image_id": 1, "bbox": [0, 0, width, height], "iscrowd": 1}
    return {"images": [{"id": 1, "height": height, "width": width}], "annotations": [crowd, *rows]}


def search_all(boxes, size, config):
    """The best IoU of boxes with any anchor of a padded picture, looked for among all of them."""
    padded = [-(-side // config.size_divisible) * config.size_divisible for side in size]
    strides = LEVELS[config.pyramid]
    cells = [tuple(-(-side // stride) for side in padded) for stride in strides]
    if len(strides) > 1:
        anchors = make_anchors(config.anchor_sizes, config.aspect_ratios, cells, padded)
    else:
        anchors = [make_anchors([one], config.aspect_ratios, cells, padded)[0] for one in config.anchor_sizes]
    return box_iou(np.float32(boxes), np.concatenate(anchors)).max(axis=1)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(sorted(LEVELS)), st.integers(20, 150), st.integers(20, 150))
def test_the_best_anchor_is_the_best_of_all(data, pyramid, height, width):
    boxes = []
    for _ in range(data.draw(st.integers(1, 6))):
        x, y = data.draw(st.floats(0, width - 1)), data.draw(st.floats(0, height - 1))
        boxes.append((x, y, data.draw(st.floats(0.5, width - x)), data.draw(st.floats(0.5, height - y))))
    config = Config(min_size=None, pyramid=pyramid, anchor_sizes=(6, 17, 32, 64, 120), aspect_ratios=(0.4, 1.0, 2.0))
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes])
    wanted = search_all(corners, (height, width), config)
    np.testing.assert_allclose(best_ious(annotate(height, width, boxes), config), wanted, atol=2e-6)


def test_objects_are_measured_in_resized_pixels():
    annotations = annotate(300, 600, [(30, 60, 96, 96), (300, 60, 48, 192)])
    config = Config(min_size=100, max_size=1000, anchor_sizes=(16, 32, 64, 128, 256))
    wanted = search_all(np.array([[10, 20, 42, 52], [100, 20, 116, 84]]), (100, 200), config)
    np.testing.assert_allclose(best_ious(annotations, config), wanted, atol=1e-6)
    assert object_sizes(annotations, 100) == pytest.approx([16 * 5 / 3, 16 * 5 / 3])  # the longer side is bounded
    assert best_ious(annotate(9, 9, []), config).shape == (0,)


def test_nuclei_under_the_usual_anchors_are_noticed():
    """Objects of 16 pixels: sizes from 8 on cover them, those of COCO from 32 on do not."""
    annotations = annotate(256, 256, [(20 * k % 230, 37 * k % 230, 15 + k % 3, 16) for k in range(30)])
    small, usual = (Config(min_size=None, anchor_sizes=tuple(n * 2**k for k in range(5))) for n in (8, 32))
    assert not covers_badly(best_ious(annotations, small)) and covers_badly(best_ious(annotations, usual))
    assert describe_coverage(best_ious(annotations, usual)) == (
        "30 of 30 objects (100%) have a best IoU below 0.5 with them"
    )
    assert not covers_badly(np.zeros(0))
    assert [covers_badly(np.array(ious)) for ious in ([0.5], [0.4, 0.5, 0.5], [0.4, 0.4, 0.5])] == [False, False, True]


def test_large_photos_stay_large_enough_for_their_objects():
    assert choose_min_size(annotate(3000, 4000, [(0, 0, 400, 400)])) == 480
    assert choose_min_size(annotate(3000, 4000, [(0, 0, 80, 80)])) == 640
    assert choose_min_size(annotate(3000, 4000, [(0, 0, 9, 9)])) == 960
    assert choose_min_size(annotate(3000, 4000, [])) == 480
    assert choose_min_size(annotate(480, 640, [(0, 0, 9, 9)])) is None


def options(anchors=("auto",), size=None, architecture="small", init=None):
    return SimpleNamespace(
        anchors=list(anchors),
        size=size,
        architecture=architecture,
        backbone=None,
        init=init,
        seed=0,
        trainable_backbone_layers=None,
    )


def dataset(annotations):
    return SimpleNamespace(annotations=lambda: annotations, class_names=("background", "cell"), category_ids=(None, 1))


NUCLEI = annotate(256, 256, [(20 * k % 230, 37 * k % 230, 15 + k % 3, 16) for k in range(30)])


def test_what_was_chosen_is_explained():
    chosen = options()
    lines = explain_fit(chosen, dataset(NUCLEI), fit_small(chosen, dataset(NUCLEI)))
    assert len(lines) == 2
    assert lines[0].startswith("pictures keep their size") and lines[0].endswith("are then smaller than 16 x 16")
    assert lines[1].startswith(
        "anchors of 8, 16, 32, 64, 128 pixels, from half of the middle object's size on; 3 of 30 objects (10%)"
    )

    chosen = options(anchors=(32.0, 64.0, 128.0, 256.0, 512.0))
    lines = explain_fit(chosen, dataset(NUCLEI), fit_small(chosen, dataset(NUCLEI)))
    assert lines[1].startswith("anchors of 32, 64, 128, 256, 512 pixels, as given; 30 of 30 objects (100%)")
    assert lines[2].endswith("leave out --anchors: with 8, 16, 32, 64, 128 there are 3")

    thin = dataset(annotate(256, 256, [(5, 10 * k, 200, 6) for k in range(20)]))
    lines = explain_fit(options(), thin, fit_small(options(), thin))
    assert "long and thin" in lines[2]
    tiny = dataset(annotate(4000, 6000, [(5, 100 * k, 9, 9) for k in range(20)]))
    lines = explain_fit(options(), tiny, fit_small(options(), tiny))
    assert "resized to a shorter side of 960 pixels, as most have more than 720" in lines[0]
    assert "train at a larger --size, or cut the pictures into tiles" in lines[2]
    chosen = options(size=96)
    assert explain_fit(chosen, dataset(NUCLEI), fit_small(chosen, dataset(NUCLEI)))[0].startswith(
        "pictures are resized to a shorter side of 96 pixels; half of the objects"
    )
    empty = dataset(annotate(9, 9, []))
    assert len(explain_fit(options(), empty, fit_small(options(), empty))) == 1


def test_crops_that_cut_most_objects_are_noticed():
    """Of 20 objects two are as long as the crops, or four: a tenth is left alone; what fits into a crop is not cut."""
    few, many = (dataset(annotate(400, 500, [(5, 5, 30, 256)] * k + [(9, 9, 90, 128)] * (20 - k))) for k in (2, 4))
    own_size, recipe = Config(min_size=None), TrainOptions(crop=256)
    assert judge_crops(few, recipe, own_size) == judge_crops(many, TrainOptions(), own_size) == []
    assert judge_crops(dataset(annotate(256, 200, [(5, 5, 30, 240)])), recipe, own_size) == []
    assert judge_crops(dataset(annotate(400, 200, [(5, 5, 30, 240)])), recipe, own_size)  # one side is cut
    (line,) = judge_crops(many, recipe, own_size)
    assert "4 of 20 objects are longer than half of the crops of 256 pixels" in line and line.endswith("--crop 512")
    (line,) = judge_crops(dataset(annotate(400, 500, [(5, 5, 9, 9), (9, 9, 9, 129)])), recipe, own_size)
    assert line.endswith("--crop 258")
    (line,) = judge_crops(few, recipe, Config(min_size=800))
    assert "crops of 256 pixels are resized to a shorter side of 800" in line


@pytest.mark.parametrize("given", [(8.0, 16.0), ("auto", 8.0), (8.0,) * 6, ("auto", *[8.0] * 4)])
def test_anchors_are_five_or_auto(given):
    with pytest.raises(DataError, match="--anchors .*: wanted five sizes in pixels, as 8 16 32 64 128, or auto"):
        given_anchors(options(anchors=given))


def test_published_anchors_are_kept_where_they_fit(monkeypatch):
    made = []

    def make(seed, **fields):
        made.append(fields)
        return SimpleNamespace(config=Config(**fields))

    monkeypatch.setattr(recipes.models, "maskrcnn_resnet50_fpn", make, raising=False)
    published = options(architecture="maskrcnn_resnet50_fpn", init="coco.pth")
    config = make_published(published, dataset(NUCLEI)).config
    assert config.anchor_sizes == (32, 64, 128, 256, 512)  # pictures are enlarged to 800
    large = dataset(annotate(256, 256, [(4 * k, 5 * k, 100, 100) for k in range(30)]))
    config = make_published(published, large).config
    assert "512 pixels, as published; " in explain_fit(published, large, config)[1]
    tiny = dataset(annotate(3000, 4000, [(40 * k, 50 * k, 60, 60) for k in range(30)]))
    assert make_published(published, tiny).config.anchor_sizes == (8, 16, 32, 64, 128)
    given = options(architecture="maskrcnn_resnet50_fpn", anchors=(9.0, 18.0, 36.0, 72.0, 144.0))
    assert make_published(given, tiny).config.anchor_sizes == (9, 18, 36, 72, 144)


EARLIER = Earlier(
    "run/model.npz",
    Config(pyramid_channels=64, min_size=64, max_size=128, aspect_ratios=(0.5, 1.0, 3.0), box_detections_per_img=150),
    LEARNT,
)


def test_what_an_rpn_has_learned_is_kept():
    fitted = fit_small(options(), dataset(NUCLEI))
    kept = {"anchor_sizes": (32, 64, 128, 256, 512), "aspect_ratios": (0.5, 1.0, 3.0), "min_size": 64, "max_size": 128}
    assert kept_fields(options(), fitted, EARLIER) == kept
    given = options(anchors=(8.0, 16.0, 32.0, 64.0, 128.0), size=96)
    assert kept_fields(given, fitted, EARLIER) == {"aspect_ratios": (0.5, 1.0, 3.0)}
    assert kept_fields(options(), Config(), EARLIER) == {}  # 256 channels: that RPN begins anew
    resumed = kept_fields(options(), fitted, EARLIER._replace(kept=LEARNT + COUNTED))
    counted = {"box_detections_per_img": 150, "rpn_pre_nms_top_n_test": 1000, "rpn_post_nms_top_n_test": 1000}
    assert resumed == {**kept, **counted}

    lines = explain_fit(options(), dataset(NUCLEI), Config(**{"pyramid_channels": 64, **kept}), EARLIER)
    assert lines[0].startswith("pictures are resized to a shorter side of 64 pixels, as in run/model.npz; ")
    assert lines[1].startswith("anchors of 32, 64, 128, 256, 512 pixels, as in run/model.npz; 30 of 30 objects (100%)")
    assert "hardly be learned; with --anchors 4 8 16 32 64 there are 24, " in lines[2]


def test_a_published_architecture_of_ours_is_trained_on_as_it_was(monkeypatch):
    make = lambda seed, **fields: SimpleNamespace(config=Config(**fields))  # noqa: E731
    monkeypatch.setattr(recipes.models, "maskrcnn_resnet50_fpn", make, raising=False)
    tiny = dataset(annotate(3000, 4000, [(40 * k, 50 * k, 60, 60) for k in range(30)]))
    earlier = Earlier("run/model.npz", Config(norm="group", head_norm="group", min_size=640, max_size=1000), LEARNT)
    config = make_published(options(architecture="maskrcnn_resnet50_fpn", init="run/model.npz"), tiny, earlier).config
    assert (config.norm, config.head_norm, config.min_size, config.max_size) == ("group", "group", 640, 1000)
    assert config.anchor_sizes == (32, 64, 128, 256, 512)


def test_a_run_that_goes_on_keeps_more_than_one_that_begins_with_its_model(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "read_config", lambda path: Config())
    monkeypatch.setattr(recipes, "is_ours", lambda path: True)
    checkpoint, chosen = tmp_path / "checkpoint.npz", SimpleNamespace(resume=True, init="model.npz")
    assert find_earlier(chosen, checkpoint) == (Path("model.npz"), Config(), LEARNT)
    checkpoint.touch()
    assert find_earlier(chosen, checkpoint) == (checkpoint, Config(), LEARNT + COUNTED)
    chosen.resume = False
    assert find_earlier(chosen, checkpoint) == (Path("model.npz"), Config(), LEARNT)
    chosen.init = None
    assert find_earlier(chosen, checkpoint) is None


def test_no_advice_that_would_not_help():
    """Sizes that would be chosen anyway, given or kept, are not what is wrong."""
    thin = dataset(annotate(256, 256, [(5, 10 * k, 200, 6) for k in range(20)]))
    config = fit_small(options(), thin)
    same = Earlier("run/model.npz", config, LEARNT)
    for chosen, earlier in ((options(anchors=config.anchor_sizes), None), (options(), same)):
        assert "they are long and thin" in explain_fit(chosen, thin, config, earlier)[2]


def test_what_of_a_published_architecture_is_trained(monkeypatch):
    make = lambda seed, **fields: SimpleNamespace(config=Config(**fields))  # noqa: E731
    monkeypatch.setattr(recipes.models, "maskrcnn_resnet50_fpn", make, raising=False)
    layers = []
    for init, layers_given in (("coco.pth", None), (None, None), ("coco.pth", 0)):
        chosen = options(architecture="maskrcnn_resnet50_fpn", init=init, size=96)
        chosen.trainable_backbone_layers = layers_given
        config = make_published(chosen, dataset(NUCLEI)).config
        layers.append(config.trainable_backbone_layers)
        assert (config.norm == "group") == (init is None) and (config.min_size, config.max_size) == (96, 160)
    assert layers == [3, 5, 0]
    monkeypatch.setattr(recipes, "MaskRCNN", lambda config, seed: config)
    chosen = options()
    chosen.trainable_backbone_layers = 0
    assert make_small(chosen, dataset(NUCLEI)).trainable_backbone_layers == 0


def test_what_is_fitted_beside_size_and_anchors(monkeypatch):
    """Twice as many detections as a picture has objects, of the backbone that is asked for."""
    make = lambda seed, **fields: SimpleNamespace(config=Config(**fields))  # noqa: E731
    monkeypatch.setattr(recipes.models, "maskrcnn_resnet50_fpn", make, raising=False)
    crowded, chosen = dataset(annotate(256, 256, [(5, 5, 90, 90)] * 59)), options()  # and a crowd
    chosen.backbone = "resnet34"
    config = fit_small(chosen, crowded)
    assert (config.backbone, config.box_detections_per_img) == ("resnet34", 120)
    published = options(architecture="maskrcnn_resnet50_fpn")
    assert make_published(published, crowded).config.box_detections_per_img == 120


def recipe(min_size=None, **fields):
    """What ``train`` makes of its options, those that are not given being as the command has them."""
    left_open = ("flips", "lr", "weight_decay", "norm_weight_decay", "crop", "color")
    said = {"architecture": "small", "optimizer": "adamw", "batch": 4, "steps": 500, "schedule": "cosine", "seed": 3}
    return make_recipe(SimpleNamespace(**{**dict.fromkeys(left_open), **said, **fields}), Config(min_size=min_size))


def test_what_the_options_leave_open_depends_on_model_and_optimizer():
    small, large = recipe(), recipe(800, architecture="maskrcnn_resnet50_fpn", optimizer="sgd", steps=5000)
    assert (small.learning_rate, small.weight_decay, small.warmup_steps) == (5e-4, 0.01, 50)
    assert (large.learning_rate, large.weight_decay, large.warmup_steps) == (4 * 0.00125, 1e-4, 100)
    assert (small.crop, small.flip_horizontal, small.flip_vertical, small.color) == (recipes.CROP, 0.5, 0.5, True)
    assert (large.crop, large.flip_horizontal, large.flip_vertical, large.color) == (None, 0.5, 0.0, False)
    assert (small.steps, small.batch_size, small.seed) == (500, 4, 3)


def test_what_the_options_say_is_taken_even_if_it_is_nothing():
    said = recipe(800, lr=0.5, weight_decay=0.0, crop=128, color=False, flips="none", norm_weight_decay=0.0)
    assert (said.learning_rate, said.weight_decay, said.norm_weight_decay, said.crop) == (0.5, 0.0, 0.0, 128)
    assert (said.color, said.flip_horizontal, said.flip_vertical) == (False, 0.0, 0.0)
    assert recipe(color=True, architecture="maskrcnn_resnet50_fpn").color
