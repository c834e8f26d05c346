"""The trace is what the model computed, to the bit; its numbers are the textbook's; and the page holds nothing else."""

import base64
import html.parser
import io
import json
import re
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minimrcnn import Config, MaskRCNN, geometry, reference
from minimrcnn.cli import main
from minimrcnn.explain import cuts, make_page, pictures, tell, trace_picture
from minimrcnn.explain.follow import tell_anchor, tell_level, tell_move
from minimrcnn.explain.page import to_script
from minimrcnn.explain.trace import suppress
from minimrcnn.show import PALETTE

SMALL = {
    "num_classes": 4, "backbone": "resnet18", "norm": "group", "pyramid_channels": 16, "min_size": None,
    "anchor_sizes": (8, 16, 32, 64, 128), "box_head_channels": 16, "mask_head_channels": (16,),
    "rpn_post_nms_top_n_test": 60, "box_detections_per_img": 12,
    "class_names": ("background", "square", "disc", "triangle"),
}  # fmt: skip
ON_C4 = {"pyramid": "c4", "box_head_fcs": 0, "mask_head_channels": (), "mask_upsample_channels": 16}
KINDS = {
    "pyramid": {},
    "resized": {"min_size": 80, "max_size": 100},
    "pool": {"roi_operation": "pool"},
    "warp": {"roi_operation": "warp", "roi_mode": "max"},
    "adaptive": {"roi_sampling_ratio": 0, "roi_aligned": True},
    "agnostic": {"mask_loss": "agnostic"},
    "softmax": {"mask_loss": "softmax", "class_names": ()},
    "boxes only": {"mask_head": None},
    "mlp": {"mask_head": "mlp", "mask_mlp_channels": (16,)},
    "c4": {**ON_C4, "box_pool_size": 14},
    "c5": {"pyramid": "c5", "anchor_sizes": (16, 64), "p6": "m5"},
}
SCORE = 0.2  # an untrained network gives each of four classes about a quarter


def draw_picture(height=70, width=90, seed=0):
    generator = np.random.default_rng(seed)
    picture = generator.integers(0, 60, (height, width, 3)).astype(np.uint8)
    picture[height // 4 : height // 2, width // 3 : width // 2] += 150
    return picture


def make_model(kind="pyramid", **fields):
    return MaskRCNN(**{**SMALL, **KINDS[kind], **fields}, seed=1).eval()


@pytest.fixture(scope="module")
def traces():
    """A model of each kind, the picture's trace, and what the page is told; made when first asked for."""
    made = {}

    def get(kind):
        if kind not in made:
            model = make_model(kind)
            traced = trace_picture(model, draw_picture(), SCORE)
            made[kind] = model, traced, tell(traced, "photo.png")
        return made[kind]

    return get


# ------------------------------------------------------------------------------------------- the trace and the model


@pytest.mark.parametrize("kind", KINDS)
def test_the_trace_is_what_predict_does(kind, traces):
    model, traced, _ = traces(kind)
    (found,) = model.predict([draw_picture()], score_thresh=SCORE)
    assert len(found) > 2, "nothing to compare"
    same = np.testing.assert_array_equal
    for name in ("boxes", "labels", "scores"):
        same(getattr(traced.detections, name), getattr(found, name))
    same(traced.proposals, traced.rpn.boxes[traced.rpn.kept[: len(traced.proposals)]])
    assert len(traced.proposals) == min(len(traced.rpn.kept), model.config.rpn_post_nms_top_n_test)
    same(traced.class_scores[traced.rows, found.labels], found.scores)
    scale = np.float32([90 / traced.image_size[1], 70 / traced.image_size[0]] * 2)
    same(traced.boxes * scale, found.boxes)
    again = traced.box_deltas[traced.rows, found.labels]
    again = geometry.decode_boxes(again, traced.proposals[traced.rows], model.config.bbox_reg_weights)
    same(geometry.clip_boxes(again, traced.image_size), traced.boxes)
    if model.mask_head is None:
        assert found.masks is None and traced.masks is None and traced.class_masks is None
    else:
        same(traced.detections.masks, found.masks)
        same(geometry.paste_masks_bool(traced.masks, found.boxes, (70, 90)), found.masks)
        labels = found.labels if traced.class_masks.shape[3] > 1 else np.zeros(len(found), int)
        same(traced.class_masks[np.arange(len(found)), :, :, labels], traced.masks)


def test_every_proposal_is_an_anchor_that_moved(traces):
    _, traced, _ = traces("pyramid")
    for box, level, row in zip(traced.rpn.boxes, traced.rpn.groups, traced.rpn.rows, strict=True):
        moved = reference.decode_box(traced.deltas[level][row], traced.anchors[level][row])
        np.testing.assert_allclose(box, reference.clip_box(moved, traced.image_size), atol=1e-3)


def test_tracing_leaves_the_model_as_it_was():
    model = make_model().train()
    before = {name: array.copy() for name, array in model.arrays().items()}
    trace_picture(model, draw_picture(), SCORE)
    assert model.training
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(array, before[name])


boxes_drawn = st.lists(
    st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 8)] * 2, st.integers(0, 5), st.integers(0, 1)), max_size=12
)


@given(boxes_drawn, st.sampled_from([0.0, 0.3, 0.5, 1 / 3]))
def test_who_was_dropped_for_whom_is_the_textbooks(rows, threshold):
    rows = np.array(rows, np.float32).reshape(-1, 6)
    boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
    scores, groups = rows[:, 4] / 5, rows[:, 5].astype(int)
    nms = suppress(boxes, scores, groups, np.arange(len(rows)), threshold)
    expected = []
    for group in (0, 1):
        members = np.flatnonzero(groups == group)
        kept = members[reference.nms(boxes[members], scores[members], threshold)]
        expected += kept.tolist()
        for i in members:
            iou = geometry.box_iou(boxes[[i]], boxes[kept])[0].astype(float)
            first = next((k for k, overlap in zip(kept, iou, strict=True) if overlap > threshold and k != i), None)
            if i in kept:
                assert nms.winners[i] == -1 and nms.overlaps[i] == 0
            else:
                assert nms.winners[i] == first and nms.overlaps[i] == iou[kept == first][0] > threshold
    assert sorted(nms.kept) == sorted(expected)
    assert (np.diff(nms.scores[nms.kept]) <= 0).all()


# --------------------------------------------------------------------------------------------- RoIs and the textbook

sides = st.tuples(st.floats(-10, 200), st.floats(0, 150))


@given(sides, sides, st.integers(1, 7), st.sampled_from([4, 16, 32]), st.integers(0, 3), st.booleans())
def test_samples_and_cells_are_the_textbooks(x, y, size, stride, ratio, aligned):
    roi = np.float32([x[0], y[0], x[0] + x[1], y[0] + y[1]])
    config = make_config(roi_sampling_ratio=ratio, roi_aligned=aligned)
    cut = cuts.lay_cut(roi, (9, 11), size, stride, config)
    for side, found, edges in ((1, cut.rows, cut.edges[0]), (0, cut.columns, cut.edges[1])):
        start = roi[side] / stride - 0.5 * aligned
        length = (roi[side + 2] - roi[side]) / stride
        length = length if aligned else max(length, 1)
        np.testing.assert_allclose(edges, start + np.arange(size + 1) * length / size, atol=1e-3)
        if ratio == 0 and abs(length / size - round(length / size)) < 1e-4:
            continue  # whether a bin of just 2 cells has 2 samples or 3 is float32's to say
        wanted = reference.sample_points(roi[side], roi[side + 2], size, 1 / stride, ratio, aligned)
        np.testing.assert_allclose(found, wanted, atol=1e-3)
    for rule, sides in cut.pooled.items():
        for side, cells, whole in ((1, 9, sides[0]), (0, 11, sides[1])):
            wanted = reference.bin_cells(roi[side] / stride, roi[side + 2] / stride, size, rule)
            clipped = [[min(max(end, 0), cells) for end in (some.start, some.stop)] for some in wanted]
            assert [list(found) for found in whole.bins] == clipped
    assert cut.to_pixels(cut.rows[0][0] if cut.rows[0] else 0) == (
        pytest.approx(((cut.rows[0][0] if cut.rows[0] else 0) + 0.5 * aligned) * stride)
    )


def make_config(**fields):
    return Config(**{**SMALL, **fields})


def test_both_roundings_of_the_article():
    """665 pixels at stride 32: 20.78 -> 20 cells, 20 / 7 = 2.857 -> 2; the other rule has 22 cells and drops none."""
    cut = cuts.lay_cut([0, 0, 665, 665], (30, 30), 7, 32, make_config())
    told, caffe = cut.pooled["floor"][0], cut.pooled["caffe"][0]
    assert (told.size, told.bins[-1]) == (20, (12, 14)) and (caffe.size, caffe.bins[-1][1]) == (22, 22)
    assert cut.edges[0][1] == pytest.approx(2.96875)


@pytest.mark.parametrize("kind", ["pyramid", "warp", "adaptive", "c4", "pool", "resized"])
def test_the_bin_that_is_told_adds_up(kind, traces):
    model, traced, story = traces(kind)
    for d, told in enumerate(story["followed"]):
        for cut, crop in zip(told["cuts"], (traced.box_crops[traced.rows[d]], traced.mask_crops[d]), strict=True):
            place = cut["bin"]
            value = crop[place["row"], place["column"], place["channel"]]
            assert place["value"] == pytest.approx(value, abs=1e-4) and abs(value) == np.abs(crop).max()
            if kind == "pool":
                top, bottom, left, right = place["cells"]
                features = traced.levels[cut["level"].lower()]
                assert features[top:bottom, left:right, place["channel"]].max() == value
                continue
            samples = [sample["value"] for sample in place["samples"]]
            assert value == pytest.approx(max(samples) if kind == "warp" else np.mean(samples), abs=2e-3)
            for sample in place["samples"]:
                assert sum(weight for *_, weight, _ in sample["corners"]) == pytest.approx(1, abs=3e-3)
                mixed = sum(weight * corner for *_, weight, corner in sample["corners"])
                assert mixed == pytest.approx(sample["value"], abs=0.02)


@given(
    st.tuples(*[st.floats(-3, 6)] * 4),
    st.tuples(*[st.floats(5, 60)] * 4),
    st.sampled_from([(1, 1, 1, 1), (10, 10, 5, 5)]),
)
def test_moves_are_the_textbooks(deltas, sides, weights):
    start = np.float32([sides[0], sides[1], sides[0] + sides[2], sides[1] + sides[3]])
    told = tell_move(start, np.float32(deltas), weights, (100, 120))
    wanted = reference.decode_box(np.float32(deltas), start, weights)
    np.testing.assert_allclose(told["moved"], wanted, rtol=1e-4, atol=0.02)
    np.testing.assert_allclose(told["end"], reference.clip_box(wanted, (100, 120)), atol=0.1)
    assert told["clipped"] or told["moved"] == told["end"]
    for step, delta, weight in zip(told["steps"], deltas, weights, strict=True):
        assert step["delta"] == pytest.approx(delta / weight, abs=1e-4)
        grown = np.exp(min(delta / weight, np.log(1000 / 16)))
        moves = step["name"] in ("dx", "dy")
        result = step["before"] + delta / weight * step["span"] if moves else step["before"] * grown
        assert step["after"] == pytest.approx(result, rel=2e-3, abs=0.02)


@pytest.mark.parametrize("side", [0, 1, 56, 111, 112, 223.9999, 224, 447, 448, 896])
def test_levels_are_the_textbooks(side, traces):
    _, traced, _ = traces("pyramid")
    told = tell_level(traced, "proposal", np.float32([0, 0, side, side]))
    assert told["name"] == f"P{reference.assign_level([0, 0, np.float32(side), np.float32(side)])}"
    if side:
        assert told["exact"] == pytest.approx(4 + np.log2(side / 224), abs=1e-3)


@pytest.mark.parametrize("kind", ["pyramid", "c4", "c5"])
def test_the_anchor_that_is_told_stands_in_its_cell(kind, traces):
    """Of any proposal: those of P6 have steps of their own where the photo is not a multiple of its stride."""
    model, traced, story = traces(kind)
    for row in range(len(traced.proposals)):
        anchor = tell_anchor(traced, row)
        features = traced.levels[anchor["name"].lower()]
        (cell,) = [other for other in anchor["cell"] if other["own"]]
        expected = reference.make_anchors(anchor["side"], [anchor["ratio"]], (1, 1), (1, 1))[0]
        corner = np.array([anchor["column"], anchor["row"]] * 2) * (anchor["step"][::-1] * 2)
        assert anchor["row"] < features.shape[0] and anchor["column"] < features.shape[1]
        np.testing.assert_array_equal(anchor["box"], expected + corner)
        assert cell["box"] == anchor["box"] == anchor["move"]["start"]
        assert anchor["move"]["end"] == pytest.approx(traced.proposals[row], abs=0.006)
    for told in story["followed"]:
        assert told["anchor"]["move"]["end"] == told["proposal"]["box"] == told["move"]["start"]
        assert told["move"]["end"] == told["box"]


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


@pytest.mark.parametrize("kind", ["pyramid", "resized", "c5"])
def test_the_maps_and_anchors_that_are_told_are_the_traces(kind, traces):
    _, traced, story = traces(kind)
    assert [told["stride"] for told in story["maps"]] == [4, 8, 16, 32]
    maps = [*traced.maps.values(), *traced.levels.values()]
    for told, features in zip(story["maps"] + story["levels"], maps, strict=True):
        limits = np.percentile(np.abs(features).mean(axis=2), (1, 99))
        np.testing.assert_allclose([told["low"], told["high"]], limits, atol=1e-3)
        strongest = features.std(axis=(0, 1), dtype=np.float64)[[channel["number"] for channel in told["strongest"]]]
        np.testing.assert_allclose(strongest, np.sort(features.std(axis=(0, 1)))[::-1][:4], rtol=1e-4)
    for told, logits in zip(story["objectness"], traced.logits, strict=True):
        assert told["highest"] == pytest.approx(sigmoid(logits).max(), abs=1e-3)
        assert told["above_half"] == (logits > 0).sum() and told["anchors"] == len(logits)
    everything, fired = np.concatenate(traced.logits), story["fired"]
    assert fired["total"] == len(everything) and fired["above_half"] == (everything > 0).sum()
    scores = np.sort(sigmoid(everything))[::-1][: len(fired["anchors"])]
    np.testing.assert_allclose([told["score"] for told in fired["anchors"]], scores, atol=1e-3)
    for told in fired["anchors"]:
        same = np.abs(traced.anchors[told["level"]] - told["box"]).max(axis=1) < 0.01
        assert sigmoid(traced.logits[told["level"]][same]).max() >= told["score"] - 1e-3
    if kind != "c5":
        levels = [reference.assign_level(box) for box in traced.proposals]
        assert story["heads"]["cut"] == [levels.count(level) for level in (2, 3, 4, 5)]


def test_who_lost_to_whom_is_told_by_rank():
    traced = trace_picture(make_model(rpn_nms_thresh=0.3), draw_picture(), SCORE)
    story, nms = tell(traced, "photo.png"), traced.rpn
    order = np.argsort(-nms.scores, kind="stable")
    assert any(step["winner"] is not None for step in story["nms"]["steps"])
    for rank, (step, i) in enumerate(zip(story["nms"]["steps"], order, strict=False)):
        if nms.winners[i] < 0:
            assert step["winner"] is None
        else:
            assert step["winner"] < rank and order[step["winner"]] == nms.winners[i]
    dropped = 0
    for told, row in zip(story["followed"], traced.rows, strict=True):
        proposal, logits = told["proposal"], np.concatenate(traced.logits)
        assert proposal["rank"] == row + 1 and proposal["dropped"] == (nms.winners == nms.kept[row]).sum()
        scores = [loser["score"] for loser in proposal["losers"]]
        assert scores == sorted(scores, reverse=True) and len(scores) == min(proposal["dropped"], 12)
        assert told["anchor"]["rank"] == 1 + (logits > nms.scores[nms.kept[row]]).sum()
        dropped = max(dropped, len(scores))
    assert dropped > 1, "nothing to compare"


@pytest.mark.parametrize("kind", ["pyramid", "resized", "softmax"])
def test_pixel_mask_and_color_of_a_detection(kind, traces):
    _, traced, story = traces(kind)
    height, width = traced.picture.shape[:2]
    for d, told in enumerate(story["followed"]):
        pixel, paste, box = told["pixel"], told["paste"], traced.detections.boxes[d]
        if kind != "resized":
            assert pixel["values"] == pytest.approx(traced.picture[pixel["y"], pixel["x"]].tolist(), abs=0.1)
        margin = (box[2:] - box[:2]).astype(float) / paste["side"]  # the mask's own border
        ends = *np.floor(box[:2] - margin).clip(0), *np.ceil(box[2:] + margin).clip(0, (width, height))
        assert paste["region"] == list(ends)
        ratio = np.tile([traced.image_size[1] / width, traced.image_size[0] / height], 2)
        np.testing.assert_allclose(paste["area"], paste["region"] * ratio, atol=0.01)
        assert paste["share"] == pytest.approx(paste["pixels"] / max(np.prod(box[2:] - box[:2]), 1), abs=1e-3)
        assert [mask["own"] for mask in told["masks"]] == [True] + [False] * (len(told["masks"]) - 1)
        number = d if kind == "softmax" else told["label"] - 1  # where classes have no names, each has its own color
        assert told["color"] == "#" + bytes(PALETTE[number % len(PALETTE)]).hex()


# ------------------------------------------------------------------------------------------------------------ the page


class Checker(html.parser.HTMLParser):
    """Tags that open and close in order, ids that occur once, and every address."""

    EMPTY = {"meta", "img", "image", "rect", "input", "br", "link"}

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.addresses, self.scripts, self.title = [], [], [], 0, ""

    def handle_starttag(self, tag, attributes):
        if tag not in self.EMPTY:
            self.open.append(tag)
        self.scripts += tag == "script"
        for name, value in attributes:
            assert not name.startswith("on"), (tag, name)
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "action", "data", "poster", "xlink:href"):
                self.addresses.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "title":
            self.title += data


def check_page(page):
    """Well-formed, alone in the world, small; returns the parser and the numbers."""
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert not checker.open and len(set(checker.ids)) == len(checker.ids) and checker.scripts == 2
    assert all(address.startswith(("#", "data:image/")) for address in checker.addresses)
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\((?!#)", page)
    assert len(page) < 10e6
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return checker, json.loads(data)


@pytest.mark.parametrize("kind", KINDS)
def test_pages_of_all_kinds_are_well_formed(kind, traces):
    _, traced, story = traces(kind)
    _, numbers = check_page(make_page(story))
    assert numbers == json.loads(json.dumps({name: value for name, value in story.items() if name != "photo"}))
    assert len(numbers["followed"]) == numbers["found"] == len(traced.detections)
    for told in numbers["followed"]:
        assert ("masks" in told) == ("paste" in told) == (kind != "boxes only")
        assert len(told.get("masks", [])) == {"boxes only": 0, "agnostic": 1, "softmax": 4}.get(kind, 3)
        assert len(told["cuts"]) == (1 if kind == "boxes only" else 2)
        assert sum(row["score"] for row in told["classes"]["rows"]) == pytest.approx(1, abs=1e-3)


NASTY = '</script><script>alert("1")</script><img src=x onerror=alert(1)>&amp;@@data@@\u2028'


def test_names_cannot_become_markup():
    model = make_model(class_names=("background", NASTY, "<!--", "]]>"))
    page = make_page(tell(trace_picture(model, draw_picture(), SCORE), NASTY))
    checker, numbers = check_page(page)
    assert numbers["name"] == NASTY and NASTY in checker.title
    assert {told["name"] for told in numbers["followed"]} <= {NASTY, "<!--", "]]>"}
    assert "onerror" not in "".join(checker.addresses)


@given(st.text())
def test_a_script_element_cannot_be_left(text):
    written = to_script({text: [text]})
    assert not set("<>&") & set(written) and written.isascii() and json.loads(written) == {text: [text]}


def test_nothing_found():
    model = make_model()
    story = tell(trace_picture(model, draw_picture(), 1.0), "empty.png")
    assert story["found"] == 0 and story["followed"] == []
    scores = model_scores(model)
    assert story["best"]["score"] == pytest.approx(scores[:, 1:].max(), abs=1e-3)
    assert story["best"]["name"] == SMALL["class_names"][scores[:, 1:].max(axis=0).argmax() + 1]
    assert story["nms"]["proposals"] == len(scores)
    check_page(make_page(story))


def model_scores(model):
    return trace_picture(model, draw_picture(), SCORE).class_scores


def test_no_proposals_at_all():
    story = tell(trace_picture(make_model(rpn_post_nms_top_n_test=0), draw_picture(), SCORE), "none.png")
    assert story["found"] == 0 and story["best"] is None and story["nms"]["proposals"] == 0
    check_page(make_page(story))


def test_a_network_that_diverged_still_has_a_page():
    model = make_model()
    for array in model.arrays().values():
        array[...] = np.nan
    with np.errstate(invalid="ignore"):
        story = tell(trace_picture(model, draw_picture(), SCORE), "nan.png")
    assert story["found"] == 0
    check_page(make_page(story))


@pytest.mark.parametrize("size", [(1, 1), (300, 3), (33, 64)])
def test_odd_photos(size):
    picture = draw_picture(70, 90)[: size[0], : size[1]] if size[0] < 70 else np.full((*size, 3), 9, np.uint8)
    story = tell(trace_picture(make_model(), picture, SCORE), "odd.png")
    assert story["sizes"]["photo"] == list(picture.shape[:2])
    check_page(make_page(story))


def test_a_photo_of_twelve_megapixels_is_scaled_down():
    """Of noise, which no format packs: the largest page a photo can make."""
    picture = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), dtype=np.uint8)
    model = make_model("resized", min_size=240, max_size=320, box_detections_per_img=4)
    story = tell(trace_picture(model, picture, SCORE), "large.jpg")
    assert story["found"] == 4 and story["photo_scale"] == pytest.approx(1280 / 4000)
    check_page(make_page(story))


def test_no_more_are_followed_than_a_page_can_hold():
    picture = np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8)
    model = make_model(num_classes=30, class_names=(), box_detections_per_img=70, box_nms_thresh=0.9)
    story = tell(trace_picture(model, picture, 0.0), "crowd.png")
    assert story["found"] == 70 and len(story["followed"]) == 60
    assert all(len(told["masks"]) == 10 for told in story["followed"])
    for told in (told["classes"] for told in story["followed"]):
        assert any(row["name"] == "background" for row in told["rows"]) and len(told["rows"]) + told["others"] == 30
        assert sum(row["score"] for row in told["rows"]) + told["rest"] == pytest.approx(1, abs=2e-3)
    check_page(make_page(story))


def test_heat_maps_are_reduced_and_their_ends_are_dark_and_bright():
    values = np.zeros((600, 900))
    values[300, 450] = 1  # a single bright cell must not vanish
    image = decode(pictures.heat_uri(values, 0, 1))
    assert max(image.size) <= pictures.MOST_CELLS
    colors = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert (colors == pictures.PALETTE[0]).all(axis=1).sum() == len(colors) - 1
    assert (colors == pictures.PALETTE[255]).all(axis=1).sum() == 1
    over = np.asarray(decode(pictures.heat_uri(values, 0, 1, over=True)).convert("RGBA"))
    assert over[0, 0, 3] == 0 and over[:, :, 3].max() == pictures.OPACITY[-1]


def test_masks_are_tinted_with_an_outline():
    mask = np.zeros((20, 30), bool)
    mask[5:15, 5:25] = True
    drawn = np.asarray(decode(pictures.mask_uri(mask, (10, 200, 30), 1)).convert("RGBA"))
    assert (drawn[:, :, 3] > 0).sum() == 200 and drawn[0, 0, 3] == 0
    assert drawn[5, 5].tolist() == [10, 200, 30, 255] and 0 < drawn[10, 10, 3] < 255


def decode(uri):
    kind, _, text = uri.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(text)))


# WCAG 2.2, success criterion 1.4.3: text has a contrast of at least 4.5 to 1 with its ground.
PAIRS = [
    *(("ink", "ground"), ("ink", "card"), ("ink", "code"), ("ink", "accent-ground")),
    *(("soft", "ground"), ("soft", "card"), ("soft", "accent-ground")),
    *(("accent", "ground"), ("accent", "accent-ground"), ("accent", "code")),
]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read(scheme):
    style = files("minimrcnn.explain").joinpath("page.css").read_text(encoding="utf-8")
    colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", style.split(":root {")[1 + scheme].partition("}")[0]))
    for text, ground in PAIRS:
        light, dark = sorted((luminance(colors[text]), luminance(colors[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def luminance(color):
    values = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


# ------------------------------------------------------------------------------------------------------ command line


def test_the_command_leaves_a_page(tmp_path, capsys):
    make_model().save(tmp_path / "model.npz")
    Image.fromarray(draw_picture()).save(tmp_path / "a <b>.png")
    arguments = ["explain", tmp_path / "a <b>.png", "--model", tmp_path / "model.npz", "--score", SCORE]
    assert main([*map(str, arguments), "-o", str(tmp_path / "new" / "page.html")]) == 0
    assert "12 found" in capsys.readouterr().out
    checker, numbers = check_page((tmp_path / "new" / "page.html").read_text(encoding="utf-8"))
    assert "a <b>.png" in checker.title and numbers["found"] == 12
    assert main([*map(str, arguments), "-o", str(tmp_path / "page.png")]) == 2
    assert ".html" in capsys.readouterr().err and not (tmp_path / "page.png").exists()
    assert main(["explain", str(tmp_path / "model.npz"), *map(str, arguments[2:]), "-o", str(tmp_path / "p.html")]) == 2
    assert "model.npz" in capsys.readouterr().err
