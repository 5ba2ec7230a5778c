"""torchvision's RetinaNets on disk, from image files to detections, against torchvision itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from parity.test_torchvision import MODELS, check, spread
from PIL import Image
from torch import Tensor
from torchvision.models.detection import RetinaNet, RetinaNet_ResNet50_FPN_Weights

import sepcbench
from sepcbench.cli.app import run
from sepcbench.data.transforms import pad_stack, prepare, read_rgb

SIZES = [(60, 80), (120, 75), (200, 160)]
SIDES = {"short_side": 160, "long_side": 224}
CLASSES = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]


class Saved(NamedTuple):
    """A model, its state dict on disk, and the variant that the file is of."""

    theirs: RetinaNet
    path: Path
    variant: str


@pytest.fixture(scope="module", params=MODELS)
def saved(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Saved]:
    make, name, _ = MODELS[request.param]
    torch.manual_seed(0)
    theirs = spread(make(min_size=160, max_size=224))
    path = tmp_path_factory.mktemp("torchvision") / "model.pth"
    torch.save(theirs.state_dict(), path)
    yield Saved(theirs, path, name)
    path.unlink()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several sizes and an annotation file with COCO's categories and ids."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "annotations").mkdir()
    (folder / "val").mkdir()
    rng = np.random.default_rng(0)
    images = []
    for number, (height, width) in enumerate(SIZES, start=100):
        rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(rgb).save(folder / "val" / f"{number}.png")
        entry = {"id": number, "file_name": f"{number}.png", "height": height, "width": width}
        images.append(entry)
    names = ((i, name) for i, name in enumerate(CLASSES) if name not in ("__background__", "N/A"))
    document = {
        "images": images,
        "annotations": [{"id": 1, "image_id": 100, "category_id": 90, "bbox": [5, 5, 30, 30]}],
        "categories": [{"id": i, "name": name} for i, name in names],
    }
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(document))
    return folder


@torch.no_grad()
def torchvision_on(theirs: RetinaNet, path: Path) -> dict[str, Tensor]:
    """What torchvision gives for one image file."""
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
    return theirs.eval()([pixels.permute(2, 0, 1) / 255])[0]


def test_load_and_detect(saved: Saved, folder: Path) -> None:
    """No variant and no conventions are named: the file says both."""
    ours = sepcbench.load(saved.path, **SIDES)
    how = ours.spec.conventions
    assert (ours.spec.name, how.name) == (saved.variant, "torchvision")
    for path in sorted((folder / "val").iterdir()):
        item = prepare(read_rgb(path), how)
        batch = pad_stack([item.image], how.pad_divisor)
        found = ours.detect(batch, [item.size], [item.scale])
        check(found, [torchvision_on(saved.theirs, path)], atol=1e-4)


def test_eval_writes_torchvisions_detections(
    saved: Saved, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "detections.json"
    sides = [part for key, value in SIDES.items() for part in ("--set", f"{key}={value}")]
    call = ["eval", str(saved.path), "--data", str(folder), "--save-detections", str(out)]
    assert run([*call, *sides, "--format", "json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    written = json.loads(out.read_text())
    assert record["detections"] == len(written)
    for number in range(100, 103):
        mine = [item for item in written if item["image_id"] == number]
        wanted = as_coco(torchvision_on(saved.theirs, folder / "val" / f"{number}.png"))
        assert [item["category_id"] for item in mine] == [c for c, _, _ in wanted]
        assert [item["score"] for item in mine] == pytest.approx(
            [score for _, score, _ in wanted], abs=1e-4
        )
        boxes = torch.tensor([item["bbox"] for item in mine])
        torch.testing.assert_close(
            boxes, torch.tensor([box for _, _, box in wanted]), atol=1e-4, rtol=1e-4
        )


def as_coco(found: dict[str, Tensor]) -> list[tuple[int, float, list[Any]]]:
    """Category id, score and (x, y, width, height) of each box whose label is a category."""
    x1, y1, x2, y2 = found["boxes"].unbind(1)
    boxes = torch.stack([x1, y1, x2 - x1, y2 - y1], dim=1).tolist()
    triples = zip(found["labels"].tolist(), found["scores"].tolist(), boxes)
    return [item for item in triples if CLASSES[item[0]] not in ("__background__", "N/A")]
