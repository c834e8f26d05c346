"""Public names and ours: both ways, for every architecture, and what does not fit is said in whole."""

import json
import re

import numpy as np
import pytest

from minimrcnn import Config, MaskRCNN
from minimrcnn.data.coco_names import COCO_CATEGORY_IDS, COCO_NAMES
from minimrcnn.errors import DataError
from minimrcnn.loading import assume_config, is_torchvisions, load_model
from minimrcnn.models import published
from minimrcnn.recipes import list_parts
from minimrcnn.training.checkpoint import initialize, restore, save_checkpoint
from minimrcnn.training.options import TrainOptions
from minimrcnn.weights import is_ours, load, load_state, recognize, save, state_of, to_native, to_public
from minimrcnn.weights.recognize import PREDICTOR, recognize_norm
from tests.reference_cases import FOLDER

SMALL = {"num_classes": 4, "backbone": "resnet18", "pyramid_channels": 8, "box_head_channels": 8}
SMALL |= {"mask_head_channels": (8,)}
V2 = {"norm": "batch", "head_norm": "batch", "rpn_conv_depth": 2, "box_head_convs": (8, 4), "box_head_fcs": 1}
C4 = {"pyramid": "c4", "box_pool_size": 14, "box_head_fcs": 0, "mask_head_channels": (), "mask_upsample_channels": 4}
KINDS = {
    "fpn": {},
    "no masks": {"mask_head": None},
    "agnostic": {"mask_loss": "agnostic", "box_pool_size": 5},
    "mlp": {"mask_head": "mlp", "mask_mlp_channels": (8, 4), "mask_head_channels": Config.mask_head_channels},
    "v2": V2,
    "group": {"norm": "group", "head_norm": "group"},
    "bottlenecks": {"backbone": "resnet50"},
    "resnext": {"backbone": "resnext50_32x4d", "head_norm": "batch"},
    "c4": C4,
    "c4 with layers": {**C4, "box_head_fcs": 2, "head_norm": "group", "box_head_convs": (8,)},
    "c5": {"pyramid": "c5", "pyramid_channels": 256},
    "vgg": {"backbone": "vgg16"},
}


def make_model(seed=0, **fields):
    """A small model all of whose numbers differ."""
    model = MaskRCNN(**{**SMALL, **fields})
    generator = np.random.default_rng(seed)
    for array in model.arrays().values():
        array[...] = generator.random(array.shape, dtype=np.float32)
    return model


def assert_same(mine, wanted):
    assert set(mine) == set(wanted)
    for name, array in wanted.items():
        assert np.array_equal(mine[name], array), name


@pytest.fixture(scope="module")
def fpn():
    """A small model and its public state; neither is to be changed."""
    model = make_model()
    return model, state_of(model)


@pytest.fixture(scope="module")
def coco():
    """The published maskrcnn_resnet50_fpn in its own, old names; zeros that take no memory."""
    shapes = json.loads((FOLDER / "model_names.json").read_text())
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


def test_published_names_and_shapes(coco):
    model = MaskRCNN()
    native = to_native(coco)
    assert {name: array.shape for name, array in native.items()} == {
        name: array.shape for name, array in model.arrays().items()
    }
    fields = recognize(coco)
    assert Config(**fields) == Config(norm_eps=0.0)
    # torchvision 0.28 renamed these, and they alone
    new = to_public(native, model.config)
    renamed = {
        *(f"backbone.fpn.{kind}_blocks.{level}.0" for kind in ("inner", "layer") for level in range(4)),
        *(f"roi_heads.mask_head.{number}.0" for number in range(4)),
        "rpn.head.conv.0.0",
    }
    assert {name.rpartition(".")[0] for name in set(new) - set(coco)} == renamed
    assert len(new) == len(coco) and recognize(new) == fields


def test_names_of_the_second_version():
    state = state_of(make_model(**V2))
    shapes = {name: array.shape for name, array in state.items()}
    assert shapes["roi_heads.box_head.1.0.weight"] == (4, 8, 3, 3)
    assert shapes["roi_heads.box_head.3.weight"] == (8, 4 * 7 * 7)  # behind two convolutions and a flattening
    assert shapes["rpn.head.conv.1.0.bias"] == (8,)
    assert shapes["backbone.fpn.inner_blocks.0.1.num_batches_tracked"] == ()
    assert shapes["backbone.body.bn1.num_batches_tracked"] == ()
    assert not any(re.fullmatch(r"backbone\.fpn\.\w+\.0\.0\.bias", name) for name in shapes)


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(kind, tmp_path):
    model = make_model(**KINDS[kind])
    state = state_of(model)
    fields = recognize(state)
    for name, value in fields.items():
        assert value == getattr(model.config, name), name
    told = {name: value for name, value in model.config.__dict__.items() if value != getattr(Config(), name)}
    assert set(told) <= set(fields) | {"mask_head_channels", "pyramid_channels", "mask_loss", "box_head_channels"}
    other = make_model(seed=1, **KINDS[kind])
    for path in (tmp_path / "weights.npz", tmp_path / "weights.safetensors"):
        save(path, state)
        read = load(path)
        assert_same(read, state)
        for array in other.arrays().values():
            array[...] = 0
        assert load_state(other, read) == []
        assert_same(other.arrays(), model.arrays())


def test_layouts(fpn):
    model, state = fpn
    arrays = model.arrays()
    conv, ours = state["backbone.body.conv1.weight"], arrays["backbone.stem.conv.weight"]
    assert conv[5, 2, 1, 3] == ours[1, 3, 2, 5] and conv.flags.c_contiguous
    up, ours = state["roi_heads.mask_predictor.conv5_mask.weight"], arrays["mask_head.upsample.weight"]
    assert up[5, 2, 1, 0] == ours[1, 0, 5, 2]
    fc6, ours = state["roi_heads.box_head.fc6.weight"], arrays["box_head.fc6.weight"]
    channel, y, x = 3, 2, 6
    assert fc6[5, (channel * 7 + y) * 7 + x] == ours[(y * 7 + x) * 8 + channel, 5]
    assert state["roi_heads.box_predictor.cls_score.weight"][2, 7] == arrays["box_head.class_logits.weight"][7, 2]


def test_old_names_and_a_prefix_are_read(fpn):
    model, state = fpn
    old = {}
    for name, array in state.items():
        name = re.sub(r"(_blocks\.\d)\.0\.", r"\1.", name).replace("head.conv.0.0.", "head.conv.")
        name = name.replace("mask_head.0.0.", "mask_head.mask_fcn1.")
        old[f"module.{name}"] = array
    old["module.backbone.body.bn1.num_batches_tracked"] = np.array(7)
    other = make_model(seed=1)
    load_state(other, old)
    assert_same(other.arrays(), model.arrays())
    with pytest.raises(DataError, match="rpn.head.conv.weight and rpn.head.conv.0.0.weight"):
        to_native({"rpn.head.conv.weight": np.zeros(1), "rpn.head.conv.0.0.weight": np.zeros(1)})


def test_what_does_not_fit_is_listed_in_whole(fpn):
    state = dict(fpn[1])
    del state["backbone.body.layer2.0.bn1.running_mean"], state["roi_heads.box_predictor.bbox_pred.bias"]
    state["roi_heads.keypoint_head.0.weight"] = np.zeros((1, 2, 3, 3), np.float32)
    state["backbone.body.layer9.0.conv1.weight"] = np.zeros((1, 2, 3, 3), np.float32)
    state["rpn.head.cls_logits.weight"] = np.zeros((5, 8, 1, 1), np.float32)
    model = make_model(seed=1)
    before = {name: array.copy() for name, array in model.arrays().items()}
    with pytest.raises(DataError) as caught:
        load_state(model, state)
    for words in (
        "5 names do not fit this model (resnet18, 4 classes",
        "backbone.body.layer2.0.bn1.running_mean: missing, wanted (128,)",
        "roi_heads.box_predictor.bbox_pred.bias: missing, wanted (16,)",
        "roi_heads.keypoint_head.0.weight: unknown",
        "backbone.body.layer9.0.conv1.weight: unknown",
        "rpn.head.cls_logits.weight: (5, 8, 1, 1), wanted (3, 8, 1, 1)",
    ):
        assert words in str(caught.value)
    assert_same(model.arrays(), before)
    with pytest.raises(DataError, match=r"(?s)2 of \d+ names are unknown.*keypoint_head.*layer9"):
        to_native(state)
    with pytest.raises(DataError, match=r"(?s)2 arrays have no public name:.*x.y.weight\n  weight"):
        to_public({"x.y.weight": np.zeros(1), "weight": np.zeros(1)})


@pytest.mark.parametrize(
    "name, shape",
    [
        ("rpn.head.conv.0.0.weight", (8,)),
        ("rpn.head.conv.0.0.weight", (8, 0, 3, 3)),
        ("rpn.head.conv.0.0.weight", (8, 5, 3, 3)),
        ("roi_heads.box_predictor.cls_score.weight", ()),
        ("roi_heads.box_head.fc6.weight", ()),
        ("roi_heads.box_head.fc6.weight", (8, 391)),
        ("backbone.body.layer1.0.conv2.weight", (64, 0, 3, 3)),
        ("backbone.body.layer1.0.conv2.weight", (3,)),
        ("backbone.fpn.layer_blocks.0.0.weight", ()),
        ("roi_heads.mask_predictor.conv5_mask.weight", (8,)),
        ("roi_heads.mask_predictor.mask_fcn_logits.weight", ()),
    ],
)
def test_senseless_shapes_are_refused(fpn, name, shape, tmp_path):
    save(tmp_path / "weights.npz", {**fpn[1], name: np.zeros(shape, np.float32)})
    with pytest.raises(DataError, match="weights.npz: "):
        load_model(tmp_path / "weights.npz")


def test_all_that_is_needed_to_tell_is_named_at_once(fpn, tmp_path):
    state = dict(fpn[1])
    logits = "roi_heads.mask_predictor.mask_fcn_logits.weight"
    missing = PREDICTOR, "rpn.head.conv.0.0.weight", "backbone.fpn.layer_blocks.0.0.weight"
    for name in missing:
        del state[name]
    save(tmp_path / "weights.npz", {**state, logits: np.zeros(8, np.float32)})
    with pytest.raises(DataError, match=r"weights.npz: ") as caught:
        load_model(tmp_path / "weights.npz")
    for name in missing:
        assert f"{name} is missing" in str(caught.value)
    assert f"{logits} has shape (8,), wanted 4 axes" in str(caught.value)


def make_body(blocks, bottlenecks=False, width=64, groups=1):
    """Names and shapes of torchvision's ResNet of so many blocks a stage; zeros that take no memory."""
    shapes = {"conv1.weight": (64, 3, 7, 7), "bn1.running_var": (64,)}
    before = 64
    for stage, count in enumerate(blocks):
        inside, after = width << stage, (256 if bottlenecks else 64) << stage
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            if bottlenecks:
                convs = (inside, before, 1, 1), (inside, inside // groups, 3, 3), (after, inside, 1, 1)
            else:
                convs = (after, before, 3, 3), (after, after, 3, 3)
            for number, shape in enumerate(convs, 1):
                shapes[f"{name}.conv{number}.weight"] = shape
                shapes[f"{name}.bn{number}.running_var"] = shape[:1]
            before = after
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    "name, body",
    [
        ("resnet18", {"blocks": (2, 2, 2, 2)}),
        ("resnet34", {"blocks": (3, 4, 6, 3)}),
        ("resnet50", {"blocks": (3, 4, 6, 3), "bottlenecks": True}),
        ("resnet101", {"blocks": (3, 4, 23, 3), "bottlenecks": True}),
        ("resnext50_32x4d", {"blocks": (3, 4, 6, 3), "bottlenecks": True, "width": 128, "groups": 32}),
        ("resnext101_32x8d", {"blocks": (3, 4, 23, 3), "bottlenecks": True, "width": 256, "groups": 32}),
    ],
)
def test_backbones_are_told_by_names_and_shapes(name, body):
    state = make_body(**body)
    assert recognize(state) == {"backbone": name, "norm": "frozen_batch", "norm_eps": 1e-5}
    detector = {f"backbone.body.{there}": array for there, array in state.items()}
    detector["rpn.head.conv.0.0.weight"] = np.zeros((512, 512, 3, 3), np.float32)
    detector[PREDICTOR] = np.zeros((4, 8), np.float32)
    assert recognize(detector)["backbone"] == name
    wide = {**state, "layer1.0.conv2.weight": np.zeros((96, 96, 3, 3), np.float32)}
    with pytest.raises(DataError, match="is none of resnet18"):
        recognize(wide)


def classifier(fpn):
    """What torchvision's resnet18 has, of the small model's backbone, and that model."""
    model, state = fpn
    start = "backbone.body."
    body = {name.removeprefix(start): array for name, array in state.items() if name.startswith(start)}
    counted = {"bn1.num_batches_tracked": np.array(3), "fc.weight": np.zeros((10, 512)), "fc.bias": np.zeros(10)}
    return body | counted, model


def test_a_classifier_fills_the_backbone(fpn):
    state, source = classifier(fpn)
    assert recognize(state) == {"backbone": "resnet18", "norm": "batch", "norm_eps": 1e-5}
    model = make_model(seed=1, norm_eps=0.5)
    before = {name: array.copy() for name, array in model.arrays().items()}
    left = load_state(model, state)
    for name, array in model.arrays().items():
        wanted = before if name in left else source.arrays()
        assert (name not in left) == name.startswith("backbone.") and np.array_equal(array, wanted[name])
    assert model.config.norm_eps == 1e-5 and list_parts(left, before) == "pyramid, rpn, box_head, mask_head"

    on_c4 = make_model(seed=1, **C4)
    left = load_state(on_c4, state)
    assert not any(name.startswith(("backbone.", "res5.")) for name in left)
    np.testing.assert_array_equal(
        on_c4.arrays()["res5.layers.1.conv2.conv.weight"],
        source.arrays()["backbone.stages.3.layers.1.conv2.conv.weight"],
    )
    del state["layer3.1.bn2.bias"]
    with pytest.raises(DataError, match="1 names do not fit .*\n.*layer3.1.bn2.bias: missing"):
        load_state(model, state)


def test_a_classifier_of_vgg():
    source = make_model(backbone="vgg16")
    state = {
        name.replace("backbone.body.", "features."): array
        for name, array in state_of(source).items()
        if name.startswith("backbone.body.")
    }
    assert sorted({int(name.split(".")[1]) for name in state}) == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    state["classifier.6.bias"] = np.zeros(1000, np.float32)
    model = make_model(seed=1, backbone="vgg16")
    left = load_state(model, state)
    assert recognize(state)["backbone"] == "vgg16" and not any(name.startswith("backbone.") for name in left)
    np.testing.assert_array_equal(
        model.backbone.stages[4].layers[2].weight.data, state["features.28.weight"].transpose(2, 3, 1, 0)
    )


def test_other_backbones_are_refused(fpn):
    with pytest.raises(DataError, match="group normalization"):
        load_state(make_model(norm="group"), fpn[1])
    with pytest.raises(DataError, match="wanted a detector or a classifier"):
        recognize({"weight": np.zeros(3)})
    with pytest.raises(DataError, match="a ResNet with 36 blocks in layer3"):
        shapes = {f"layer3.{block}.conv1.weight": np.zeros((1, 1, 1, 1)) for block in range(36)}
        recognize({**shapes, "layer1.0.conv2.weight": np.zeros((64, 64, 3, 3))})


def norm_epses(model):
    return {module.eps for module in model.modules() if hasattr(module, "running_var")}


def test_eps_follows_the_weights(coco, tmp_path):
    assert recognize(coco)["norm_eps"] == 0.0
    tracked = {**coco, "backbone.body.bn1.num_batches_tracked": np.array(1)}
    assert recognize(tracked)["norm_eps"] == 1e-5 and recognize(tracked)["norm"] == "batch"
    in_a_head = {**coco, "roi_heads.box_head.0.1.num_batches_tracked": np.array(1)}  # so no file of COCO_V1
    assert recognize_norm(in_a_head) == {"norm": "frozen_batch", "norm_eps": 1e-5}
    model = make_model(num_classes=91)
    state = state_of(model)
    load_state(model, state)
    assert model.config.norm_eps == 0.0 and norm_epses(model) == {0.0}
    model.save(tmp_path / "model.npz")
    loaded = MaskRCNN.load(tmp_path / "model.npz")
    assert loaded.config == model.config and norm_epses(loaded) == {0.0}
    make_model(norm="group", norm_eps=1e-3).save(tmp_path / "groups.npz")
    initialize(in_groups := make_model(norm="group"), tmp_path / "groups.npz")
    assert in_groups.config.norm_eps == 1e-5  # its own: it took no statistics over
    load_state(model, state, norm_eps=1e-3)
    assert model.config.norm_eps == 1e-3 and norm_epses(model) == {1e-3}

    other = make_model(seed=1)  # 4 classes
    initialize(other, tmp_path / "model.npz")
    assert other.config.norm_eps == 0.0 and norm_epses(other) == {0.0}
    options = TrainOptions(steps=5)
    optimizer = options.make_optimizer(other.named_parameters())
    save_checkpoint(tmp_path / "checkpoint.npz", other, optimizer, options, 3)
    again = make_model(seed=2)  # as the same command makes it that began the run
    assert restore(tmp_path / "checkpoint.npz", again, optimizer, options) == 3
    assert again.config == other.config and norm_epses(again) == {0.0}


def test_other_classes_start_afresh(fpn, tmp_path):
    save(tmp_path / "weights.safetensors", fpn[1])
    model = make_model(seed=1, num_classes=3)
    before = {name: array.copy() for name, array in model.arrays().items()}
    left = initialize(model, tmp_path / "weights.safetensors")
    assert list_parts(left, before) == "box_head.class_logits, box_head.box_deltas, mask_head.logits"
    for name, array in model.arrays().items():
        assert np.array_equal(array, before[name] if name in left else fpn[0].arrays()[name])
    with pytest.raises(DataError, match="weights.safetensors: .* do not fit"):
        initialize(make_model(backbone="resnet34"), tmp_path / "weights.safetensors")
    parts = list_parts(initialize(make_model(seed=1, **V2), tmp_path / "weights.safetensors"), before)
    assert "box_head" in parts and "backbone" not in parts


def test_a_model_on_c4_is_taken_to_be_as_published():
    """Which names and shapes do not tell: how many proposals, of how large crops."""
    config = assume_config(state_of(make_model(**C4)))
    assert (config.rpn_pre_nms_top_n_test, config.rpn_post_nms_top_n_test, config.mask_pool_size) == (6000, 300, 14)


@pytest.mark.parametrize("fields", [{"backbone": "resnet18"}, {"backbone": "resnet34", "norm": "group"}])
def test_a_model_of_another_backbone_is_refused(tmp_path, fields):
    """All arrays of a ResNet-18 are in a ResNet-34, under the same names and of the same shapes."""
    make_model(backbone="resnet34").save(tmp_path / "model.npz")
    model = make_model(**fields)
    before = {name: array.copy() for name, array in model.arrays().items()}
    with pytest.raises(DataError, match="its backbone is resnet34 with frozen_batch norm, wanted resnet"):
        initialize(model, tmp_path / "model.npz")
    assert all(np.array_equal(array, before[name]) for name, array in model.arrays().items())


def test_a_model_from_its_weights(fpn, tmp_path):
    save(tmp_path / "weights.npz", fpn[1])
    model = load_model(tmp_path / "weights.npz", class_names=("background", "a", "b", "c"), min_size=64)
    assert_same(model.arrays(), fpn[0].arrays())
    assert model.config.class_names[3] == "c" and model.config.min_size == 64 and not model.training
    assert not is_ours(tmp_path / "weights.npz") and not is_ours(tmp_path / "none.npz")
    model.save(tmp_path / "model.npz")
    assert is_ours(tmp_path / "model.npz")
    save(tmp_path / "body.npz", classifier(fpn)[0])
    with pytest.raises(DataError, match=r"body.npz: this is a classifier \(resnet18\), wanted a detector"):
        load_model(tmp_path / "body.npz")


@pytest.mark.parametrize(
    "fields, wanted",
    [
        ({}, True),
        ({"norm": "batch", "backbone": "resnext101_32x8d", "num_classes": 3}, True),
        ({"mask_head": None}, True),
        (published.V2, True),
        ({**published.V2, "norm": "frozen_batch"}, False),
        ({"norm": "group"}, False),
        ({"pyramid_channels": 64}, False),
        ({"backbone": "vgg16"}, False),
        ({"mask_head": "mlp"}, False),
        ({"mask_loss": "agnostic"}, False),
        ({"aspect_ratios": (1.0,)}, False),
        (published.ON_C4, False),
    ],
)
def test_architectures_of_torchvision(fields, wanted):
    assert is_torchvisions(Config(**fields)) == wanted


def test_categories_of_coco():
    assert len(COCO_NAMES) == len(COCO_CATEGORY_IDS) == 91
    assert len(set(COCO_NAMES) - {"N/A", "__background__"}) == 80 and COCO_NAMES.count("N/A") == 10
    assert [COCO_NAMES[number] for number in (1, 13, 18, 62, 90)] == [
        "person",
        "stop sign",
        "dog",
        "chair",
        "toothbrush",
    ]
    assert all(category == label for label, category in enumerate(COCO_CATEGORY_IDS) if label)
