"""What was timed, with every sample."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """How many times slower a variant is than another, paired round by round.

    `resolved` says whether the 95 % interval leaves out 1, from enough rounds to tell.
    """

    to: str
    median: float
    ci95: tuple[float, float]
    p20: float
    p20_ci95: tuple[float, float]
    resolved: bool


@dataclass(frozen=True)
class DeviceState:
    """A GPU while one row was timed in one round; None where the driver does not tell.

    `throttle` are the reasons why clocks were lowered; `other_processes` are those of others that
    hold memory of the card.
    """

    sm_mhz: float | None = None
    memory_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    throttle: tuple[str, ...] = ()
    other_processes: int | None = None


@dataclass(frozen=True)
class PartTime:
    """Median time of one part of a detector, on inputs computed beforehand."""

    name: str
    median_s: float
    ci95_s: tuple[float, float]


@dataclass(frozen=True)
class Split:
    """The parts of a call, timed in a separate pass in turns with the whole.

    `parts` in the order they run: backbone, each neck, head, decode, nms. What they add up to is
    to be near `whole_s`; parts that run alone miss what overlaps.
    """

    parts: tuple[PartTime, ...]
    whole_s: float
    sum_s: float


@dataclass(frozen=True)
class Floor:
    """The roofline of a call: no faster than its arithmetic, nor than its memory traffic.

    `seconds` is the larger of `macs / macs_per_s` and `bytes / bytes_per_s`; both rates were
    measured on the same device, in the same dtype. `bytes` are weights, and what every conv reads
    and writes.
    """

    macs: int
    bytes: int
    macs_per_s: float
    bytes_per_s: float
    seconds: float


@dataclass(frozen=True)
class Latency:
    """Time per forward call of one variant, with every raw sample.

    `samples_s` and `wall_samples_s` have one list per round. On a GPU `samples_s` are
    CUDA-event times and `wall_samples_s` synchronised wall-clock times; on a CPU both are the
    same clock and the second is empty. `stopped` is "rounds", "settled", "time limit" or
    "interrupted". `reference` is the row that ratios were to be taken to; `ratio` is None for that
    row itself, and for all where it failed. `eager_ratio` is to the same variant run eagerly under
    the same conditions.

    `tf32`: whether convs and matmuls of float32 may use it. `engine_error`: the relative error of
    the engine's outputs, ||engine - eager|| / ||eager|| (L2) of the worst tensor, to eager code of
    the same dtype. `notes` say what of this case did not work, or is to be known.

    `states` has one entry per round, `repeated_rounds` were taken again because of low clocks, and
    of `flagged_rounds` (indices) the clocks stayed low. `energy_j` is per image. `launches` and
    `busy_share` are of a separate pass with the profiler, `peak_bytes` of one that counts memory.
    `candidates` are the boxes per image that random weights were made to give to NMS.
    """

    variant: str
    scope: str
    device: str
    device_name: str
    dtype: str
    engine: str
    batch: int
    shape: tuple[int, int]
    seed: int
    rounds: int
    samples_per_round: int
    stopped: str
    interleaved_with: tuple[str, ...]
    warmup_calls: int
    warmup_settled: bool
    first_call_s: float
    median_s: float
    p10_s: float
    p90_s: float
    p99_s: float
    mad_s: float
    ci95_s: tuple[float, float]
    samples_s: tuple[tuple[float, ...], ...]
    wall_samples_s: tuple[tuple[float, ...], ...] = ()
    wall_median_s: float | None = None
    ratio: Ratio | None = None
    reference: str = ""
    detections: int | None = None
    mean_s: float | None = None
    tf32: bool | None = None
    protocol: str = ""
    flushed_l2: bool = False
    candidates: int | None = None
    engine_error: float | None = None
    eager_ratio: Ratio | None = None
    split: Split | None = None
    floor: Floor | None = None
    launches: int | None = None
    busy_share: float | None = None
    peak_bytes: int | None = None
    energy_j: float | None = None
    states: tuple[DeviceState, ...] = ()
    repeated_rounds: int = 0
    flagged_rounds: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
