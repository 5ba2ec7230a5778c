"""Files with the keys and shapes of published checkpoints, and what their programs write beside."""

from __future__ import annotations

import json
import sys
import types
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

KEYS = Path(__file__).parent / "golden" / "data"

# the 13 released SEPC checkpoints: head, flavour, our variant
RELEASED = [
    *(("free_anchor", flavour) for flavour in ("pconv", "ibn", "sepclite", "sepc")),
    *(("fsaf", flavour) for flavour in ("baseline", "pconv", "ibn", "sepclite", "sepc")),
    *(("retina", flavour) for flavour in ("pconv", "ibn", "sepclite", "sepc")),
]
_DETECTOR = {"free_anchor": "freeanchor", "fsaf": "fsaf", "retina": "retinanet"}
_NECK = {
    "baseline": "fpn",
    "pconv": "pconv",
    "ibn": "pconv_ibn",
    "sepclite": "sepc_lite",
    "sepc": "sepc",
}
HEAD_CLASS = {
    "free_anchor": "SepcFreeAnchorRetinaHead",
    "fsaf": "FSAFHead",
    "retina": "SepcRetinaHead",
}


def variant_of(head: str, flavour: str) -> str:
    """The name here of a released checkpoint's variant."""
    return f"{_DETECTOR[head]}_r50_{_NECK[flavour]}"


def shapes(name: str) -> dict[str, list[int]]:
    """Keys and shapes of a published checkpoint, such as `keys11/retina_sepc`."""
    listed = json.loads((KEYS / f"{name}.json").read_text())["keys"]
    return {entry["key"]: entry["shape"] for entry in listed}


def released_shapes(head: str, flavour: str) -> dict[str, list[int]]:
    """Keys and shapes of a released checkpoint; FSAF differs from RetinaNet in the last convs."""
    found = shapes(f"keys11/retina_{flavour}")
    if head == "fsaf":
        last = {k: s for k, s in shapes("keys11/fsaf_sepc").items() if "retina_" in k}
        found |= last
    return found


def constant(key: str, shape: list[int]) -> Tensor:
    """A tensor of one small value that depends on the key; it takes no room in memory or file."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    value = 1.0 if key.endswith("running_var") else zlib.crc32(key.encode()) % 1000 * 1e-5
    return torch.full((), value).expand(shape)


def weights(found: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """Constant tensors of these shapes."""
    return {key: constant(key, shape) for key, shape in found.items()}


def config(head: str, pad: int = 32) -> str:
    """The text of a configuration as mmdetection 1.1 keeps it: a file name, then the file."""
    stds = "[0.1, 0.1, 0.2, 0.2]" if head == "free_anchor" else "[1.0, 1.0, 1.0, 1.0]"
    return f"""../sepc/exp/some_config.py
model = dict(
    type='RetinaNet',
    pretrained='torchvision://resnet50',
    backbone=dict(type='ResNet', depth=50, style='pytorch'),
    bbox_head=dict(type='{HEAD_CLASS[head]}',
                   num_classes=81,
                   target_stds={stds},
                   loss_cls=dict(type='FocalLoss', use_sigmoid=True)))
test_cfg = dict(nms_pre=1000, score_thr=0.05, nms=dict(type='nms', iou_thr=0.5), max_per_img=100)
img_norm_cfg = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_pipeline = [dict(type='Pad', size_divisor=32)]
test_pipeline = [
    dict(type='MultiScaleFlipAug', img_scale=(1333, 800), flip=False,
         transforms=[dict(type='Normalize', **img_norm_cfg), dict(type='Pad', size_divisor={pad})])
]
"""


def meta(**changes: Any) -> dict[str, Any]:
    """What mmdetection 1.1 writes beside the weights."""
    return {
        "mmdet_version": "1.1.0+4d8557d",
        "mmcv_version": "0.4.3",
        "time": "Sun Apr 12 10:11:12 2020",
        "epoch": 12,
        "iter": np.int64(87960),
        "lr": np.float64(1e-4),
        **changes,
    }


def save_mmdet(path: Path, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> Path:
    """A file as mmcv writes it."""
    optimizer = {"state": {}, "param_groups": [{"lr": 0.01, "momentum": 0.9}]}
    torch.save({"meta": dict(about), "state_dict": dict(state), "optimizer": optimizer}, path)
    return path


@contextmanager
def mmengine() -> Iterator[type]:
    """A stand-in for mmengine's module of loss histories while a file is written."""

    class HistoryBuffer:
        def __init__(self) -> None:
            self._log_history = np.array([0.7, 0.5])
            self._count_history = np.array([1, 1])
            self.max_length = 1000000
            self.statistics_methods = {"min": HistoryBuffer.min}

        def min(self) -> float:
            return float(self._log_history.min())

    name = "mmengine.logging.history_buffer"
    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = name, "HistoryBuffer"
    HistoryBuffer.min.__module__, HistoryBuffer.min.__qualname__ = name, "HistoryBuffer.min"
    module = types.ModuleType(name)
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    names = ("mmengine", "mmengine.logging", name)
    before = {key: sys.modules.get(key) for key in names}
    sys.modules.update({key: types.ModuleType(key) for key in names[:2]} | {name: module})
    try:
        yield HistoryBuffer
    finally:
        for key, old in before.items():
            if old is None:
                del sys.modules[key]
            else:
                sys.modules[key] = old


def detectron2_shapes() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of detectron2's RetinaNet R-50 FPN."""
    found: dict[str, tuple[int, ...]] = {}
    body = "backbone.bottom_up."

    def conv(name: str, out: int, inner: int, size: int) -> None:
        found[f"{name}.weight"] = (out, inner, size, size)
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.norm.{part}"] = (out,)

    conv(f"{body}stem.conv1", 64, 3, 7)
    inner = 64
    for stage, (blocks, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512)), start=2):
        for block in range(blocks):
            name = f"{body}res{stage}.{block}"
            if block == 0:
                conv(f"{name}.shortcut", 4 * width, inner, 1)
            conv(f"{name}.conv1", width, inner, 1)
            conv(f"{name}.conv2", width, width, 3)
            conv(f"{name}.conv3", 4 * width, width, 1)
            inner = 4 * width
    plain = {f"backbone.fpn_lateral{i}": (256, 128 * 2 ** (i - 1), 1) for i in (3, 4, 5)}
    plain |= {f"backbone.fpn_output{i}": (256, 256, 3) for i in (3, 4, 5)}
    plain |= {"backbone.top_block.p6": (256, 2048, 3), "backbone.top_block.p7": (256, 256, 3)}
    plain |= {f"head.{b}_subnet.{i}": (256, 256, 3) for b in ("cls", "bbox") for i in (0, 2, 4, 6)}
    plain |= {"head.cls_score": (720, 256, 3), "head.bbox_pred": (36, 256, 3)}
    for name, (out, inner, size) in plain.items():
        found[f"{name}.weight"], found[f"{name}.bias"] = (out, inner, size, size), (out,)
    return found
