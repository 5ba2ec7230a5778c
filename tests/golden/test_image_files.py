"""Released detectors by the command line: an image file in, mmdetection 1.1's result file out.

The reference is a detector whose maps and detections equal the published ones (test_detectors),
given the input that mmdetection's pipeline makes of the file, written out here.
"""

from __future__ import annotations

import json
from pathlib import Path

import lookalikes
import numpy as np
import pytest
import torch
from golden.scheme import Case
from golden.test_detectors import spec_of
from parity.test_pixels import opencv_resize, picture
from PIL import Image

from sepcbench.checkpoints.mmdet import rename_detector
from sepcbench.cli.app import run
from sepcbench.detectors import build

HEIGHT, WIDTH = 90, 127
SIDES = ("--set", "short_side=300", "--set", "long_side=384")
SCALE, RESIZED, PADDED = 384 / 127, (272, 384), (288, 384)
# ids with gaps, and not in the order of the labels
CATEGORIES = {f"class {label}": 200 - 2 * label for label in range(80)}


def write_set(folder: Path) -> None:
    (folder / "annotations").mkdir()
    (folder / "val").mkdir()
    Image.fromarray(picture(HEIGHT, WIDTH)).save(folder / "val" / "picture.png")
    document = {
        "images": [{"id": 9, "file_name": "picture.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": key, "name": name} for name, key in CATEGORIES.items()],
        "annotations": [],
    }
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(document))


def network_input() -> torch.Tensor:
    """Resized bytes, normalised RGB, zeros to a multiple of 32: (1, 3, 288, 384)."""
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    padded = np.zeros((*PADDED, 3), np.float32)
    padded[: RESIZED[0]] = (opencv_resize(picture(HEIGHT, WIDTH), RESIZED) - mean) / std
    return torch.from_numpy(padded).permute(2, 0, 1)[None]


@pytest.mark.parametrize("name", ["fsaf_pconv", "retina_sepc"])
def test_image_file_to_detections_file(name: str, tmp_path: Path) -> None:
    case, spec = Case(f"e2e11/{name}"), spec_of(name)
    write_set(tmp_path)
    checkpoint = tmp_path / "epoch_12.pth"
    about = lookalikes.meta(CLASSES=tuple(CATEGORIES))
    lookalikes.save_mmdet(checkpoint, case.params, about)
    out = tmp_path / "detections.json"
    call = ["eval", str(checkpoint), "--data", str(tmp_path), "--variant", spec.name, *SIDES]
    assert run([*call, "--save-detections", str(out), "--format", "json"]) == 0
    checkpoint.unlink()

    detector = build(spec, init=False).eval()
    detector.load_state_dict(rename_detector(case.params))
    with torch.no_grad():
        outputs = detector(network_input())
    (wanted,) = detector.decode(outputs, [RESIZED], [SCALE], PADDED)
    written = json.loads(out.read_text())
    assert len(written) == len(wanted.boxes) == 100
    assert {item["image_id"] for item in written} == {9}
    labels = [(200 - item["category_id"]) // 2 for item in written]
    assert labels == wanted.labels.tolist()
    found = torch.tensor([[*item["bbox"], item["score"]] for item in written])
    np.testing.assert_allclose(found[:, 4], wanted.scores, atol=2e-4)
    np.testing.assert_allclose(found[:, :2], wanted.boxes[:, :2], atol=0.02)
    sides = wanted.boxes[:, 2:] - wanted.boxes[:, :2] + 1  # whole pixels, both ends counted
    np.testing.assert_allclose(found[:, 2:4], sides, atol=0.02)
