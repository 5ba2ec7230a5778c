"""Images per second beside a plain loop and torchvision's way, on photographs' sizes."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sepcbench.data.coco import CocoData, open_data
from sepcbench.measures.throughput import OURS, PLAIN, REFERENCE, Setting, compare
from sepcbench.specs import Recipe
from sepcbench.training.loop import train
from sepcbench.variants import variant

IMAGES = 240


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    """JPEGs of 640x480 pixels: bright rectangles on a background as uneven as a photograph."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "val").mkdir()
    (folder / "annotations").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, IMAGES + 1):
        coarse = Image.fromarray(rng.integers(0, 128, (30, 40, 3), dtype=np.uint8))
        picture = coarse.resize((640, 480), Image.Resampling.BICUBIC)
        for _ in range(int(rng.integers(1, 6))):
            width, height = (int(side) for side in rng.integers(60, 200, 2))
            x, y = int(rng.integers(0, 640 - width)), int(rng.integers(0, 480 - height))
            label = int(rng.integers(1, 4))
            colour = tuple(255 if label == channel else 40 for channel in (1, 2, 3))
            ImageDraw.Draw(picture).rectangle((x, y, x + width, y + height), fill=colour)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": label,
                 "bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}
            )  # fmt: skip
        grain = rng.normal(0, 6, (480, 640, 3))
        pixels = (np.asarray(picture) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "val" / f"{number}.jpg", quality=90)
        images.append({"id": number, "file_name": f"{number}.jpg", "width": 640, "height": 480})
    names = [{"id": label, "name": name} for label, name in enumerate(("red", "green", "blue"), 1)]
    content = {"images": images, "annotations": annotations, "categories": names}
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(content))
    return open_data(folder)


@pytest.mark.slow
def test_evaluation_is_twice_as_fast_as_usual_ways_with_the_same_ap(data: CocoData) -> None:
    """Two idle cores are enough; on a busy machine only the order of the three is looked at."""
    spec = variant("retinanet_tiny_fpn")
    detector, _ = train(spec, data.first(60), Recipe(iterations=100))
    cores = len(os.sched_getaffinity(0))
    busy = os.getloadavg()[0] > 0.75 * cores
    speeds = {
        one.way: one
        for one in compare(Setting(detector, data, data.classes, "cpu", batch=8, workers=2))
    }
    assert speeds[OURS].ap is not None
    assert speeds[OURS].ap > 0.2
    assert speeds[PLAIN].ap == pytest.approx(speeds[OURS].ap, abs=1e-3)
    assert speeds[REFERENCE].ap == pytest.approx(speeds[OURS].ap, abs=0.05)
    print({way: (round(one.images_per_s, 1), round(one.ratio, 2)) for way, one in speeds.items()})
    idle = not busy and cores >= 2
    least = 2.0 if idle else 1.0
    for way in (PLAIN, REFERENCE):
        assert speeds[way].ratio >= least, (
            f"{speeds[way].ratio:.2f} times the images/s of {way}, wanted {least:g} "
            + (
                "on two idle cores; run it again if something else ran meanwhile"
                if idle
                else f"only, as the machine is busy or has {cores} core: 2 holds on two idle ones"
            )
        )


@pytest.mark.slow
def test_no_way_reads_the_annotation_file_on_the_clock(
    data: CocoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pycocotools import coco

    read: list[str] = []
    real = coco.COCO.__init__

    def counted(self: coco.COCO, path: str | None = None) -> None:
        read.extend([path] if path else [])
        real(self, path)

    monkeypatch.setattr(coco.COCO, "__init__", counted)
    detector, _ = train(variant("retinanet_tiny_fpn"), data.first(8), Recipe(iterations=1))
    few = Setting(detector, data.first(8), data.classes, "cpu", batch=8, workers=0)
    began: list[int] = []
    compare(few, runs=2, progress=lambda done, total, label: began.append(len(read)))
    assert began == [1] * 6
    assert len(read) == 1
