"""Records made up for tests of storing and rendering; no number here was measured."""

from sepcbench.records import (
    Accuracy,
    Cost,
    Environment,
    Failure,
    Latency,
    Published,
    Ratio,
    Results,
    Row,
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
