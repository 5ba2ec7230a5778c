"""Parameter names of published mmdetection and SEPC checkpoints, and ours for the same tensors.

Sources: the state dicts of the released SEPC detectors (mmdetection 1.1) and of mmdetection 2.25.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from sepcbench.errors import CheckpointError, unknown

T = TypeVar("T")

_FPN = (
    (r"^lateral_convs\.(\d+)\.conv\.", r"laterals.\1.conv."),
    (r"^lateral_convs\.(\d+)\.gn\.", r"laterals.\1.norm."),
    (r"^fpn_convs\.(\d+)\.conv\.", r"outputs.\1.conv."),
    (r"^fpn_convs\.(\d+)\.gn\.", r"outputs.\1.norm."),
)

RENAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "resnet": ((r"^((?:conv1|bn1|layer[1-4])\.)", r"\1"),),
    "fpn": _FPN,
    "pafpn": (
        *_FPN,
        (r"^downsample_convs\.(\d+)\.conv\.", r"downs.\1.conv."),
        (r"^pafpn_convs\.(\d+)\.conv\.", r"bottom_up.\1.conv."),
    ),
    "sepc": (
        (r"^Pconvs\.(\d+)\.Pconv\.0\.", r"blocks.\1.conv.up."),
        (r"^Pconvs\.(\d+)\.Pconv\.1\.", r"blocks.\1.conv.same."),
        (r"^Pconvs\.(\d+)\.Pconv\.2\.", r"blocks.\1.conv.down."),
        (r"^Pconvs\.(\d+)\.bn\.", r"blocks.\1.norm."),
        (r"^cconv\.", "cls.conv."),
        (r"^lconv\.", "loc.conv."),
        (r"^cbn\.", "cls.norm."),
        (r"^lbn\.", "loc.norm."),
    ),
    "retina": (
        (r"^cls_convs\.(\d+)\.conv\.", r"cls_tower.\1.conv."),
        (r"^reg_convs\.(\d+)\.conv\.", r"box_tower.\1.conv."),
        (r"^retina_cls\.", "cls_pred."),
        (r"^retina_reg\.", "box_pred."),
    ),
}
"""From the kind of a part to (pattern of published names, replacement); the first match wins."""

_OFFSET = (r"\.conv_offset\.", ".offset.")
_OUTPUT = re.compile(r"^outputs\.(\d+)\.")


def rename(state: Mapping[str, T], kind: str) -> dict[str, T]:
    """Rename the published parameters of one part, given without the part's prefix.

    Args:
        state: published name to tensor (or anything else), of the whole part.
        kind: one of `RENAMES`.

    Raises:
        UsageError: no such kind.
        CheckpointError: a name that no pattern of this kind knows.
    """
    if kind not in RENAMES:
        raise unknown("kind of checkpoint part", kind, RENAMES)
    laterals = len({key.split(".")[1] for key in state if key.startswith("lateral_convs.")})
    renamed = {}
    for key, value in state.items():
        new = re.sub(*_OFFSET, _rename_key(key, kind))
        renamed[_split_extras(new, laterals) if kind in ("fpn", "pafpn") else new] = value
    return renamed


def _rename_key(key: str, kind: str) -> str:
    for pattern, replacement in RENAMES[kind]:
        new, hits = re.subn(pattern, replacement, key)
        if hits:
            return new
    raise CheckpointError(f"parameter '{key}' is not one of a published '{kind}'")


def _split_extras(key: str, laterals: int) -> str:
    """The published 3x3 convs past the laterals are the stride-2 convs of the extra levels."""
    match = _OUTPUT.match(key)
    if match is None or int(match[1]) < laterals:
        return key
    return _OUTPUT.sub(f"extras.convs.{int(match[1]) - laterals}.", key)


def rename_detector(state: Mapping[str, T], necks: tuple[str, ...]) -> dict[str, T]:
    """Rename the published parameters of a RetinaNet detector.

    Args:
        state: published name (`backbone.`, `neck.` or `neck.0.`, `bbox_head.`) to tensor.
        necks: the kinds of the necks in order, such as ("fpn", "sepc"); a single neck has the
            prefix `neck.`, several are numbered.
    """
    prefixes = [("backbone.", "backbone.", "resnet"), ("bbox_head.", "head.", "retina")]
    for i, kind in enumerate(necks):
        prefixes.append((f"neck.{i}." if len(necks) > 1 else "neck.", f"necks.{i}.", kind))
    renamed: dict[str, T] = {}
    for old, new, kind in prefixes:
        part = {key[len(old) :]: value for key, value in state.items() if key.startswith(old)}
        renamed |= {new + key: value for key, value in rename(part, kind).items()}
    if len(renamed) != len(state):
        known = tuple(old for old, _, _ in prefixes)
        stray = next(key for key in state if not key.startswith(known))
        raise CheckpointError(
            f"parameter '{stray}' belongs to no part; expected {', '.join(known)}"
        )
    return renamed
