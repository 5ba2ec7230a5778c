"""What was counted, and where."""

from __future__ import annotations

from dataclasses import dataclass

Counts = tuple[tuple[str, int], ...]
Texts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Environment:
    """The machine, the versions and the flags of a measurement."""

    machine: str
    cpu: str
    cores: int
    threads: int
    gpu: str | None
    driver: str | None
    platform: str
    versions: Texts
    flags: Texts
    git_commit: str | None


@dataclass(frozen=True)
class Cost:
    """Multiply-adds and parameters of one variant on one input shape, batch 1.

    `macs` has total, backbone, neck and head (which add up), and tower: the convs of the head
    towers alone, without predictions, as the SEPC paper's Appendix 1 counts. `by_op` adds up
    to the total. `other_ops` counts elements of operations outside the convention.
    `sampling_macs` is the paper's term for bilinear sampling in deformable convs (8 per
    sampled value), not in the total unless the convention is "paper". `rois` is how many RoIs a
    second stage was counted with, 0 where there is none.
    """

    variant: str
    shape: tuple[int, int]
    convention: str
    exact: bool
    params: int
    trainable_params: int
    macs: Counts
    by_op: Counts
    by_module: Counts
    other_ops: Counts
    sampling_macs: int
    unsupported_ops: Counts
    rois: int = 0
