"""What was measured: frozen results with all their conditions, as JSON and back.

Units are in the names: `_s` seconds, `macs` multiply-adds (one multiply and one add count once),
AP and AR as fractions of 1. A value that does not exist is None, never NaN.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sepcbench.codec import encode
from sepcbench.specs import Recipe

SCHEMA = 1

Counts = tuple[tuple[str, int], ...]
Texts = tuple[tuple[str, str], ...]
Scores = tuple[tuple[str, float | None], ...]


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


@dataclass(frozen=True)
class SizeBand:
    """AP of the objects of a band of sizes, as a fraction of 1; None without any.

    `kind` "pixels": the root of the area in pixels is in [low, high); "relative": over the root of
    the image's area. `high` is None for the last band.
    """

    kind: str
    low: float
    high: float | None
    objects: int
    ap: float | None


@dataclass(frozen=True)
class LevelShare:
    """What one pyramid level found: detections, and objects matched at IoU 0.5, by COCO size."""

    level: int
    detections: int
    found_small: int
    found_medium: int
    found_large: int


@dataclass(frozen=True)
class Accuracy:
    """The twelve COCO numbers and AP per class, as fractions of 1.

    None where there is no ground truth to score (pycocotools prints -1 there). `task` is "bbox"
    where boxes were compared, "segm" where masks were.

    `bands` are AP by finer sizes, `levels` what each pyramid level found, `test_time` the options
    beyond one pass per image ("" for none), such as "scales 400-1200, flip". `refereed`:
    pycocotools scored the same detections, and no number differs.

    `draws` are AP on resamples of the images, drawn with replacement, and `ap_ci95` the 95 %
    interval that they give; none for a set of few images. Of two records with the same
    `drawn_from` the draws are paired: the same images are in the same draw.
    """

    variant: str
    dataset: str
    images: int
    detections: int
    checkpoint: str | None
    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar1: float | None
    ar10: float | None
    ar100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None
    per_class: Scores
    task: str = "bbox"
    ap_ci95: tuple[float, float] | None = None
    draws: tuple[float, ...] = ()
    drawn_from: str = ""
    bands: tuple[SizeBand, ...] = ()
    levels: tuple[LevelShare, ...] = ()
    test_time: str = ""
    refereed: bool = False


@dataclass(frozen=True)
class Recall:
    """Average recall of class-agnostic proposals, as fractions of 1 (FPN paper, Table 1).

    Of the best 100 or 1000 proposals per image, the mean over IoU 0.5 to 0.95; by size at 1000.
    None where there is no ground truth. `proposals` is their number on all images. `ap_ci95` and
    `draws` are of `ar1000`, as those of `Accuracy` are of AP.
    """

    variant: str
    dataset: str
    images: int
    proposals: int
    checkpoint: str | None
    ar100: float | None
    ar1000: float | None
    ar1000_small: float | None
    ar1000_medium: float | None
    ar1000_large: float | None
    ap_ci95: tuple[float, float] | None = None
    draws: tuple[float, ...] = ()
    drawn_from: str = ""
    refereed: bool = False


@dataclass(frozen=True)
class Speed:
    """How fast a training ran, all processes together, over all its sittings.

    `data_wait` is the share of the time that the first process waited for images; `peak_bytes` the
    most memory of its GPU, None on a CPU.
    """

    images_per_s: float
    data_wait: float
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Training:
    """How a checkpoint came to be: recipe, data, and the loss on the way.

    `batch` is all images of an iteration, `learning_rate` the highest of the schedule. `losses` are
    (iteration, total loss) pairs, thinned out for long runs; `scores` (iteration, AP) on the way,
    as fractions of 1 (AR of an RPN). `pretrained` is where the backbone came from, "" if random.
    `speed` depends on the machine: two trainings are equal without it, and no checkpoint has it.
    """

    variant: str
    dataset: str
    images: int
    iterations: int
    batch: int
    seed: int
    optimizer: str
    learning_rate: float
    losses: tuple[tuple[int, float], ...]
    scores: tuple[tuple[int, float], ...] = ()
    processes: int = 1
    amp: str = "none"
    pretrained: str = ""
    speed: Speed | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Failure:
    """A measurement that did not work, and why, in one line."""

    variant: str
    measure: str
    reason: str


# The note of a latency whose samples are complete, and the passes after them are not.
NOT_LOOKED_AT = "not looked at: interrupted"


def interrupted(records: Iterable[object]) -> bool:
    """Whether sampling was broken off by Ctrl-C; what it had by then is in the records."""
    return any(isinstance(item, Latency) and item.stopped == "interrupted" for item in records)


def cut_short(records: Iterable[object]) -> bool:
    """Whether Ctrl-C came while sampling or after it; after it the samples are complete."""
    found = [item for item in records if isinstance(item, Latency)]
    return interrupted(found) or any(NOT_LOOKED_AT in item.notes for item in found)


# What a paper may publish of a row, in the unit papers print it in: AP and AR in %, latency in ms,
# MACs in 10^9, parameters in 10^6.
PUBLISHED = (
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "mask_ap",
    "ar100",
    "ar1000",
    "ar1000_small",
    "ar1000_medium",
    "ar1000_large",
    "latency_ms",
    "gmacs",
    "params_m",
)


@dataclass(frozen=True)
class Published:
    """One published value, in the unit of `PUBLISHED`, with its source.

    With a `tolerance` (in the same unit) the row's variant claims to have this value: a test
    derives it again.
    """

    value: float
    source: str
    note: str = ""
    tolerance: float | None = None


@dataclass(frozen=True)
class ScoreDifference:
    """How far the AP of a row is above that of row `to`, as a fraction of 1, draw by draw.

    Of proposals it is AR at 1000. `resolved` says whether the 95 % interval leaves out 0, from
    enough images to tell.
    """

    to: str
    delta: float
    ci95: tuple[float, float] | None
    resolved: bool


@dataclass(frozen=True)
class Seeded:
    """A score, or the training behind it, of one more seed; `kind` as in its file's name."""

    kind: str
    seed: int
    record: Accuracy | Recall | Training


@dataclass(frozen=True)
class Row:
    """One row of a results table: everything measured and published for one variant.

    `differences` are to the first row that was scored, by kind of record. `timings` are latencies
    under further conditions (engine, dtype, batch) than those of `latency`; `seeds` are scores and
    trainings of further seeds than that of `accuracy`, `recall` and `training`.
    """

    name: str
    label: str
    variant: str
    published: tuple[tuple[str, Published], ...] = ()
    not_published: tuple[str, ...] = ()
    group: str = ""
    cost: Cost | None = None
    latency: Latency | None = None
    accuracy: Accuracy | None = None
    masks: Accuracy | None = None
    recall: Recall | None = None
    training: Training | None = None
    failures: tuple[Failure, ...] = ()
    differences: tuple[tuple[str, ScoreDifference], ...] = ()
    timings: tuple[Latency, ...] = ()
    seeds: tuple[Seeded, ...] = ()


@dataclass(frozen=True)
class ClaimOutcome:
    """A published statement and what the rows give for it; None where a value is missing."""

    name: str
    formula: str
    published: float | None
    measured: float | None
    source: str
    unit: str
    digits: int


@dataclass(frozen=True)
class Origin:
    """When and where one record of a row was measured; `kind` as in its file's name."""

    row: str
    kind: str
    created: str
    environment: Environment


@dataclass(frozen=True)
class Results:
    """All there is about a suite on one machine: what a report is drawn from.

    `run_as` are the arguments of `sepcbench run` that measure it, such as "fusion --data shapes".
    `notes` are on where records come from, where that is several folders. `recipes` has how the
    suite says that rows are trained, by name, of those that were.
    """

    suite: str
    title: str
    about: str
    machine: str
    generated_data: bool
    rows: tuple[Row, ...]
    claims: tuple[ClaimOutcome, ...]
    environment: Environment | None
    created: str
    origins: tuple[Origin, ...] = ()
    run_as: str = ""
    notes: tuple[str, ...] = ()
    recipes: tuple[tuple[str, Recipe], ...] = ()


Record = Cost | Latency | Accuracy | Recall | Training | Failure


# --- for tools that take flat dicts --------------------------------------------------------

_FEW = 4  # numbers of a list that still get a key each, such as the ends of an interval


def flat(record: Any, *, numbers: bool = False) -> dict[str, str | int | float | bool]:
    """A record as one flat dict with dotted keys, for pandas, MLflow, W&B or TensorBoard.

    Ends of an interval and the height and width of a shape get a key each ("ci95_s.0"), names
    are joined by ", ". What does not exist is left out, and so are long lists, such as the raw
    samples of a latency, and lists of lists: those stay in the record.

    Args:
        record: any dataclass of this module.
        numbers: only numbers, as loggers of metrics want it.
    """
    found: dict[str, str | int | float | bool] = {}
    _flatten(encode(record), "", found)
    if numbers:
        return {k: v for k, v in found.items() if not isinstance(v, (str, bool))}
    return found


def _flatten(value: Any, key: str, found: dict[str, str | int | float | bool]) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            _flatten(item, f"{key}.{name}" if key else str(name), found)
    elif isinstance(value, list):
        if value and all(isinstance(item, str) for item in value):
            found[key] = ", ".join(value)
        elif len(value) <= _FEW and not any(isinstance(item, (list, dict)) for item in value):
            for i, item in enumerate(value):
                _flatten(item, f"{key}.{i}", found)
    elif value is not None:
        found[key] = value
