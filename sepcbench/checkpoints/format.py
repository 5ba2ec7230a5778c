"""What a checkpoint format is: how to recognise it, its names, and what its weights need."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from sepcbench.checkpoints.contents import Contents
from sepcbench.specs import VariantSpec

Rules = tuple[tuple[str, str], ...]


class Reason(NamedTuple):
    """Something that was concluded about a checkpoint, and what it was concluded from."""

    what: str
    why: str


class Setting(NamedTuple):
    """A field of the variant that the producer had so; keys and shapes need not show it."""

    field: str
    value: object
    why: str


class Renamed(NamedTuple):
    """Tensors by our key, the published name of each, and the names that have no place here."""

    state: dict[str, Tensor]
    published: dict[str, str]
    left_over: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Format:
    """One way in which detectors are written to files.

    Attributes:
        name: in `FORMATS`.
        producer: the program, with its version where the format tells it.
        conventions: one of `specs.CONVENTIONS`; empty if they are in the file.
        recognise: what in the file says that it is of this format; empty if it is not.
        rename: published keys to ours.
        suits: whether the producer can express a variant; keys and shapes are compared after.
        ignored: our or published keys that may be missing or left over, as a pattern.
        settings: what the producer had and keys and shapes do not show.
        obstacles: what the file asks for and the variant with its settings is not.
        heads: the types of the head that the file names; empty if it does not say.
        version: of the producer, from the file; empty if it does not say.
        arrange: the order of channels here, from that of the producer.
        classes: class names, label 0 first, for a number of classes; empty if not known.
        inside: the variant stored in the file, or None.
    """

    name: str
    producer: str
    conventions: str
    recognise: Callable[[Contents], tuple[Reason, ...]]
    rename: Callable[[Mapping[str, Tensor]], Renamed]
    suits: Callable[[VariantSpec], bool]
    ignored: re.Pattern[str] = re.compile(r"\.num_batches_tracked$")
    settings: Callable[[Contents, VariantSpec], tuple[Setting, ...]] = lambda *_: ()
    obstacles: Callable[[Contents, VariantSpec], tuple[str, ...]] = lambda *_: ()
    heads: Callable[[Contents], tuple[str, ...]] = lambda *_: ()
    version: Callable[[Contents], str] = lambda *_: ""
    arrange: Callable[[dict[str, Tensor], VariantSpec], dict[str, Tensor]] = lambda state, _: state
    classes: Callable[[Contents, int], tuple[str, ...]] = lambda *_: ()
    inside: Callable[[Contents], VariantSpec | None] = lambda *_: None


def rename_keys(state: Mapping[str, Tensor], rules: Rules) -> Renamed:
    """Rename by patterns, the first match wins; a key without one is left over."""
    renamed: dict[str, Tensor] = {}
    published: dict[str, str] = {}
    left_over = []
    for key, value in state.items():
        for pattern, replacement in rules:
            new, hits = re.subn(pattern, replacement, key)
            if hits:
                renamed[new], published[new] = value, key
                break
        else:
            left_over.append(key)
    return Renamed(renamed, published, tuple(left_over))
