"""The whole network against torchvision's maskrcnn_resnet50_fpn on one picture: stages, losses, gradients."""

import numpy as np
import pytest

from minimrcnn import MaskRCNN, Target, trace
from tests.published import our_layout, our_name, published_arrays
from tests.reference_cases import cases, relative_error

SIZES = {"min_size": 128, "max_size": 160}


@pytest.fixture(scope="module")
def published():
    return published_arrays()


@pytest.fixture(scope="module")
def picture():
    return cases("maskrcnn_resnet50_fpn_eval", "model")[0][1]["image"]


@pytest.fixture(scope="module")
def stages(published, picture):
    """What each stage of our model made of the picture, and torchvision's values."""
    model = MaskRCNN(**SIZES, box_score_thresh=0.0)
    model.load_arrays(published)
    assert sum(parameter.size for parameter in model.parameters()) == 44_401_393
    with trace() as ours:
        model.predict([picture])
    return ours, cases("maskrcnn_resnet50_fpn_eval", "model")[0][1]


@pytest.mark.parametrize("level", ["c2", "c3", "c4", "c5", "p2", "p3", "p4", "p5", "p6"])
def test_features(stages, level):
    ours, theirs = stages
    features = ours[level][0]
    assert relative_error(features.mean(axis=(0, 1)), theirs[f"{level}_mean"]) < 1e-4
    assert relative_error(features[:4, :5, :16], theirs[f"{level}_crop"]) < 1e-4


@pytest.mark.parametrize("level", range(2, 7))
def test_rpn(stages, level):
    ours, theirs = stages
    for name in (f"rpn_logits_p{level}", f"rpn_deltas_p{level}"):
        assert relative_error(ours[name][0], theirs[name]) < 5e-4


def partners(found, boxes, labels):
    """(matched (D,), partner (D,)): which of torchvision's detections have one of ours within 0.05 pixel, and which."""
    same = (np.abs(found.boxes[None] - boxes[:, None]).max(axis=2) < 0.05) & (found.labels[None] == labels[:, None])
    return same.any(axis=1), same.argmax(axis=1)


def test_proposals_and_detections(stages):
    ours, theirs = stages
    nearest = np.abs(ours["proposals"][0][None] - theirs["proposals"][:, None]).max(axis=2).min(axis=1)  # (100,)
    assert (nearest < 0.05).mean() >= 0.97

    found = ours["detections"][0]
    matched, partner = partners(found, theirs["boxes"], theirs["labels"])
    assert matched.mean() >= 0.97
    assert np.abs(found.scores[partner] - theirs["scores"])[matched].max() < 1e-3
    for number in np.flatnonzero(matched[:4]):
        wrong = found.masks[partner[number]] != (theirs["masks"][number] > 127)
        assert wrong.mean() < 1e-3


def test_pictures_of_different_sizes(published):
    """Three pictures, each scaled by its own factor and padded to a common size, and the detections back in pixels."""
    settings, theirs = cases("maskrcnn_resnet50_fpn_batch", "batch")[0]
    model = MaskRCNN(**settings, box_score_thresh=0.0, box_detections_per_img=40)
    model.load_arrays(published)
    pictures = [theirs[f"picture_{number}"] for number in range(3)]
    with trace() as ours:
        detections = model.predict(pictures)
    for level in range(2, 7):
        features = ours[f"p{level}"]
        assert features.shape == tuple(theirs[f"p{level}_shape"])
        assert relative_error(features.mean(axis=(1, 2)), theirs[f"p{level}_mean"]) < 1e-4
        assert relative_error(features[:, -3:, -4:, :16], theirs[f"p{level}_crop"]) < 1e-4
    for number, found in enumerate(detections):
        boxes, scores, labels = (theirs[f"{name}_{number}"] for name in ("boxes", "scores", "labels"))
        matched, partner = partners(found, boxes, labels)
        assert len(found) == len(boxes) and matched.mean() >= 0.97, number
        assert np.abs(found.scores[partner] - scores)[matched].max() < 1e-3
        height, width = pictures[number].shape[:2]
        masks = np.unpackbits(theirs[f"masks_{number}"], count=3 * height * width).reshape(3, height, width)
        for one in np.flatnonzero(matched[:3]):
            assert (found.masks[partner[one]] != masks[one]).mean() < 1e-3


def test_heads_on_the_same_proposals(stages, published):
    """With torchvision's own proposals nothing depends on the order any longer."""
    from minimrcnn.tensor import Tensor, no_grad

    ours, theirs = stages
    model = MaskRCNN(**SIZES)
    model.load_arrays(published)
    pyramid = [Tensor(ours[f"p{level}"]) for level in range(2, 7)]
    with no_grad():
        crops = model.crop(pyramid, [theirs["proposals"]], 7)
        logits, deltas = model.box_head(crops)
    assert relative_error(crops.numpy()[:4, :, :, :8], theirs["box_crops"]) < 1e-4
    assert relative_error(logits.numpy(), theirs["class_logits"]) < 5e-4
    assert relative_error(deltas.numpy().reshape(100, -1), theirs["box_deltas"]) < 5e-4
    with no_grad():
        mask_logits = model.mask_head(model.crop(pyramid, [theirs["boxes"][:4]], 14))
    assert relative_error(mask_logits.numpy()[:, ::4, ::4, :6], theirs["mask_crops"]) < 1e-3


def test_losses_and_gradients(published, picture):
    parameters, arrays = cases("maskrcnn_resnet50_fpn_train", "model")[0]
    everything = 10**6  # all anchors and all RoIs are sampled
    model = MaskRCNN(
        **SIZES, rpn_batch_size_per_image=everything, box_batch_size_per_image=everything,
        rpn_positive_fraction=0.5, box_positive_fraction=0.5,
    )  # fmt: skip
    model.load_arrays(published)
    losses = model.losses([picture], [Target(arrays["gt_boxes"], arrays["gt_labels"], arrays["gt_masks"])])
    assert losses.keys() == parameters["losses"].keys()
    for name, wanted in parameters["losses"].items():
        assert losses[name].item() == pytest.approx(wanted, rel=1e-4), name
    total = sum(losses.values())
    total.backward()

    mine = model.named_parameters()
    for public, norm in parameters["grad_norms"].items():
        assert np.linalg.norm(mine[our_name(public)].grad) == pytest.approx(norm, rel=1e-3), public
    for name, wanted in arrays.items():
        if name.startswith("grad:"):
            public = name.removeprefix("grad:")
            assert relative_error(mine[our_name(public)].grad, our_layout(public, wanted)) < 1e-3, public
