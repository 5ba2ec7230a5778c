"""What is concluded about a checkpoint, and why: a frozen record that knows no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Conclusion:
    """Something concluded, and what it was concluded from."""

    what: str
    why: str


@dataclass(frozen=True)
class OtherShape:
    """A tensor whose shape is not that of the variant."""

    key: str
    in_file: tuple[int, ...]
    in_variant: tuple[int, ...]


@dataclass(frozen=True)
class Inspection:
    """Everything known about a checkpoint without running it.

    Attributes:
        file: the path as given.
        container: "safetensors", "torch" or "pickle".
        format: one of `FORMATS`; None if several are possible.
        producer: the program and its version.
        variant: the named variant it fits; None if none or several do.
        fits: all named variants whose keys and shapes are those of the file.
        compared_with: the variant that `missing` and the rest refer to.
        classes: number of classes, and their names if the file or the format tells them.
        conventions: name of the set; `conventions_changed` are the fields that differ from it.
        parameters: elements of all parameters, running statistics left out.
        reasons: what every conclusion rests on.
        ambiguous: what cannot be told, in one line; None if everything can.
        problem: why the file cannot be loaded, in one line; None if it can.
    """

    file: str
    container: str
    format: str | None
    producer: str
    variant: str | None
    fits: tuple[str, ...]
    compared_with: str | None
    num_classes: int | None
    class_names: tuple[str, ...]
    conventions: str | None
    conventions_changed: tuple[tuple[str, str], ...]
    tensors: int
    parameters: int
    dtypes: tuple[tuple[str, int], ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    other_shapes: tuple[OtherShape, ...]
    not_finite: tuple[str, ...]
    notes: tuple[str, ...]
    reasons: tuple[Conclusion, ...]
    ambiguous: str | None
    problem: str | None
