"""Every architecture the article names: each builds, predicts, learns and comes back from its file."""

import dataclasses
import math

import numpy as np
import pytest

from minimrcnn import Config, MaskRCNN, functional, models, trace
from minimrcnn.archive import write_archive
from minimrcnn.models import published
from minimrcnn.models.pyramid import Pyramid
from minimrcnn.models.resnet import ResNet, make_stage
from minimrcnn.models.vgg import VGG
from minimrcnn.nn import BatchNorm2d, ConvNorm, make_norm
from minimrcnn.tensor import Tensor
from tests.reference_cases import relative_error
from tests.test_models import SMALL, draw_picture, draw_target

TINY = {
    "num_classes": 3, "min_size": None, "pyramid_channels": 8, "box_head_channels": 8, "mask_mlp_channels": (8,),
    "box_batch_size_per_image": 8, "rpn_batch_size_per_image": 32, "rpn_pre_nms_top_n_train": 50,
    "rpn_pre_nms_top_n_test": 50, "rpn_post_nms_top_n_train": 8, "rpn_post_nms_top_n_test": 8,
    "box_detections_per_img": 4,
}  # fmt: skip
PUBLISHED = {  # name -> fields that make it small
    "maskrcnn_resnet50_fpn": {"mask_head_channels": (8,)},
    # 33 blocks whose frozen statistics are still 0 and 1 let the features grow without bounds.
    "maskrcnn_resnet101_fpn": {"mask_head_channels": (8,), "norm": "group"},
    "maskrcnn_resnext101_fpn": {"mask_head_channels": (8,), "norm": "group"},
    "maskrcnn_vgg16_fpn": {"mask_head_channels": (8,)},
    "maskrcnn_resnet50_c4": {"mask_upsample_channels": 8},
    "maskrcnn_resnet50_fpn_v2": {"mask_head_channels": (8,), "box_head_convs": (8, 8)},
    "fasterrcnn_resnet50_fpn": {},
    "fasterrcnn_resnet50_c4": {},
}
KINDS = [  # of a ResNet-18, each another set of parts
    {"pyramid": "c4", "box_head_fcs": 0},
    {"pyramid": "c4", "box_pool_size": 14, "mask_upsample_channels": 4, "mask_head_channels": ()},
    {"pyramid": "c4", "mask_head": "mlp", "anchor_sizes": (16, 32, 64, 128)},
    {"pyramid": "c5", "anchor_sizes": (32,)},
    {"p6": "m5", "mask_head": "mlp", "mask_loss": "agnostic"},
    {"mask_head": None, "roi_operation": "warp", "roi_mode": "max"},
    {"norm": "batch", "head_norm": "batch", "rpn_conv_depth": 2, "box_head_convs": (8, 4), "box_head_fcs": 1},
    {"norm": "frozen_batch", "head_norm": "group", "roi_mode": "max"},
    {"trainable_backbone_layers": 0},
    {"trainable_backbone_layers": 4, "norm": "batch"},
]


def check_gradients(model, frozen_parts=()):
    """Losses are finite; every parameter gets a finite gradient but those of the frozen parts, which get none."""
    total = sum(model.losses([draw_picture()], [draw_target()]).values())
    assert np.isfinite(total.item())
    total.backward()
    for name, parameter in model.named_parameters().items():
        if name.startswith(tuple(frozen_parts)):
            assert parameter.grad is None and not parameter.requires_grad, name
        else:
            assert parameter.grad is not None and np.isfinite(parameter.grad).all(), name


def check_prediction(model):
    (found,) = model.predict([draw_picture()], score_thresh=0.0)
    assert 0 < len(found) <= model.config.box_detections_per_img and np.isfinite(found.boxes).all()
    assert (found.masks is None) == (model.config.mask_head is None)
    assert found.masks is None or found.masks.shape == (len(found), 64, 64)
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_architectures_predict_and_learn(name):
    fields = TINY | PUBLISHED[name]
    model = getattr(models, name)(seed=1, trainable_backbone_layers=3, **fields)
    frozen = ["backbone.stages.0.", "backbone.stages.1." if "vgg" in name else "backbone.stem."]
    check_gradients(model, frozen)
    check_prediction(model)


def test_published_names_are_listed():
    assert set(models.PUBLISHED) == set(PUBLISHED) <= set(dir(models))
    with pytest.raises(AttributeError, match="it has fasterrcnn_resnet50_c4, fasterrcnn"):
        _ = models.maskrcnn_resnet18
    assert models.maskrcnn_resnet50_c4.__doc__ and models.PUBLISHED == tuple(models.__all__)


def test_the_settings_of_the_papers(monkeypatch):
    monkeypatch.setattr(published, "MaskRCNN", lambda seed, **fields: Config(**fields))
    mask, faster = models.maskrcnn_resnet50_c4(), models.fasterrcnn_resnet50_c4()
    for config in (mask, faster):
        assert (config.rpn_pre_nms_top_n_train, config.rpn_pre_nms_top_n_test) == (12000, 6000)
        assert (config.rpn_post_nms_top_n_train, config.rpn_post_nms_top_n_test) == (2000, 300)
        assert (config.box_batch_size_per_image, config.box_pool_size, config.mask_pool_size) == (64, 14, 14)
        assert config.mask_upsample_channels == 256
    assert (mask.roi_operation, mask.anchor_sizes) == ("align", (32, 64, 128, 256, 512))
    assert (faster.roi_operation, faster.anchor_sizes, faster.mask_head) == ("pool", (64, 128, 256, 512), None)
    for name in ("resnet50", "resnet101", "resnext101", "vgg16"):
        make = getattr(models, f"maskrcnn_{name}_fpn")
        assert make().backbone == {"resnext101": "resnext101_32x8d"}.get(name, name)
        assert make(backbone="resnet34").backbone == "resnet34"  # what is given wins


@pytest.mark.parametrize("fields", KINDS, ids=str)
def test_every_kind_learns_predicts_and_comes_back(fields, tmp_path):
    model = MaskRCNN(**{**SMALL, **TINY, "mask_head_channels": (8,), **fields}, seed=2)
    parts = ["backbone.stem.", *(f"backbone.stages.{stage}." for stage in range(4))]
    check_gradients(model, parts[: 5 - model.config.trainable_backbone_layers])
    found = check_prediction(model)
    model.save(tmp_path / "model.npz")
    loaded = MaskRCNN.load(tmp_path / "model.npz")
    assert loaded.config == model.config
    again = check_prediction(loaded)
    np.testing.assert_array_equal(again.boxes, found.boxes)
    if found.masks is not None:
        np.testing.assert_array_equal(again.masks, found.masks)


@pytest.fixture(scope="module")
def on_c4():
    return models.maskrcnn_resnet50_c4(**{**TINY, "mask_upsample_channels": 8})


def test_shapes_on_c4(on_c4):
    with trace() as stages:
        on_c4.predict([draw_picture(64, 96)], 0.0)
    count, detected = len(stages["proposals"][0]), len(stages["detections"][0])
    assert stages["c4"].shape == (1, 4, 6, 1024) and "c5" not in stages and "p2" not in stages
    assert stages["rpn_logits_c4"].shape == (1, 4, 6, 15) and stages["rpn_deltas_c4"].shape == (1, 4, 6, 60)
    assert stages["box_crops"].shape == (count, 14, 14, 1024) and stages["class_logits"].shape == (count, 3)
    assert stages["mask_crops"].shape == (detected, 14, 14, 1024)
    assert stages["mask_logits"].shape == (detected, 14, 14, 3)
    names = on_c4.arrays()
    assert names["res5.layers.0.conv2.conv.weight"].shape == (3, 3, 512, 512)
    assert names["res5.layers.0.shortcut.norm.running_var"].shape == (2048,)
    assert names["box_head.class_logits.weight"].shape == (2048, 3)


def test_a_single_level_has_anchors_of_all_sizes():
    """By row, column, ratio, then size, as torchvision's AnchorGenerator has them."""
    model = MaskRCNN(**{**SMALL, "pyramid": "c5", "anchor_sizes": (32, 64), "aspect_ratios": (0.5, 1.0)})
    logits = [np.zeros((1, 2, 3, 4))]
    (anchors,) = model.rpn.anchors(logits, (64, 96))
    assert anchors.shape == (2 * 3 * 4, 4)
    first = [[-23, -11, 23, 11], [-45, -23, 45, 23], [-16, -16, 16, 16], [-32, -32, 32, 32]]
    np.testing.assert_array_equal(anchors[:4], first)
    np.testing.assert_array_equal(anchors[4:8], np.add(first, [32, 0, 32, 0]))
    np.testing.assert_array_equal(anchors[12:16], np.add(first, [0, 32, 0, 32]))


def test_both_heads_see_the_same_crops_on_c4(on_c4, monkeypatch):
    """One pass of res5 serves both heads in training, and the masks' gradient arrives in it."""
    calls, look = [], on_c4.look
    monkeypatch.setattr(on_c4, "look", lambda crops: calls.append(crops.shape) or look(crops))
    losses = on_c4.losses([draw_picture()], [draw_target()])
    assert calls == [(8, 14, 14, 1024)]
    losses["loss_mask"].backward()
    assert np.abs(on_c4.res5.layers[0].conv1.conv.weight.grad).max() > 0


def test_nothing_is_computed_below_frozen_stages():
    model = MaskRCNN(**SMALL, trainable_backbone_layers=2)
    maps = model.backbone(Tensor(np.zeros((1, 64, 64, 3), np.float32)))
    assert [level.requires_grad for level in maps] == [False, False, True, True]
    vgg = MaskRCNN(**{**SMALL, "backbone": "vgg16"}, trainable_backbone_layers=2)
    maps = vgg.backbone(Tensor(np.zeros((1, 32, 32, 3), np.float32)))
    assert [level.requires_grad for level in maps] == [False, True, True, True]
    assert [level.shape for level in maps] == [(1, 8, 8, 256), (1, 4, 4, 512), (1, 2, 2, 512), (1, 1, 1, 512)]


def test_a_basic_block_strides_first_and_cuts_off_inside_and_after_the_sum():
    """He et al. 2016, figure 5, left, as torchvision's, whose weights fit either way."""
    rng = np.random.default_rng(0)
    block = make_stage("resnet18", 1, norm=make_norm("frozen_batch", 32, 0.0), generator=rng).layers[0]
    x = Tensor(rng.standard_normal((1, 6, 6, 64), np.float32))
    first, second, shortcut = (part.conv.weight for part in (block.conv1, block.conv2, block.shortcut))
    inside = functional.conv2d(x, first, stride=2, padding=1, relu=True)
    wanted = functional.conv2d(inside, second, padding=1).data + functional.conv2d(x, shortcut, stride=2).data
    assert relative_error(block(x).data, np.maximum(wanted, 0)) < 1e-5


def test_vgg_is_convolutions_with_relu_and_a_pooling_after_each_stage():
    vgg, maps = VGG(generator=np.random.default_rng(0)), []
    x = pixels = Tensor(np.random.default_rng(1).standard_normal((1, 32, 32, 3), np.float32))
    for stage in vgg.stages:
        for conv in stage.layers:
            x = functional.conv2d(x, conv.weight, conv.bias, padding=1, relu=True)
        maps.append(x)
        x = functional.max_pool2d(x, 2, 2)
    for got, wanted in zip(vgg(pixels), [*maps[2:], x], strict=True):
        np.testing.assert_array_equal(got.data, wanted.data)


def test_p6_of_the_paper_and_of_the_article():
    maps = [np.random.default_rng(n).random((1, 16 >> n, 16 >> n, 4), np.float32) for n in range(4)]
    for p6 in ("p5", "m5"):
        pyramid = Pyramid([4] * 4, 8, p6, norm=None, generator=np.random.default_rng(0))
        levels = pyramid([Tensor(level) for level in maps])
        source = levels[3] if p6 == "p5" else pyramid.lateral[3](Tensor(maps[3]))
        np.testing.assert_array_equal(levels[4].data, source.data[:, ::2, ::2])


class Zeros:
    """Stands in for a generator where only shapes matter: a hundred million random numbers take seconds."""

    def standard_normal(self, shape, dtype):
        return np.zeros(shape, dtype)

    def uniform(self, low, high, shape):
        return np.zeros(shape, np.float32)


def count(module) -> int:
    """Learnt numbers, with the scales and shifts of normalizations, frozen or not."""
    scales = sum(array.size for name, array in module.buffers().items() if name.endswith((".weight", ".bias")))
    return sum(parameter.size for parameter in module.parameters()) + scales


@pytest.mark.parametrize(
    "name, total",
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnext50_32x4d", 25_028_904),
        ("resnext101_32x8d", 88_791_336),
        ("vgg16", 138_357_544),
    ],
)
def test_backbones_have_as_many_parameters_as_the_classifiers(name, total):
    """torchvision's classifiers of these names: ours and a classifier of 1000 classes."""
    if name == "vgg16":
        backbone, widths = VGG(generator=Zeros()), (7 * 7 * 512, 4096, 4096, 1000)
    else:
        backbone = ResNet(name, norm=make_norm("frozen_batch", 32, 1e-5), generator=Zeros())
        widths = (backbone.channels[-1], 1000)
    classifier = sum((inside + 1) * outside for inside, outside in zip(widths[:-1], widths[1:], strict=True))
    assert count(backbone) + classifier == total


@pytest.mark.parametrize(
    "name, total",
    [  # parameters of torchvision 0.28's models with 91 classes; frozen normalizations have none
        ("maskrcnn_resnet50_fpn", 44_401_393),
        ("fasterrcnn_resnet50_fpn", 41_755_286),
        ("maskrcnn_resnet50_fpn_v2", 46_359_409),
    ],
)
def test_models_have_as_many_parameters_as_torchvisions(name, total, monkeypatch):
    monkeypatch.setattr(np.random, "default_rng", lambda seed: Zeros())
    assert sum(parameter.size for parameter in getattr(models, name)().parameters()) == total


def warp_one_cell(features, roi, stride, bins, samples, p, q, mode):
    """RoIWarp in so many words: one bin (p, q) of one RoI (x1, y1, x2, y2) of a map (H, W, C)."""
    left, top, right, bottom = (math.floor(abs(v) / stride + 0.5) * (1 if v >= 0 else -1) for v in roi)
    height, width = max(bottom - top, 0) + 1, max(right - left, 0) + 1  # whole cells, the last one included
    values = []
    for i in range(samples):
        for j in range(samples):
            y = top + (p + (i + 0.5) / samples) * height / bins
            x = left + (q + (j + 0.5) / samples) * width / bins
            if not (-1 <= y <= features.shape[0] and -1 <= x <= features.shape[1]):
                values.append(np.zeros(features.shape[2]))
                continue
            y, x = min(max(y, 0), features.shape[0] - 1), min(max(x, 0), features.shape[1] - 1)
            y0, x0 = min(int(y), features.shape[0] - 2), min(int(x), features.shape[1] - 2)
            v, u = y - y0, x - x0
            upper = (1 - u) * features[y0, x0] + u * features[y0, x0 + 1]
            lower = (1 - u) * features[y0 + 1, x0] + u * features[y0 + 1, x0 + 1]
            values.append((1 - v) * upper + v * lower)
    return np.mean(values, axis=0) if mode == "average" else np.max(values, axis=0)


@pytest.mark.parametrize("mode", ["average", "max"])
def test_roi_warp_is_roi_align_of_whole_cells(mode):
    features = np.random.default_rng(3).standard_normal((1, 9, 11, 3))
    rois = np.array([[0, 5, 9, 70, 60], [0, -6, 12, 30, 12.5], [0, 12, 4, 13, 5], [0, 40, 40, 120, 90]], np.float64)
    crops = functional.pool_rois([features], rois, 3, [8], "warp", 2, mode=mode).data
    for roi, crop in zip(rois, crops, strict=True):
        for p in range(3):
            for q in range(3):
                wanted = warp_one_cell(features[0], roi[1:], 8, 3, 2, p, q, mode)
                np.testing.assert_allclose(crop[p, q], wanted, atol=1e-12)
    moved = functional.pool_rois([features], rois + [0, 1, 1, 1, 1], 3, [8], "warp", 2, mode=mode).data
    np.testing.assert_array_equal(moved[0], crops[0])  # less than half a cell: rounded away


def test_roi_warp_gradient():
    rng = np.random.default_rng(4)
    rois = np.array([[0, 0, 0, 60, 60], [0, 3, 3, 300, 250]], np.float64)
    pyramid = [Tensor(rng.standard_normal((1, 16 >> n, 16 >> n, 2)), requires_grad=True) for n in range(4)]
    crops = functional.pool_rois(pyramid, rois, 3, operation="warp")
    weights = rng.standard_normal(crops.shape)
    crops.backward(weights)
    flow = sum(float((level.data * level.grad).sum()) for level in pyramid)
    assert flow == pytest.approx(float((crops.data * weights).sum()))  # <Ax, g> = <x, A'g>


def test_the_articles_maximum_of_four_samples():
    """FACTS 6: RoI [0, 3, 7, 8] on the article's 8x8 map, 2x2 cells of 2x2 samples."""
    table = """
        0.88 0.44 0.14 0.16 0.37 0.77 0.96 0.27 0.19 0.45 0.57 0.16 0.63 0.29 0.71 0.70
        0.66 0.26 0.82 0.64 0.54 0.73 0.59 0.26 0.85 0.34 0.76 0.84 0.29 0.75 0.62 0.25
        0.32 0.74 0.21 0.39 0.34 0.03 0.33 0.48 0.20 0.14 0.16 0.13 0.73 0.65 0.96 0.32
        0.19 0.69 0.09 0.86 0.88 0.07 0.01 0.48 0.83 0.24 0.97 0.04 0.24 0.35 0.50 0.91"""
    features = np.float32(table.split()).reshape(1, 8, 8, 1)
    for aligned, wanted in (
        (False, [[0.581094, 0.813594], [0.588281, 0.55125]]),
        (True, [[0.702813, 0.612344], [0.770313, 0.794063]]),
    ):
        crops = functional.pool_rois([features], [[0, 0, 3, 7, 8]], 2, [1], "align", 2, aligned, mode="max")
        np.testing.assert_allclose(crops.data[0, :, :, 0], wanted, atol=1e-6)


def test_given_proposals_make_it_a_fast_rcnn():
    model = MaskRCNN(**SMALL, box_score_thresh=0.0)
    pictures = [draw_picture(), draw_picture(50, 40, 1)]
    with trace() as stages:
        wanted = model.predict(pictures)
    proposals = stages["proposals"]
    model.rpn.forward = None  # it is not asked
    for got, found in zip(wanted, model.predict(pictures, proposals=proposals), strict=True):
        np.testing.assert_array_equal(found.boxes, got.boxes)
        np.testing.assert_array_equal(found.masks, got.masks)
    nowhere = model.predict(pictures, proposals=[[], np.zeros((0, 4))])
    assert [len(found) for found in nowhere] == [0, 0]


def test_given_proposals_may_have_no_area():
    """Other programs have such; only a box that is turned around is refused."""
    (found,) = MaskRCNN(**SMALL).predict([draw_picture()], proposals=[[[5, 5, 5, 9], [7, 7, 7, 7]]])
    assert np.isfinite(found.scores).all()


def test_given_proposals_are_in_the_pictures_own_pixels():
    model = MaskRCNN(**{**SMALL, "min_size": 64, "max_size": 128})
    with trace() as stages:
        model.predict([draw_picture(32, 48)], proposals=[[[4, 8, 20, 16], [-5, 0, 90, 32]]])
    np.testing.assert_array_equal(stages["proposals"][0], [[8, 16, 40, 32], [0, 0, 96, 64]])
    with trace() as stages:
        model.predict([draw_picture(33, 100)], proposals=[[[50, 0, 75, 33]]])
    np.testing.assert_allclose(stages["proposals"][0], [[64, 0, 96, 42]])  # each side by its own factor


@pytest.mark.parametrize(
    "proposals, message",
    [
        ([], "proposals for 0 pictures, there are 1"),
        ([[[1, 2, 3]]], r"proposals\[0\] have shape \(1, 3\), wanted \(R, 4\)"),
        ([[[0, 0, 9, 9], [0, 0, np.nan, 9]]], r"proposals\[0\] row 1 is .*nan.* wanted finite"),
        ([[[5, 0, 4, 9]]], "x2 >= x1"),
    ],
)
def test_wrong_proposals_are_named(proposals, message):
    with pytest.raises(ValueError, match=message):
        MaskRCNN(**SMALL).predict([draw_picture()], proposals=proposals)


def test_older_files_load(tmp_path):
    """Mask heads were booleans, and the RPN's one convolution had no number."""
    model = MaskRCNN(**SMALL)
    wanted = model.predict([draw_picture()], 0.0)[0]
    newer = {"trainable_backbone_layers", "head_norm", "pyramid", "p6", "rpn_conv_depth", "roi_mode", "box_head_convs",
             "box_head_fcs", "mask_upsample_channels", "mask_mlp_channels"}  # fmt: skip
    fields = {name: value for name, value in dataclasses.asdict(model.config).items() if name not in newer}
    arrays = {name.replace("rpn.convs.0.", "rpn.conv."): array for name, array in model.arrays().items()}
    write_archive(tmp_path / "old.npz", arrays, {"kind": "minimrcnn model", "config": {**fields, "mask_head": True}})
    loaded = MaskRCNN.load(tmp_path / "old.npz")
    assert loaded.config == model.config
    np.testing.assert_array_equal(loaded.predict([draw_picture()], 0.0)[0].boxes, wanted.boxes)
    assert Config.from_dict({"mask_head": False}).mask_head is None


def test_batch_norm_without_rois_learns_nothing():
    norm = BatchNorm2d(4)
    norm(Tensor(np.zeros((0, 7, 7, 4), np.float32)))
    assert (norm.running_mean == 0).all() and (norm.running_var == 1).all()


def test_batch_norm_is_folded_in_inference():
    rng = np.random.default_rng(0)
    layer = ConvNorm(4, 6, 3, norm=make_norm("batch", 32, 1e-5), generator=rng).eval()
    layer.norm.running_mean[:], layer.norm.running_var[:] = rng.standard_normal(6), rng.uniform(0.5, 2, 6)
    x, residual = Tensor(rng.standard_normal((1, 5, 5, 4), np.float32)), Tensor(np.ones((1, 5, 5, 6), np.float32))
    apart = layer.norm(layer.conv(x), residual=residual, relu=True)
    assert relative_error(layer(x, residual=residual, relu=True).data, apart.data) < 1e-5


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"backbone": "resnet152"}, "wanted one of resnet18, resnet34, resnet50, resnet101, resnext50_32x4d"),
        ({"head_norm": "layer"}, "head_norm is 'layer', wanted one of None, batch, group"),
        ({"pyramid": "c3"}, "pyramid is 'c3', wanted one of fpn, c4, c5"),
        ({"p6": "c5"}, "wanted one of p5, m5"),
        ({"mask_head": "fcn"}, "wanted one of convolutional, mlp, None"),
        ({"roi_operation": "crop"}, "wanted one of align, pool, warp"),
        ({"roi_mode": "median"}, "wanted one of average, max"),
        ({"trainable_backbone_layers": 6}, "trainable_backbone_layers is 6, wanted a whole number from 0 to 5"),
        ({"pyramid": "c4", "backbone": "vgg16"}, "wants a ResNet or ResNeXt"),
        ({"pyramid": "c4", "anchor_sizes": ()}, "at least one size"),
        ({"anchor_sizes": (32, 64)}, "2 anchor_sizes, wanted 5"),
        ({"rpn_conv_depth": 0}, "rpn_conv_depth is 0, wanted a whole number of at least 1"),
        ({"box_head_fcs": -1}, "box_head_fcs is -1, wanted a whole number, 0 or more"),
        ({"roi_sampling_ratio": -1}, "roi_sampling_ratio is -1, wanted a whole number, 0 or more"),
        ({"mask_upsample_channels": 0}, "mask_upsample_channels is 0"),
        ({"box_head_convs": (256, 0)}, r"box_head_convs is \(256, 0\)"),
    ],
)
def test_config_mistakes_list_what_is_allowed(fields, message):
    with pytest.raises(ValueError, match=message):
        Config(**fields)


def test_pool_rois_names_its_operations():
    features, rois = np.ones((1, 8, 8, 2), np.float32), np.zeros((1, 5), np.float32)
    with pytest.raises(ValueError, match='operation \'crop\', wanted "align", "pool" or "warp"'):
        functional.pool_rois([features], rois, 2, [4], operation="crop")
    with pytest.raises(ValueError, match="mode 'median'"):
        functional.pool_rois([features], rois, 2, [4], mode="median")
