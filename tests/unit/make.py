"""Records made up for tests of storing and rendering; no number here was measured."""

from dataclasses import replace

from sepcbench.records import (
    Accuracy,
    Cost,
    DeviceState,
    Environment,
    Failure,
    Floor,
    Latency,
    LevelShare,
    PartTime,
    Published,
    Ratio,
    Results,
    Row,
    Seeded,
    SizeBand,
    Split,
)

ENVIRONMENT = Environment(
    machine="test-machine",
    cpu="cpu",
    cores=2,
    threads=2,
    gpu=None,
    driver=None,
    platform="test",
    versions=(("torch", "0"),),
    flags=(("tf32", "False"),),
    git_commit=None,
)


def cost(variant: str = "v", total: int = 100_000_000_000) -> Cost:
    parts = {"backbone": total // 2, "neck": total // 4, "head": total // 4}
    macs = (("total", total), *parts.items(), ("tower", total // 8))
    return Cost(
        variant=variant,
        shape=(800, 1344),
        convention="mac",
        exact=False,
        params=37_968_692,
        trainable_params=37_743_348,
        macs=macs,
        by_op=(("conv", total),),
        by_module=(("backbone", total // 2),),
        other_ops=(),
        sampling_macs=0,
        unsupported_ops=(),
    )


def latency(variant: str = "v", device: str = "cpu", ratio: Ratio | None = None) -> Latency:
    return Latency(
        variant=variant,
        scope="forward",
        device=device,
        device_name="a device",
        dtype="fp32",
        engine="eager",
        batch=1,
        shape=(800, 1344),
        seed=0,
        rounds=2,
        samples_per_round=2,
        stopped="rounds",
        interleaved_with=("v", "w"),
        warmup_calls=10,
        warmup_settled=True,
        first_call_s=0.2,
        median_s=0.1,
        p10_s=0.09,
        p90_s=0.11,
        p99_s=0.12,
        mad_s=0.01,
        ci95_s=(0.095, 0.105),
        samples_s=((0.1, 0.1), (0.1, 0.1)),
        ratio=ratio,
        reference="a",
    )


def accuracy(variant: str = "v", ap: float | None = 0.36) -> Accuracy:
    names = "ap50 ap75 ap_small ap_medium ap_large ar1 ar10 ar100 ar_small ar_medium ar_large"
    scores = dict.fromkeys(names.split(), ap)
    return Accuracy(
        variant=variant,
        dataset="val",
        images=100,
        detections=500,
        checkpoint=None,
        ap=ap,
        per_class=(("circle", ap),),
        **scores,
    )


def results(gpu: bool = False) -> Results:
    device = "cuda:0" if gpu else "cpu"
    ratio = Ratio("a", 1.07, (1.05, 1.09), 1.07, (1.05, 1.09), True)
    tie = Ratio("a", 1.001, (0.99, 1.01), 1.0, (0.99, 1.01), False)
    published = (("ap", Published(35.7, "the paper")),)
    rows = (
        Row(
            "a",
            "FPN",
            "va",
            published,
            cost=cost("va"),
            latency=latency("va", device),
            accuracy=accuracy("va"),
        ),
        Row(
            "b",
            "SEPC",
            "vb",
            cost=cost("vb", 110_000_000_000),
            latency=latency("vb", device, ratio),
        ),
        Row("c", "Twin", "vc", latency=latency("vc", device, tie)),
        Row("d", "Broken", "vd", failures=(Failure("vd", "cost", "CountError: no formula"),)),
    )
    return Results("s", "Suite | title", "", "test-machine", False, rows, (), ENVIRONMENT, "")


SPLIT = Split(
    (
        PartTime("backbone", 0.06, (0.059, 0.061)),
        PartTime("fpn", 0.01, (0.009, 0.011)),
        PartTime("head", 0.02, (0.019, 0.021)),
    ),
    whole_s=0.1,
    sum_s=0.09,
)


def timed(gpu: bool = False) -> Results:
    """Two rows, each also timed folded and in another dtype and batch; parts and a roofline."""
    device = "cuda:0" if gpu else "cpu"
    half = Ratio("a", 0.5, (0.49, 0.51), 0.5, (0.49, 0.51), True)
    state = DeviceState(1980.0, 2619.0, 40.0, 300.0)
    rows = []
    for name in ("a", "b"):
        first = replace(
            latency(f"v{name}", device), split=SPLIT, floor=Floor(10**9, 10**6, 1e11, 1e9, 0.05)
        )
        folded = replace(
            first,
            engine="folded",
            ratio=half,
            eager_ratio=half,
            engine_error=1.5e-6,
            split=None,
            states=(state,) if gpu else (),
            launches=120 if gpu else None,
        )
        batched = replace(folded, dtype="bf16", batch=8, flagged_rounds=(1,))
        rows.append(Row(name, f"row {name}", f"v{name}", latency=first, timings=(folded, batched)))
    failed = Failure("vb", "latency@graphed-fp32-1", "EngineError: no CUDA device here")
    rows[1] = replace(rows[1], failures=(failed,))
    return replace(results(), rows=tuple(rows))


def finely_scored() -> Results:
    """Two rows with AP by finer sizes and the levels that found what."""
    bands = (
        SizeBand("pixels", 0, 16, 10, 0.1),
        SizeBand("pixels", 16, 32, 0, None),
        SizeBand("pixels", 32, None, 30, 0.5),
        SizeBand("relative", 0, 0.25, 40, 0.4),
    )
    levels = (LevelShare(3, 300, 6, 2, 0), LevelShare(4, 200, 2, 6, 5))
    rows = tuple(
        Row(name, f"row {name}", "v", accuracy=replace(accuracy(), bands=bands, levels=levels))
        for name in ("a", "b")
    )
    return replace(results(), rows=rows)


def seeded() -> Results:
    """Two rows scored with three seeds each; the second is 2 to 4 points better, seed by seed."""
    rows = []
    for name, scores in (("a", (0.30, 0.31, 0.33)), ("b", (0.32, 0.35, 0.36))):
        more = tuple(
            Seeded("accuracy", seed, accuracy("v", score))
            for seed, score in enumerate(scores)
            if seed
        )
        rows.append(Row(name, f"row {name}", "v", accuracy=accuracy("v", scores[0]), seeds=more))
    return replace(results(), rows=tuple(rows))
