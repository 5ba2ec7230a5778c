"""Training and evaluating on a real GPU: precisions, resuming, processes, workers."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from sepcbench import processes
from sepcbench.checkpoints import native
from sepcbench.data.coco import CocoData, open_data
from sepcbench.data.shapes import generate
from sepcbench.detectors import build
from sepcbench.measures.accuracy import detect_all
from sepcbench.measures.throughput import OURS, PLAIN, Setting, compare
from sepcbench.records import Training
from sepcbench.specs import Recipe, VariantSpec
from sepcbench.training import loop
from sepcbench.variants import variant

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[2]
DEVICE = "cuda"
SIDES = {"short_side": 96, "long_side": 96}
PLAIN_NORM, DEFORMED = (
    variant(name, SIDES) for name in ("retinanet_tiny_pconv_ibn", "retinanet_tiny_sepc")
)
SAMPLED = variant("rpn_tiny_fpn", SIDES)  # draws its candidates at random, on the GPU
SHORT = Recipe(iterations=8, batch=8, warmup_iterations=2, decay_at=())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    generate(folder, images=24, val_images=24, seed=0, size=(96, 96))
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> CocoData:
    return open_data(folder, "train")


def losses(record: Training) -> list[float]:
    return [value for _, value in record.losses]


def trained(spec: VariantSpec, data: CocoData, recipe: Recipe, **more: Any) -> list[float]:
    """The losses of a training on the GPU; all that comes out of it is finite."""
    detector, record = loop.train(spec, data, recipe, device=DEVICE, **more)
    assert all(tensor.device.type == DEVICE for tensor in detector.state_dict().values())
    assert all(tensor.isfinite().all() for tensor in detector.parameters())
    found = losses(record)
    assert len(found) == recipe.iterations
    assert all(math.isfinite(value) for value in found)
    return found


@pytest.mark.parametrize("spec", [PLAIN_NORM, DEFORMED], ids=lambda spec: spec.name)
def test_the_first_loss_is_that_of_a_cpu(data: CocoData, spec: VariantSpec) -> None:
    """The same weights and images; convs may use TF32 on a GPU."""
    one = replace(SHORT, iterations=1)
    _, record = loop.train(spec, data, one)
    assert trained(spec, data, one) == pytest.approx(losses(record), rel=0.02)


@pytest.mark.parametrize("spec", [PLAIN_NORM, DEFORMED], ids=lambda spec: spec.name)
@pytest.mark.parametrize(
    "changes",
    [{"amp": "fp16"}, {"amp": "bf16"}, {"channels_last": True},
     {"amp": "bf16", "channels_last": True, "accumulate": 2}],
    ids=str,
)  # fmt: skip
def test_it_learns_in_every_precision_and_memory_format(
    data: CocoData, spec: VariantSpec, changes: dict[str, Any]
) -> None:
    recipe = replace(SHORT, iterations=40, **changes)
    found = trained(spec, data, recipe)
    plain = trained(spec, data, replace(SHORT, iterations=1))
    # norms see other images in two passes
    tolerance = 0.2 if "accumulate" in changes else 0.05
    assert found[0] == pytest.approx(plain[0], rel=tolerance)
    assert sum(found[-5:]) < 0.9 * sum(found[:5])


def test_the_scaler_skips_steps_of_endless_gradients_and_goes_on(data: CocoData) -> None:
    scaler = torch.amp.GradScaler(DEVICE, init_scale=2.0**40)
    weight = torch.ones(1, device=DEVICE, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with torch.autocast(DEVICE, torch.float16):
        product = (weight * 3).half().sum()
    scaler.scale(product).backward()
    scaler.step(optimizer)
    scaler.update()
    assert weight.item() == 1.0, "a step in an endless direction"
    assert scaler.get_scale() < 2.0**40
    assert len(trained(PLAIN_NORM, data, replace(SHORT, amp="fp16"))) == SHORT.iterations


@pytest.mark.parametrize("amp", ["none", "fp16"])
@pytest.mark.parametrize("spec", [PLAIN_NORM, SAMPLED], ids=lambda spec: spec.name)
def test_a_resumed_training_goes_on_as_one_that_was_not_stopped(
    data: CocoData, tmp_path: Path, spec: VariantSpec, amp: Any
) -> None:
    """Sums on a GPU come in any order, so that losses agree within a tolerance."""
    recipe = replace(SHORT, amp=amp)
    whole = trained(spec, data, recipe)
    out: dict[str, Any] = {"out": tmp_path / "out", "save": native.save}
    trained(spec, data, replace(recipe, iterations=4), **out)
    _, again = loop.train(spec, data, recipe, device=DEVICE, resume=True, **out)
    assert losses(again) == pytest.approx(whole, rel=0.02)


def test_the_generator_of_the_gpu_is_left_alone(data: CocoData) -> None:
    torch.manual_seed(0)
    before = torch.cuda.get_rng_state()
    trained(SAMPLED, data, replace(SHORT, iterations=1))
    assert torch.equal(torch.cuda.get_rng_state(), before)


# --- processes -----------------------------------------------------------------------------


def test_torchrun_trains_and_evaluates_by_the_command_line(folder: Path, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    shared = ["--data", str(folder), "--device", DEVICE, "--workers", "2", "--format", "json"]
    shared += [word for side in SIDES.items() for word in ("--set", "{}={}".format(*side))]
    recipe = ["--iterations", "3", "--batch", "4", "--recipe", "amp=bf16"]
    recipe += ["--recipe", "sync_norm=true"]
    found = []
    for words in (
        ["train", "retinanet_tiny_pconv_ibn", "--out", "run", *recipe, *shared],
        ["eval", "run", *shared],
    ):
        done = subprocess.run(
            [sys.executable, *launcher, "-m", "sepcbench", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        (value,) = json.loads(done.stdout)
        found.append(value)
    training, score = found
    assert (training["iterations"], training["processes"], training["amp"]) == (3, 1, "bf16")
    assert score["images"] == 24


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the only process of a job, for which a group is made all the same."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": 0, "LOCAL_RANK": 0}
    for name, value in (given | {"WORLD_SIZE": 1}).items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(processes, "announced", lambda: processes.Job(0, 2))


def test_gpus_talk_by_nccl_and_the_rest_by_gloo(alone: None) -> None:
    with processes.joined(processes.own_device(DEVICE)):
        for device in ("cpu", DEVICE):
            value = torch.arange(3.0, device=device)
            dist.all_reduce(value)
            assert value.tolist() == [0, 1, 2]
        kept: list[Any] = [None]
        dist.all_gather_object(kept, {"rank": 0})
        assert kept == [{"rank": 0}]
        assert "nccl" in dist.get_backend_config()
    assert not dist.is_initialized()


def test_gradients_through_nccl_are_those_of_one_process(alone: None) -> None:
    found = []
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    with processes.joined(processes.own_device(DEVICE)):
        for wrapped in (False, True):
            detector = build(DEFORMED, seed=0).to(DEVICE).train()
            model: Any = DistributedDataParallel(detector) if wrapped else detector
            total = sum(level.cls.mean() + level.box.abs().mean() for level in model(images))
            total.backward()  # type: ignore[union-attr]
            found.append({k: p.grad for k, p in detector.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-4, rtol=1e-2, msg=name)


# --- evaluating ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnt(data: CocoData) -> Any:
    recipe = Recipe(iterations=150)
    return loop.train(PLAIN_NORM, data, recipe, device=DEVICE)[0]


@pytest.mark.parametrize("batch", [1, 8])
def test_workers_and_pinned_memory_change_nothing(learnt: Any, folder: Path, batch: int) -> None:
    """Images that are copied while the GPU is at work are whole when it reads them."""
    val = open_data(folder, "val")
    alone, several = (
        detect_all(learnt, val, val.classes, device=DEVICE, batch=batch, workers=workers)
        for workers in (0, 3)
    )
    assert alone
    for name in ("image_id", "category_id"):
        assert [one[name] for one in several] == [one[name] for one in alone]
    for name in ("bbox", "score"):
        a, b = (torch.tensor([one[name] for one in found]) for found in (alone, several))
        torch.testing.assert_close(b, a, atol=1e-4, rtol=1e-4)


def test_the_gpu_finds_what_the_cpu_finds(learnt: Any, folder: Path) -> None:
    val = open_data(folder, "val")
    on_gpu = detect_all(learnt, val, val.classes, device=DEVICE, batch=8, workers=2)
    on_cpu = detect_all(learnt, val, val.classes, device="cpu", batch=8)
    learnt.to(DEVICE)
    best = [
        sorted((one["score"] for one in found), reverse=True)[:20] for found in (on_gpu, on_cpu)
    ]
    assert best[0] == pytest.approx(best[1], abs=0.05)


def test_images_per_second_beside_a_plain_loop(learnt: Any, folder: Path) -> None:
    """How much faster is printed: of a tiny network on tiny images it says little."""
    val = open_data(folder, "val")
    workers = min(4, len(os.sched_getaffinity(0)))
    setting = Setting(learnt, val, val.classes, DEVICE, batch=8, workers=workers)
    speeds = {one.way: one for one in compare(setting, runs=2)}
    print({way: (round(one.images_per_s, 1), round(one.ratio, 2)) for way, one in speeds.items()})
    assert speeds[OURS].ap == pytest.approx(speeds[PLAIN].ap, abs=5e-3)
