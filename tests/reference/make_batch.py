"""Writes batch.json and batch.npz beside this file: torchvision's answers for pictures of different sizes in one batch.

``pip install 'minimrcnn[reference]' && python -m tests.reference.make_batch``. What only such a batch shows is in it:
each picture's own scale, the padding to a common size and the way back from it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.published import make_weight

SIZES = (90, 141), (150, 110), (128, 160)  # height and width of each picture
SETTINGS = {"min_size": 128, "max_size": 180}  # scales 1.277, 1.164 and 1; the batch is padded to 192x192
KEPT = 40  # detections of a picture, best first
FOLDER = Path(__file__).parent


def make_pictures() -> list[np.ndarray]:
    """Noise on large soft patches, uint8 (H, W, 3)."""
    rng = np.random.default_rng(4)
    pictures = []
    for height, width in SIZES:
        coarse = np.kron(rng.uniform(0, 200, (height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1)))
        pictures.append((coarse[:height, :width] + rng.uniform(0, 55, (height, width, 3))).astype(np.uint8))
    return pictures


def main() -> None:
    import torch
    import torchvision
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    torch.set_num_threads(1)
    model = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, box_score_thresh=0.0, box_detections_per_img=KEPT, **SETTINGS
    )
    names = json.loads((FOLDER / "model_names.json").read_text())
    weights = {name: np.asarray(make_weight(name, shape), np.float32) for name, shape in names.items()}
    missing = model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=False)
    assert not missing.unexpected_keys and all("num_batches" in name for name in missing.missing_keys)
    model.eval()
    pictures = make_pictures()
    tensors = [torch.from_numpy(picture).permute(2, 0, 1).float() / 255 for picture in pictures]
    arrays: dict[str, np.ndarray] = {}
    with torch.no_grad():
        batch, _ = model.transform(tensors)
        pyramid = model.backbone(batch.tensors)
        found = model(tensors)
    for level, features in zip(range(2, 7), pyramid.values(), strict=True):
        features = features.permute(0, 2, 3, 1).numpy()
        arrays[f"p{level}_shape_int64"] = np.array(features.shape)
        arrays[f"p{level}_mean"] = features.mean(axis=(1, 2))
        arrays[f"p{level}_crop"] = features[:, -3:, -4:, :16]  # the far corner, where the padding is
    for number, (picture, answer) in enumerate(zip(pictures, found, strict=True)):
        arrays[f"picture_{number}_uint8"] = picture
        arrays[f"boxes_{number}"] = answer["boxes"].numpy()
        arrays[f"scores_{number}"] = answer["scores"].numpy()
        arrays[f"labels_{number}_int64"] = answer["labels"].numpy()
        arrays[f"masks_{number}_uint8"] = np.packbits(answer["masks"][:3, 0].numpy() >= 0.5)
    case = {"op": "maskrcnn_resnet50_fpn_batch", "case": 0, "params": SETTINGS, "arrays": sorted(arrays)}
    listing = {"torch": torch.__version__, "torchvision": torchvision.__version__, "cases": [case]}
    (FOLDER / "batch.json").write_text(json.dumps(listing, indent=1) + "\n")
    np.savez_compressed(FOLDER / "batch.npz", **{f"{case['op']}/0/{name}": array for name, array in arrays.items()})


if __name__ == "__main__":
    main()
