"""How many images per second an evaluation takes, beside two usual ways to write one.

All three run the same weights on the same images and end in the twelve COCO numbers; the annotation
file is read before the clock starts, for each of them. The plain loop
does one image after the other in one process and scores with pycocotools. Torchvision's way is that
of its detection references: images as floats from a DataLoader, normalised and resized by
GeneralizedRCNNTransform, one image per batch, scored with pycocotools.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sepcbench.data.coco import CocoData, category_ids
from sepcbench.data.transforms import pad_stack, prepare, read_rgb
from sepcbench.detectors import Detections, Detector
from sepcbench.measures.accuracy import detect_all
from sepcbench.measures.result_format import Entries, coco_entries
from sepcbench.measures.scoring import score
from sepcbench.specs import Conventions

OURS, PLAIN, REFERENCE = "sepcbench", "plain loop", "torchvision's way"
Find = Callable[["Setting"], Entries]
Scorer = Callable[[CocoData, Entries], float | None]


@dataclass(frozen=True)
class Setting:
    """What all ways share; `batch` is sepcbench's alone, `workers` also torchvision's."""

    detector: Detector
    data: CocoData
    classes: Sequence[str]
    device: str
    batch: int
    workers: int


@dataclass(frozen=True)
class Speed:
    """One way: seconds to detect in all images and to score them, the best of its runs.

    `ap` is a fraction of 1, `ratio` how many times the images per second of this way sepcbench's
    way does.
    """

    way: str
    images: int
    detect_s: float
    score_s: float
    detections: int
    ap: float | None
    ratio: float

    @property
    def images_per_s(self) -> float:
        """Of detecting and scoring together."""
        return self.images / (self.detect_s + self.score_s)


def compare(
    setting: Setting, *, runs: int = 3, progress: Callable[[int, int, str], None] | None = None
) -> tuple[Speed, ...]:
    """Time each way on the whole set, in turns; sepcbench's first.

    Args:
        setting: the detector, of one stage, in any mode; it is left in eval mode on the device.
        runs: of each way; the fastest counts, as what else the machine does only adds time.
        progress: called with (done, total, label).
    """
    setting.detector.to(setting.device).eval()
    truth = _pycocotools_truth(setting.data)
    others = partial(_pycocotools_score, truth)
    scorers: dict[str, Scorer] = {OURS: _our_score, PLAIN: others, REFERENCE: others}
    taken: dict[str, list[tuple[float, float, int, float | None]]] = {way: [] for way in WAYS}
    # nothing is loaded, and no algorithm chosen, while one of them is timed
    for find in WAYS.values():
        find(_of_first(setting, 4))
    for run in range(runs):
        for place, (way, find) in enumerate(WAYS.items()):
            if progress:
                progress(run * len(WAYS) + place, runs * len(WAYS), way)
            taken[way].append(_timed(setting, find, scorers[way]))
    best = {way: min(times, key=lambda one: one[0] + one[1]) for way, times in taken.items()}
    ours = sum(best[OURS][:2])
    return tuple(
        Speed(way, len(setting.data.images), *one, ratio=(one[0] + one[1]) / ours)
        for way, one in best.items()
    )


def _of_first(setting: Setting, count: int) -> Setting:
    data = setting.data.first(count)
    return Setting(setting.detector, data, setting.classes, setting.device, 1, setting.workers)


def _timed(setting: Setting, find: Find, scorer: Scorer) -> tuple[float, float, int, float | None]:
    """Seconds to detect and to score, how many detections, AP."""
    begin = time.perf_counter()
    found = find(setting)
    between = time.perf_counter()
    ap = scorer(setting.data, found)
    return between - begin, time.perf_counter() - between, len(found), ap


# --- sepcbench -----------------------------------------------------------------------------


def _ours(setting: Setting) -> Entries:
    return detect_all(
        setting.detector,
        setting.data,
        setting.classes,
        device=setting.device,
        batch=setting.batch,
        workers=setting.workers,
    )


def _our_score(data: CocoData, found: Entries) -> float | None:
    return score(data, found, variant="", resamples=0, finer=False).ap


# --- a plain loop --------------------------------------------------------------------------


def _plain(setting: Setting) -> Entries:
    detector, how = setting.detector, setting.detector.spec.conventions
    ids = category_ids(setting.data, setting.classes)
    found: Entries = []
    for entry in setting.data.images:
        item = prepare(read_rgb(setting.data.path(entry)), how)
        images = pad_stack([item.image], how.pad_divisor).to(setting.device)
        (result,) = detector.detect(images, [item.size], [item.scale])
        found += coco_entries(entry.id, result, ids, how.export_offset)
    return found


def _pycocotools_truth(data: CocoData) -> Any:
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(data.annotations))


def _pycocotools_score(truth: Any, data: CocoData, found: Entries) -> float | None:
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        if not found:
            return 0.0 if data.boxes else None
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.params.imgIds = sorted(image.id for image in data.images)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap = float(evaluation.stats[0])
    return None if ap < 0 else ap


# --- torchvision's references --------------------------------------------------------------


class _Floats(torch.utils.data.Dataset[tuple[int, Tensor]]):
    """Images as its references load them: (3, H, W) float32 in 0..1."""

    def __init__(self, data: CocoData) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.images)

    def __getitem__(self, number: int) -> tuple[int, Tensor]:
        entry = self.data.images[number]
        rgb = torch.from_numpy(read_rgb(self.data.path(entry)))
        return entry.id, rgb.permute(2, 0, 1).contiguous().float().div(255)


def _reference(setting: Setting) -> Entries:
    detector, how = setting.detector, setting.detector.spec.conventions
    ids = category_ids(setting.data, setting.classes)
    transform = _transform(how).to(setting.device).eval()
    found: Entries = []
    for image_id, image in _loaded(setting):
        image = image.to(setting.device)
        if how.channels == "bgr":
            image = image.flip(0)
        original = (image.shape[1], image.shape[2])
        with torch.no_grad():
            images, _ = transform([image])
        (size,) = images.image_sizes
        (boxes, scores, labels, *_) = detector.detect(images.tensors, [size])[0]
        (result,) = transform.postprocess(
            [{"boxes": boxes, "scores": scores, "labels": labels}], [size], [original]
        )
        result = {key: value.cpu() for key, value in result.items()}
        made = Detections(result["boxes"], result["scores"], result["labels"])
        found += coco_entries(image_id, made, ids, how.export_offset)
    return found


def _loaded(setting: Setting) -> Iterator[tuple[int, Tensor]]:
    loader: Any = torch.utils.data.DataLoader(
        _Floats(setting.data), batch_size=1, num_workers=setting.workers, collate_fn=_only
    )
    yield from loader


def _only(items: list[tuple[int, Tensor]]) -> tuple[int, Tensor]:
    return items[0]


def _transform(how: Conventions) -> Any:
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    scale = 255.0 if how.value_range == "255" else 1.0
    return GeneralizedRCNNTransform(
        min_size=how.short_side,
        max_size=how.long_side,
        image_mean=[value / scale for value in how.mean],
        image_std=[value / scale for value in how.std],
        size_divisible=how.pad_divisor,
    )


WAYS: dict[str, Find] = {OURS: _ours, PLAIN: _plain, REFERENCE: _reference}
