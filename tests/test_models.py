"""The model's ways: every configuration learns, the empty cases train, files come back, mistakes are named."""

import dataclasses
import threading

import numpy as np
import pytest
from PIL import Image

from minimrcnn import Config, DataError, MaskRCNN, Target, no_grad, trace
from minimrcnn.archive import read_archive, write_archive
from minimrcnn.models import mask_rcnn
from minimrcnn.models.box_head import sample_rois
from minimrcnn.models.mask_rcnn import STRIDES
from minimrcnn.models.prepare import prepare, resized
from minimrcnn.models.rpn import top
from minimrcnn.structures import RoISamples
from minimrcnn.tensor import Tensor

SMALL = {
    "num_classes": 3, "backbone": "resnet18", "norm": "group", "pyramid_channels": 16, "min_size": None,
    "anchor_sizes": (8, 16, 32, 64, 128), "box_head_channels": 16, "mask_head_channels": (16,),
    "box_batch_size_per_image": 16, "rpn_batch_size_per_image": 32, "rpn_post_nms_top_n_train": 50,
    "rpn_post_nms_top_n_test": 50,
}  # fmt: skip
NAMES = ["loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"]


def draw_picture(height=64, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3)).astype(np.uint8)


def draw_target(height=64, width=64):
    masks = np.zeros((2, height, width), np.uint8)
    masks[0, 10:30, 12:40] = 1
    masks[1, 40:60, 5:25] = 1
    return Target(np.float32([[12, 10, 40, 30], [5, 40, 25, 60]]), np.array([1, 2]), masks)


def changed(**fields):
    return dataclasses.replace(draw_target(), **fields)


def nothing(height=64, width=64):
    return Target(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, height, width), np.uint8))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"norm": "batch"},
        {"norm": "frozen_batch", "backbone": "resnet34"},
        {"backbone": "resnet50"},
        {"roi_operation": "pool"},
        {"roi_sampling_ratio": 0, "roi_aligned": True},
        {"mask_loss": "agnostic"},
        {"mask_loss": "softmax"},
        {"mask_head": False},
        {"min_size": 48, "max_size": 56},
    ],
    ids=str,
)
def test_every_configuration_trains_and_predicts(fields):
    model = MaskRCNN(**{**SMALL, **fields})
    losses = model.losses([draw_picture(), draw_picture(50, 40, 1)], [draw_target(), nothing(50, 40)])
    assert list(losses) and set(losses) == set(NAMES if model.config.mask_head else NAMES[:2] + NAMES[3:])
    total = sum(losses.values())
    assert np.isfinite(total.item()) and total.item() > 0
    total.backward()
    for name, parameter in model.named_parameters().items():
        assert parameter.grad is not None and np.isfinite(parameter.grad).all(), name
    found = model.predict([draw_picture(), draw_picture(50, 40, 1)], score_thresh=0.0)
    for detections, (height, width) in zip(found, [(64, 64), (50, 40)], strict=True):
        count = len(detections)
        assert 0 < count <= 100
        assert detections.boxes.shape == (count, 4) and detections.boxes.dtype == np.float32
        assert (detections.boxes >= 0).all() and (detections.boxes <= [width, height] * 2).all()
        assert ((detections.labels >= 1) & (detections.labels <= 2)).all()
        assert (np.diff(detections.scores) <= 0).all() and detections.scores.max() <= 1
        if model.config.mask_head:
            assert detections.masks.shape == (count, height, width) and detections.masks.dtype == bool
        else:
            assert detections.masks is None


def test_nothing_to_find_still_trains():
    """No objects at all: the mask and box losses are 0 and connected, the others push toward background."""
    model = MaskRCNN(**SMALL)
    losses = model.losses([draw_picture(), draw_picture(seed=1)], [nothing(), nothing()])
    assert losses["loss_mask"].item() == losses["loss_box_reg"].item() == losses["loss_rpn_box_reg"].item() == 0
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_no_proposals_still_trains_and_predicts():
    model = MaskRCNN(**SMALL, rpn_pre_nms_top_n_train=0, rpn_pre_nms_top_n_test=0)
    losses = model.losses([draw_picture()], [nothing()])
    assert losses["loss_classifier"].item() == 0
    sum(losses.values()).backward()
    (found,) = model.predict([draw_picture()])
    assert len(found) == 0 and found.masks.shape == (0, 64, 64)


def test_one_picture_learns_by_heart():
    from minimrcnn.training.optimizer import AdamW

    model = MaskRCNN(**SMALL)
    optimizer = AdamW(model.named_parameters())
    totals = []
    for _ in range(40):
        losses = model.losses([draw_picture()], [draw_target()])
        total = sum(losses.values())
        model.zero_grad()
        total.backward()
        optimizer.step(2e-3)
        totals.append(total.item())
    assert np.mean(totals[-5:]) < 0.7 * totals[0]


def test_the_same_seed_gives_the_same_bits():
    results = []
    for _ in range(2):
        model = MaskRCNN(**SMALL, seed=3)
        losses = model.losses([draw_picture()], [draw_target()])
        sum(losses.values()).backward()
        results.append([parameter.grad.copy() for parameter in model.parameters()])
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))
    other = MaskRCNN(**SMALL, seed=4)
    assert not np.array_equal(other.rpn.convs[0].weight.data, model.rpn.convs[0].weight.data)


def test_save_and_load(tmp_path):
    model = MaskRCNN(**SMALL, class_names=("background", "cat", "dog"))
    path = tmp_path / "model.npz"
    model.save(path)
    loaded = MaskRCNN.load(path)
    assert loaded.config == model.config and not loaded.training
    for a, b in zip(model.predict([draw_picture()], 0.0), loaded.predict([draw_picture()], 0.0), strict=True):
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.masks, b.masks)
        assert b.names == ("background", "cat", "dog")


def test_what_no_array_depends_on_is_changed_in_loading(tmp_path):
    model, path = MaskRCNN(**SMALL), tmp_path / "model.npz"
    model.save(path)
    count = len(model.predict([draw_picture()], 0.0)[0])
    few = MaskRCNN.load(path, box_detections_per_img=3)
    assert len(few.predict([draw_picture()], 0.0)[0]) == 3 < count
    with pytest.raises(AttributeError, match=r"MaskRCNN\.load\(path, box_detections_per_img=300\)"):
        model.config = few.config
    with pytest.raises(ValueError, match="Config: unknown fields box_detections_per_image; known are"):
        MaskRCNN.load(path, box_detections_per_image=3)
    with pytest.raises(ValueError, match="Config: box_nms_thresh is 3"):
        MaskRCNN.load(path, box_nms_thresh=3)
    with pytest.raises(DataError, match=r"(?s)model\.npz: .*fc7\.weight: shape \(16, 16\), wanted \(32, 32\)"):
        MaskRCNN.load(path, box_head_channels=32)
    arrays, header = read_archive(path)
    header["config"]["box_score_thresh"] = -1.0  # which was not refused once
    write_archive(path, arrays, header)
    with pytest.raises(DataError, match="box_score_thresh is -1.0, wanted a number from 0 to 1"):
        MaskRCNN.load(path)
    assert MaskRCNN.load(path, box_score_thresh=0).config.box_score_thresh == 0


def test_bad_model_files(tmp_path):
    model = MaskRCNN(**SMALL)
    path = tmp_path / "model.npz"
    model.save(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"model\.npz"):
        MaskRCNN.load(path)
    import pickle

    path.write_bytes(pickle.dumps({"config": print}))
    with pytest.raises(DataError, match=r"model\.npz"):
        MaskRCNN.load(path)
    from minimrcnn.archive import write_archive

    write_archive(path, model.arrays(), {"config": dataclasses.asdict(Config(**{**SMALL, "pyramid_channels": 32}))})
    with pytest.raises(DataError, match=r"wanted \(1, 1, 64, 32\)"):
        MaskRCNN.load(path)
    write_archive(path, {}, {"kind": "minimrcnn checkpoint 1"})
    with pytest.raises(DataError, match=r"of a training that is done; wanted the model\.npz beside it"):
        MaskRCNN.load(path)
    write_archive(path, {}, {"kind": "something else"})
    with pytest.raises(DataError, match="not a model"):
        MaskRCNN.load(path)
    write_archive(path, {}, {"config": {"flux": 1}})
    with pytest.raises(DataError, match="unknown fields flux"):
        MaskRCNN.load(path)


def test_pictures_of_all_kinds_give_the_same(tmp_path):
    model = MaskRCNN(**SMALL)
    array = draw_picture()
    path = tmp_path / "picture.png"
    Image.fromarray(array).save(path)
    wanted = model.predict([array], np.float32(0))[0].boxes
    for picture in (
        path,
        str(path),
        Image.fromarray(array),
        array.astype(np.float32) / 255,
        array.astype(np.float64) / 255,
    ):
        np.testing.assert_allclose(model.predict([picture], 0.0)[0].boxes, wanted, atol=1e-3)
    gray = array[:, :, :1]
    pixels, _, _ = prepare([gray, gray[:, :, 0], gray.repeat(3, axis=2)], Config(min_size=None))
    assert np.array_equal(pixels[0], pixels[1]) and np.array_equal(pixels[0], pixels[2])


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda m: m([draw_picture()]), TypeError, r"wanted model\.predict\(\[picture\]\), or model\.losses\("),
        (lambda m: MaskRCNN("run/best.npz"), TypeError, r"config is 'run/best\.npz', .* MaskRCNN\.load\(path\)"),
        (lambda m: MaskRCNN(2), TypeError, r"config is 2, .* MaskRCNN\(num_classes=2\)"),
        (lambda m: m.predict(draw_picture()), TypeError, r"wanted a list of pictures; for one: \[picture\]"),
        (lambda m: m.predict([]), ValueError, "at least one"),
        (
            lambda m: m.predict([draw_picture()], "0.5"),
            ValueError,
            "score_thresh is '0.5', wanted a number from 0 to 1",
        ),
        (lambda m: m.predict([draw_picture()], 2), ValueError, "predict: score_thresh is 2"),
        (lambda m: m.predict([draw_picture()], -1), ValueError, "predict: score_thresh is -1"),
        (lambda m: m.predict(["no-such-file.jpg"]), DataError, r"no-such-file\.jpg"),
        (lambda m: m.predict([draw_picture(), None]), DataError, r"^pictures\[1\]: got NoneType, wanted an array"),
        (lambda m: m.predict([np.zeros((4, 4, 7))]), DataError, r"^pictures\[0\]: array of shape \(4, 4, 7\)"),
        (lambda m: m.predict([np.zeros((4, 4, 4), np.uint8)]), DataError, r"\(H, W\); .* it is picture\[\.\.\., :3\]"),
        (
            lambda m: m.predict([np.zeros((4, 4, 3), np.uint16)]),
            DataError,
            "array of uint16, .*; that is picture / 65535",
        ),
        (lambda m: m.predict([np.full((8, 8, 3), 300.0)]), DataError, "floats from 300 to 300, wanted 0 to 1"),
        (lambda m: m.losses([draw_picture()], []), ValueError, "0 targets for 1 pictures"),
        (
            lambda m: m.losses(
                [draw_picture()], [dataclasses.replace(draw_target(), boxes=np.float32([[9, 9, 5, 5]] * 2))]
            ),
            DataError,
            r"targets\[0\]: box 0",
        ),
        (
            lambda m: m.losses([draw_picture()], [changed(labels=np.array([1, 3]))]),
            DataError,
            "label 1 is 3",
        ),
        (
            lambda m: m.losses([draw_picture()], [changed(labels=np.array([1, 2], np.uint64))]),
            DataError,
            r"targets\[0\]: labels of shape \(2,\) uint64, wanted \(2,\) int64",
        ),
        (lambda m: m.losses([draw_picture(32, 32)], [draw_target()]), DataError, r"targets\[0\]"),
    ],
)
def test_mistakes_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(MaskRCNN(**SMALL))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"backbone": "vgg"}, "wanted one of resnet18"),
        ({"norm": "layer"}, "norm is 'layer'"),
        ({"num_classes": 1}, "at least 2"),
        ({"class_names": ("background", "cat")}, "2 class_names for num_classes 91"),
        ({"anchor_sizes": (32,)}, "1 anchor_sizes, wanted 5"),
        ({"size_divisible": 16}, "multiple of 32"),
        ({"size_divisible": 0}, "multiple of 32"),
        ({"min_size": 0}, "min_size is 0"),
        ({"box_pool_size": 0}, "box_pool_size is 0"),
        ({"anchor_sizes": (1, 2, 4, 8, 16)}, "at least 2 pixels"),
        ({"category_ids": (None, 3)}, "2 category_ids for num_classes 91"),
        ({"num_classes": 2.5}, r"num_classes is 2\.5, wanted a whole number of at least 2"),
        ({"num_classes": "3"}, "num_classes is '3', wanted a whole"),
        ({"min_size": "a"}, "min_size is 'a', wanted a whole number of at least 1, or None"),
        ({"min_size": True}, "min_size is True"),
        ({"class_names": "ab", "num_classes": 2}, "class_names is 'ab', wanted one text a class"),
        ({"anchor_sizes": 32}, "anchor_sizes is 32, wanted at least one size"),
        ({"anchor_sizes": (32, 64, 128, 256, np.nan)}, "anchor_sizes is .*nan"),
        ({"box_score_thresh": 2}, "box_score_thresh is 2, wanted a number from 0 to 1"),
        ({"box_nms_thresh": -1}, "box_nms_thresh is -1"),
        ({"box_nms_thresh": "x"}, "box_nms_thresh is 'x'"),
        (
            {"anchor_sizes": (2, 4, 8, 16, 32), "aspect_ratios": (0.2, 1)},
            r"an anchor 0\.89 pixels wide or high, wanted",
        ),
        ({"anchor_sizes": (2, 4, 8, 16, 32), "aspect_ratios": (1, 4)}, "an anchor 1 pixels wide or high, wanted more"),
        ({"image_mean": (0.5,)}, r"image_mean is \(0\.5,\), wanted 3 numbers"),
        ({"image_std": (0, 0, 0)}, "image_std .* wanted 3 numbers above 0"),
        ({"norm_eps": -1}, "norm_eps is -1"),
        ({"bbox_reg_weights": (0, 0, 0, 0)}, "bbox_reg_weights .* wanted 4 numbers above 0"),
        ({"box_positive_fraction": 7}, "box_positive_fraction is 7"),
        ({"rpn_batch_size_per_image": -1}, "rpn_batch_size_per_image is -1"),
        ({"rpn_post_nms_top_n_test": -5}, "rpn_post_nms_top_n_test is -5"),
        ({"rpn_fg_iou_thresh": 0.1}, r"rpn_bg_iou_thresh is 0\.3, wanted at most rpn_fg_iou_thresh, which is 0\.1"),
        ({"mask_pool_size": 4000}, "mask_pool_size is 4000, wanted a whole number from 1 to 64"),
        ({"box_pool_size": 3000, "box_head_fcs": 0}, "box_pool_size is 3000"),
        ({"size_divisible": 16000}, "of at most 1024"),
    ],
)
def test_config_mistakes_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Config(**fields)


def test_config_survives_json():
    import json

    counted = {"num_classes": np.int64(3), "anchor_sizes": np.float32([8, 16, 32, 64, 128])}
    config = Config(**{**SMALL, "class_names": ("background", "a", "b"), **counted})
    assert config.anchor_sizes == SMALL["anchor_sizes"]
    assert Config.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_trace_names_every_stage():
    model = MaskRCNN(**SMALL)
    with trace() as stages:
        model.predict([draw_picture()], 0.0)
    for number, stride in zip(range(2, 7), STRIDES, strict=True):
        assert stages[f"p{number}"].shape == (1, 64 // stride, 64 // stride, 16)
        assert stages[f"rpn_logits_p{number}"].shape[3] == 3 and stages[f"rpn_deltas_p{number}"].shape[3] == 12
    count = len(stages["proposals"][0])
    assert stages["c2"].shape == (1, 16, 16, 64) and stages["c5"].shape == (1, 2, 2, 512)
    assert stages["box_crops"].shape == (count, 7, 7, 16) and stages["class_logits"].shape == (count, 3)
    assert stages["mask_logits"].shape[1:] == (28, 28, 3)
    assert stages["detections"][0].boxes.shape[1] == 4
    stages.clear()
    model.predict([draw_picture()], 0.0)
    assert not stages  # nothing is recorded outside


def test_a_small_file_makes_no_large_model(tmp_path):
    path = tmp_path / "model.npz"
    MaskRCNN(**SMALL).save(path)
    arrays, header = read_archive(path)
    header["config"]["box_head_channels"] = 10**7  # of which the second layer would take 400 TB
    write_archive(path, arrays, header)
    with pytest.raises(DataError, match="have far more weights than the file"):
        MaskRCNN.load(path)


def test_a_loaded_model_trains(tmp_path):
    MaskRCNN(**SMALL).save(tmp_path / "model.npz")
    model = MaskRCNN.load(tmp_path / "model.npz")
    assert type(model.generator) is np.random.Generator
    assert len({model.generator.standard_normal() for _ in range(3)}) == 3


def test_pictures_are_not_made_absurdly_large():
    with pytest.raises(DataError, match="of 20000 x 20000 pixels, as this model would make them, are more than"):
        prepare([draw_picture(10, 10)], Config(min_size=20_000, max_size=20_000))


def test_prediction_keeps_no_graph_and_the_mode():
    model = MaskRCNN(**SMALL)
    with trace() as stages:
        model.predict([draw_picture()])
    assert all(not hasattr(value, "function") for value in stages.values())
    assert model.training and not model.eval().training
    model.predict([draw_picture()])
    assert not model.training
    model.train()
    model.backbone.eval()  # as whoever keeps its statistics still
    model.predict([draw_picture()])
    assert model.training and model.rpn.training and not any(part.training for part in model.backbone.modules())


def test_predictions_of_two_threads_leave_statistics_and_mode():
    """The first ends in the midst of the second, which goes on in inference."""
    model, started, ended = MaskRCNN(**{**SMALL, "norm": "batch"}), threading.Event(), threading.Event()
    second = threading.Thread(target=lambda: model.predict([draw_picture(seed=1)]))
    extract, before = model.extract, {name: array.copy() for name, array in model.buffers().items()}

    def extract_overlapping(pixels):
        if threading.current_thread() is second:
            started.set()
            assert ended.wait(60)
        else:
            second.start()
            assert started.wait(60)
        return extract(pixels)

    model.extract = extract_overlapping
    model.predict([draw_picture()])
    ended.set()
    second.join()
    assert before and all(np.array_equal(array, before[name]) for name, array in model.buffers().items())
    assert all(part.training for part in model.modules())


def test_prepare_is_torchvisions_transform():
    config = Config()
    assert resized((480, 640), config) == (800, 1066)
    assert resized((427, 640), config) == (800, 1199)
    assert resized((200, 640), config) == (416, 1333)
    pixels, sizes, originals = prepare([draw_picture(480, 640), draw_picture(300, 200)], config)
    assert sizes == [(800, 1066), (1200, 800)]  # floor(side * scale), the scale a Python float: here just 4
    assert pixels.shape == (2, 1216, 1088, 3) and originals == [(480, 640), (300, 200)]
    assert (pixels[0, 800:] == 0).all() and (pixels[1, :, 800:] == 0).all()


def test_samples_are_a_quarter_positive_and_carry_their_match():
    rng = np.random.default_rng(0)
    target = draw_target()
    near = target.boxes[rng.integers(0, 2, 40)] + rng.uniform(-1, 1, (40, 4)).astype(np.float32)
    far = np.float32([[40, 40, 60, 60]]).repeat(40, 0) + rng.uniform(-3, 3, (40, 4)).astype(np.float32)
    samples = sample_rois(np.concatenate([far, near]), target, Config(**SMALL), rng)
    assert len(samples.boxes) == 16 and samples.positive.sum() == 4 and samples.positive[:4].all()
    assert (samples.matched[4:] == -1).all() and (samples.labels[4:] == 0).all()
    for box, label, row in zip(samples.boxes[:4], samples.labels[:4], samples.matched[:4], strict=True):
        assert label == target.labels[row] and np.abs(box - target.boxes[row]).max() <= 1


def test_top_prefers_the_lower_index_among_equals():
    scores = np.float32([1, 3, 2, 3, 2, 2])
    np.testing.assert_array_equal(top(scores, 4), [1, 3, 2, 4])
    np.testing.assert_array_equal(top(scores, 99), [1, 3, 2, 4, 5, 0])
    assert len(top(scores, 0)) == 0


def test_no_grad_losses_need_no_memory():
    model = MaskRCNN(**SMALL)
    with no_grad():
        losses = model.losses([draw_picture()], [draw_target()])
    assert not any(loss.requires_grad for loss in losses.values())


def test_an_object_that_no_anchor_touches_makes_none_positive():
    """It is everybody's "best" with an overlap of nothing, which must not turn background into objects."""
    model = MaskRCNN(**{**SMALL, "anchor_sizes": (4, 8, 16, 32, 64)}, seed=1)
    masks = np.zeros((1, 64, 64), np.uint8)
    masks[0, 20:32, 63] = 1
    target = Target(np.float32([[63.5, 20, 64, 32]]), np.array([1]), masks)
    anchors = [np.float32([[0, 0, 8, 8], [16, 16, 24, 24], [30, 30, 60, 60]])]
    logits = [Tensor(np.zeros((1, 1, 1, 3), np.float32), requires_grad=True)]
    deltas = [Tensor(np.zeros((1, 1, 1, 12), np.float32), requires_grad=True)]
    losses = model.rpn.losses(logits, deltas, anchors, [target], np.random.default_rng(0))
    losses["loss_objectness"].backward()
    assert losses["loss_rpn_box_reg"].item() == 0
    assert (logits[0].grad > 0).all()  # all three are pushed toward background


def test_a_least_score_of_0_is_one():
    model = MaskRCNN(**{**SMALL, "box_score_thresh": 1.0}).eval()
    assert [len(model.predict([draw_picture()], score)[0]) > 0 for score in (0, None)] == [True, False]


def test_crops_are_cut_as_the_config_says(monkeypatch):
    asked = []
    said = {"roi_operation": "pool", "roi_sampling_ratio": 3, "roi_aligned": True}
    said |= {"roi_mode": "max", "roi_deterministic": False}
    monkeypatch.setattr(mask_rcnn, "pool_rois", lambda *arguments: asked.append(arguments))
    MaskRCNN(**SMALL, **said).crop(list(range(5)), [np.zeros((1, 4))], 7)
    levels, _, size, strides, *rest = asked[0]
    assert (levels, size, strides, rest) == ([0, 1, 2, 3], 7, (4, 8, 16, 32), list(said.values()))


def test_first_weights():
    """Ren et al. 2015, section 3.1.3: 0.01 in the RPN; Girshick 2015, section 2.3: 0.01 for classes, 0.001 for boxes.

    Group norm, which a model may have throughout, is in the pyramid and in the heads then, with weights for ReLU.
    """
    sizes = {**SMALL, "pyramid_channels": 64, "box_head_channels": 64}
    group, frozen = MaskRCNN(**sizes), MaskRCNN(**{**sizes, "norm": "frozen_batch"})
    rpn, box = group.rpn, group.box_head
    for layer in (rpn.convs[0], rpn.logits, rpn.deltas, box.class_logits):
        assert layer.weight.data.std() == pytest.approx(0.01, rel=0.3)
    assert box.box_deltas.weight.data.std() == pytest.approx(0.001, rel=0.3)
    assert group.pyramid.lateral[3].conv.weight.data.std() == pytest.approx((2 / 64) ** 0.5, rel=0.1)
    assert frozen.pyramid.lateral[3].weight.data.std() == pytest.approx((1 / 512) ** 0.5, rel=0.1)
    normed = [[name.split(".")[0] for name in model.arrays() if ".norm." in name] for model in (group, frozen)]
    assert set(normed[0]) == {"backbone", "pyramid", "mask_head"} and set(normed[1]) == {"backbone"}


@pytest.mark.parametrize(
    "head, side, fields",
    [
        ("box_head", 7, {"box_head_convs": (8,), "box_head_fcs": 0}),
        ("box_head", 7, {"box_head_fcs": 1}),
        ("mask_head", 14, {"mask_head": "mlp", "mask_mlp_channels": (8,)}),
    ],
)
def test_between_the_layers_of_a_head_is_a_relu(head, side, fields):
    """Without one, minus the crops would give minus the answer."""
    crops = np.random.default_rng(0).standard_normal((2, side, side, 16), np.float32)
    part = getattr(MaskRCNN(**SMALL, **fields), head)
    answers = [part(Tensor(sign * crops)) for sign in (1, -1)]
    logits = [(answer[0] if head == "box_head" else answer).data for answer in answers]
    assert np.abs(logits[0] + logits[1]).max() > 0.01 * np.abs(logits[0]).max() > 0


def test_without_layers_the_box_head_sees_the_mean_of_a_crop():
    head = MaskRCNN(**SMALL, box_head_fcs=0).box_head
    crops = np.random.default_rng(0).standard_normal((2, 7, 7, 16), np.float32)
    wanted = crops.mean(axis=(1, 2)) @ head.class_logits.weight.data
    np.testing.assert_allclose(head(Tensor(crops))[0].data, wanted, rtol=1e-3, atol=1e-6)


def test_masks_of_a_softmax_are_shares_of_all_classes():
    logits = np.random.default_rng(0).standard_normal((2, 3, 3, 3), np.float32)
    masks = MaskRCNN(**SMALL, mask_loss="softmax").mask_head.choose(Tensor(logits), np.array([1, 2]))
    shares = np.exp(logits) / np.exp(logits).sum(axis=3, keepdims=True)
    np.testing.assert_allclose(masks, [shares[0, :, :, 1], shares[1, :, :, 2]], rtol=1e-5)


@pytest.mark.parametrize("kind, answers", [("sigmoid", 2), ("agnostic", 2), ("softmax", 3)])
def test_the_mask_head_has_the_loss_that_the_config_names(kind, answers):
    """Of logits of 0, the logarithm of how many answers compete."""
    head = MaskRCNN(**SMALL, mask_loss=kind).mask_head
    samples = RoISamples(np.float32([[14, 12, 24, 22]]), np.array([1]), np.array([0]))
    logits = Tensor(np.zeros((1, 4, 4, head.masks), np.float32))
    loss = head.losses(logits, [samples], [draw_target()])["loss_mask"]
    assert loss.item() == pytest.approx(np.log(answers))


def test_the_truth_is_resized_with_its_picture(monkeypatch):
    model, seen = MaskRCNN(**{**SMALL, "min_size": 128, "max_size": 128}), []
    losses = model.rpn.losses
    monkeypatch.setattr(model.rpn, "losses", lambda *given: seen.extend(given[3]) or losses(*given))
    model.losses([draw_picture()], [draw_target()])
    assert np.array_equal(seen[0].boxes, 2 * draw_target().boxes) and seen[0].masks.shape == (2, 128, 128)


def test_what_can_be_detected():
    """What scores above the least score, not at it, and is a hundredth of a pixel wide and high."""
    head, still = MaskRCNN(**SMALL).box_head, np.zeros((3, 3, 4), np.float32)
    proposals = np.float32([[8, 8, 24, 24], [8, 8, 8.0625, 24], [8, 8, 8.0078125, 24]])
    scores = np.float32([[0.25, 0.5, 0.25]] * 3)
    _, _, labels, rows = head.find_candidates(scores, still, proposals, (64, 64), 0.25)
    assert labels.tolist() == [1, 1] and rows.tolist() == [0, 1]


def test_objects_of_two_classes_may_be_at_one_place():
    logits, deltas = np.float32([[0, 5, 0], [0, 0, 5]]), np.zeros((2, 3, 4), np.float32)
    proposals = [np.float32([[8, 8, 24, 24]] * 2)]
    (found,) = MaskRCNN(**SMALL).box_head.detect(Tensor(logits), Tensor(deltas), proposals, [(64, 64)], 0.5)
    assert sorted(found.labels.tolist()) == [1, 2]


def test_between_the_thresholds_a_roi_is_neither_object_nor_background():
    config = Config(**SMALL, box_bg_iou_thresh=0.3, box_fg_iou_thresh=0.5)
    target = Target(np.float32([[0, 0, 10, 10]]), np.array([1]), np.zeros((1, 64, 64), np.uint8))
    proposals = np.float32([[0, 0, 10, 4], [40, 40, 50, 50]])  # the first has an IoU of 0.4
    samples = sample_rois(proposals, target, config, np.random.default_rng(0))
    assert samples.boxes.tolist() == [[0, 0, 10, 10], [40, 40, 50, 50]] and samples.labels.tolist() == [1, 0]


def test_the_rpn_draws_as_many_anchors_as_are_meant_for_it():
    """Not as many as there are RoIs for the heads."""
    rpn = {"rpn_batch_size_per_image": 8, "rpn_positive_fraction": 0.25}
    heads = {"box_batch_size_per_image": 4, "box_positive_fraction": 0.75}
    model = MaskRCNN(**{**SMALL, **rpn, **heads})
    target = Target(np.float32([[0, 0, 16, 16]]), np.array([1]), np.zeros((1, 64, 64), np.uint8))
    anchors = [np.float32([[0, 0, 16, 16]] * 10 + [[40, 40, 56, 56]] * 10)]
    logits = Tensor(np.zeros((1, 1, 1, 20), np.float32), requires_grad=True)
    deltas = [Tensor(np.zeros((1, 1, 1, 80), np.float32))]
    losses = model.rpn.losses([logits], deltas, anchors, [target], np.random.default_rng(0))
    losses["loss_objectness"].backward()
    assert ((logits.grad < 0).sum(), (logits.grad > 0).sum()) == (2, 6)


def test_training_and_inference_have_their_own_numbers_of_proposals():
    numbers = {"rpn_post_nms_top_n_train": 7, "rpn_post_nms_top_n_test": 5, "rpn_nms_thresh": 1.0}
    rpn, generator = MaskRCNN(**{**SMALL, **numbers}).rpn, np.random.default_rng(0)
    levels = [Tensor(generator.standard_normal((1, side, side, 16), np.float32)) for side in (16, 8, 4, 2, 1)]
    logits, deltas = rpn(levels)
    anchors = rpn.anchors(logits, (64, 64))
    assert [len(rpn.train(mode).propose(logits, deltas, anchors, [(64, 64)])[0]) for mode in (True, False)] == [7, 5]
