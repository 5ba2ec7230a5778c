"""Capturing: in what order things happen, and what a replay reads and writes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from randomised import randomised
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sepcbench.engines import TOLERANCES, graphs, output_error
from sepcbench.engines.canvas import PackedPyramid, pack
from sepcbench.engines.folding import fold
from sepcbench.engines.graphs import WARM_UPS, CudaRecorder, Graphed, run_graphed, shared_pool
from sepcbench.errors import EngineError


class FakeRecorder:
    """A CPU that records: a replay runs the call again and writes into the same outputs."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.pools = 0

    def warm_up(self, call: Callable[[], Any], times: int) -> None:
        for _ in range(times):
            call()
        self.events.append(f"warmed up {times}")

    def refuse_waits(self, call: Callable[[], Any]) -> None:
        call()
        self.events.append("waits refused")

    def new_pool(self) -> object:
        self.pools += 1
        return f"pool {self.pools}"

    def record(self, call: Callable[[], Any], pool: object) -> tuple[Callable[[], None], Any]:
        self.events.append(f"recorded in {pool}")
        outputs = call()

        def replay() -> None:
            self.events.append("replayed")
            fresh, static = pytree.tree_leaves(call()), pytree.tree_leaves(outputs)
            for old, new in zip(static, fresh, strict=True):
                if isinstance(old, Tensor):
                    old.copy_(new)

        return replay, outputs


@pytest.fixture(autouse=True)
def _no_pools_left() -> None:
    graphs._POOLS.clear()


class Twice(nn.Module):
    """Counts its calls; inputs and outputs in nested lists."""

    calls = 0

    def forward(self, pyramid: list[Tensor]) -> dict[str, list[Tensor]]:
        self.calls += 1
        return {"maps": [2 * x for x in pyramid]}


def pyramid(side: int, value: float) -> list[Tensor]:
    return [torch.full((1, 2, side, side), value), torch.full((1, 2, 1, 1), value)]


def test_warm_up_comes_before_the_recording_and_a_replay_after_it() -> None:
    recorder, module = FakeRecorder(), Twice()
    graphed = Graphed(module, recorder)
    assert graphed(pyramid(4, 1.0))["maps"][0].unique() == 2.0
    expected = [f"warmed up {WARM_UPS}", "waits refused", "recorded in pool 1", "replayed"]
    assert recorder.events == expected


def test_a_known_shape_is_replayed_with_new_values_at_the_same_addresses() -> None:
    recorder = FakeRecorder()
    graphed = Graphed(Twice(), recorder)
    given = pyramid(4, 1.0)
    first = graphed(given)["maps"][0]
    second = graphed(pyramid(4, 5.0))["maps"][0]
    assert second.unique() == 10.0
    assert first.data_ptr() == second.data_ptr()  # outputs hold until the next replay only
    assert given[0].unique() == 1.0  # what the caller gave is not written to
    assert recorder.events.count("recorded in pool 1") == 1
    assert recorder.events.count("replayed") == 2


def test_levels_on_a_canvas_are_kept_alive_as_any_other_input() -> None:
    """A replay reads their addresses, whoever else has let go of them."""
    packed = PackedPyramid(torch.zeros(1, 2, 8, 8), *pack(pyramid(4, 1.0)), clean=True)
    places = {level.data_ptr() for level in packed}
    recording = Graphed(Twice(), FakeRecorder()).record((packed,))
    assert {kept.data_ptr() for kept in recording.inputs} == places


def test_every_shape_dtype_and_layout_has_a_recording_in_one_pool() -> None:
    recorder = FakeRecorder()
    graphed = Graphed(Twice(), recorder)
    small, large = graphed(pyramid(4, 1.0))["maps"][0], graphed(pyramid(6, 2.0))["maps"][0]
    graphed([x.double() for x in pyramid(4, 1.0)])
    graphed([x.contiguous(memory_format=torch.channels_last) for x in pyramid(4, 1.0)])
    graphed(pyramid(4, 1.0))
    assert len(graphed.recordings) == 4
    assert (small.unique(), large.unique()) == (2.0, 4.0)
    assert recorder.pools == 1


def test_rows_share_a_pool_that_ends_with_its_last_recording() -> None:
    recorder = FakeRecorder()
    first, second = Graphed(Twice(), recorder), Graphed(Twice(), recorder)
    first(pyramid(4, 1.0))
    second(pyramid(4, 1.0))
    assert recorder.pools == 1
    del first
    gc.collect()
    assert shared_pool(recorder, "cpu").handle == "pool 1"
    del second
    gc.collect()
    assert shared_pool(recorder, "cpu").handle == "pool 2"


def test_the_call_of_a_measurement_copies_nothing() -> None:
    recorder, given = FakeRecorder(), pyramid(4, 1.0)
    call = run_graphed(Twice(), (given,), recorder)
    assert call()["maps"][0].unique() == 2.0
    given[0].fill_(3.0)  # it reads the example inputs themselves
    assert call()["maps"][0].unique() == 6.0
    assert recorder.events[3:] == ["replayed", "replayed"]


def test_weights_live_as_long_as_the_call() -> None:
    """A CUDA graph knows only the addresses of the weights."""
    module = nn.Conv2d(2, 2, 1)
    call = run_graphed(module, (torch.ones(1, 2, 3, 3),), FakeRecorder())
    held = [cell.cell_contents for cell in call.__closure__ or ()]
    assert any(getattr(one, "module", None) is module for one in held)


def test_what_waits_for_the_device_is_one_line() -> None:
    class Strict(FakeRecorder):
        def record(self, call: Callable[[], Any], pool: object) -> Any:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")

    with pytest.raises(EngineError, match=r"Twice cannot be captured.*not permitted when stream"):
        Graphed(Twice(), Strict())(pyramid(4, 1.0))


def test_what_waits_is_never_recorded() -> None:
    class Watching(FakeRecorder):
        def refuse_waits(self, call: Callable[[], Any]) -> None:
            raise RuntimeError("called a synchronizing CUDA operation")

    recorder = Watching()
    with pytest.raises(EngineError, match=r"Twice cannot be captured.*synchronizing"):
        Graphed(Twice(), recorder)(pyramid(4, 1.0))
    assert recorder.events == [f"warmed up {WARM_UPS}"]


def test_a_pool_in_which_a_recording_broke_off_is_not_used_again() -> None:
    class Once(FakeRecorder):
        broken = False

        def record(self, call: Callable[[], Any], pool: object) -> Any:
            if self.broken:
                self.broken = False
                raise RuntimeError("operation not permitted when stream is capturing")
            return super().record(call, pool)

    recorder = Once()
    first = Graphed(Twice(), recorder)
    first(pyramid(4, 1.0))
    recorder.broken = True
    with pytest.raises(EngineError):
        Graphed(Twice(), recorder)(pyramid(4, 1.0))
    second = Graphed(Twice(), recorder)
    assert second(pyramid(4, 2.0))["maps"][0].unique() == 4.0
    assert [event for event in recorder.events if "pool" in event] == [
        "recorded in pool 1",
        "recorded in pool 2",
    ]
    assert first(pyramid(4, 3.0))["maps"][0].unique() == 6.0


def test_what_a_cache_gives_while_recording_lives_as_long_as_the_recording() -> None:
    from sepcbench.engines import canvas
    from sepcbench.engines.canvas import PackedPyramid, pack, rectified

    class Rectifies(nn.Module):
        def forward(self, maps: list[Tensor]) -> Tensor:
            packed, layout = pack(maps)
            found = rectified(PackedPyramid(maps[0].clone(), packed, layout, clean=False))
            assert isinstance(found, PackedPyramid)
            return found.canvas

    graphed = Graphed(Rectifies(), FakeRecorder())
    given = pyramid(4, 1.0)
    graphed(given)
    (recording,) = graphed.recordings.values()
    _, layout = pack(given)
    cached = canvas._limits(layout, torch.float32, torch.device("cpu"))
    assert {id(x) for x in cached} <= {id(x) for x in recording.held}


def test_running_out_of_memory_is_told_as_that() -> None:
    class Full(FakeRecorder):
        def record(self, call: Callable[[], Any], pool: object) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Graphed(Twice(), Full())(pyramid(4, 1.0))


@torch.no_grad()
def test_a_whole_detector_through_the_fake() -> None:
    detector = fold(randomised("retinanet_tiny_sepc_lite"))
    images = torch.randn(1, 3, 128, 128)
    graphed = Graphed(detector, FakeRecorder())
    for scale in (1.0, 2.0):
        found = graphed(images * scale)
        assert output_error(found, detector(images * scale)) < TOLERANCES["fp32"]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["retinanet_tiny_fpn", "retinanet_tiny_sepc", "fcos_tiny_pconv"])
@torch.no_grad()
def test_a_real_graph_gives_what_eager_gives(name: str) -> None:
    detector = fold(randomised(name)).cuda()
    graphed = Graphed(detector, CudaRecorder())
    for side in (128, 256, 128):
        images = torch.randn(2, 3, side, side, device="cuda")
        expected = detector(images)
        assert output_error(graphed(images), expected) < TOLERANCES["tf32"]
    assert len(graphed.recordings) == 2


@pytest.mark.gpu
@torch.no_grad()
def test_real_graphs_in_one_pool_do_not_disturb_each_other() -> None:
    detectors = [fold(randomised("retinanet_tiny_sepc", seed)).cuda() for seed in (0, 1)]
    images = torch.randn(1, 3, 256, 256, device="cuda")
    expected = [detector(images) for detector in detectors]
    calls = [run_graphed(detector, (images,)) for detector in detectors]
    for _ in range(3):
        found = [call() for call in calls]  # both are read after both have run
        torch.cuda.synchronize()
        for one, other in zip(found, expected):
            assert output_error(one, other) < TOLERANCES["tf32"]


@pytest.mark.gpu
@torch.no_grad()
def test_a_real_recording_refuses_what_waits_for_the_device() -> None:
    class Waits(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * float(x.sum())

    x = torch.ones(4, device="cuda")
    with pytest.raises(EngineError, match="cannot be captured"):
        run_graphed(Waits(), (x,))
    assert float((x + 1).sum()) == 8.0  # the device still works


@pytest.mark.gpu
@torch.no_grad()
def test_a_recording_that_breaks_off_does_not_spoil_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the call that refuses waits first, so that the capture itself fails."""

    class Waits(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * float(x.sum())

    monkeypatch.setattr(CudaRecorder, "refuse_waits", lambda self, call: None)
    x = torch.ones(4, device="cuda")
    kept = run_graphed(nn.Softplus(), (x,))
    stream = torch.cuda.current_stream()
    with pytest.raises(EngineError, match="cannot be captured"):
        run_graphed(Waits(), (x,))
    assert torch.cuda.current_stream() == stream
    assert torch.rand(3, device="cuda").shape == (3,)  # the generator is not capturing
    detector = fold(randomised("retinanet_tiny_sepc")).cuda()
    images = torch.randn(1, 3, 128, 128, device="cuda")
    call = run_graphed(detector, (images,))
    assert output_error(call(), detector(images)) < TOLERANCES["tf32"]
    assert torch.equal(kept(), nn.functional.softplus(x))
    torch.cuda.empty_cache()
