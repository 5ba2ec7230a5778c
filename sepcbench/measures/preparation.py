"""A case made ready to be timed: a copy of its detector, rewritten, checked against eager code."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sepcbench.engines import Engine
from sepcbench.errors import UsageError
from sepcbench.measures.cases import DTYPES, Case
from sepcbench.measures.correctness import check_outputs
from sepcbench.measures.decoding import Boxed, check_decoding, plain_reason
from sepcbench.measures.environment import float32
from sepcbench.measures.lifelike import liven, needs_life
from sepcbench.measures.pipeline import prepare_into, preparing, raw_images, scale_of
from sepcbench.measures.roofline import traffic
from sepcbench.measures.scopes import SCOPES, Frame, decoded, prepared
from sepcbench.measures.timers import Call
from sepcbench.specs import Scope
from sepcbench.units import format_shape

Inputs = tuple[Any, ...]


@dataclass
class Ready:
    """A case that can be called.

    `detector` is the rewritten copy; `run` computes on `inputs` what `call` turns into boxes.
    `prepare` writes the inputs anew, in a scope that has it. `error` is the engine's difference to
    eager code, None for eager code itself; `traffic` (multiply-adds, bytes) if it was asked for.
    `boxed` is there where boxes are decoded as a part of what the engine runs.
    `notes` are what is to be known of the case.
    """

    case: Case
    call: Call
    run: Call
    detector: nn.Module
    engine: Engine
    inputs: Inputs
    frame: Frame
    prepare: Call | None = None
    error: float | None = None
    traffic: tuple[int, int] | None = None
    boxed: Boxed | None = None
    notes: tuple[str, ...] = ()


@dataclass
class Bench:
    """Where the cases of one group are made ready; they share images and inputs.

    Attributes:
        scope: what is timed.
        device: where.
        seed: of images and of weights that are given life.
        engines: from name to engine.
        count_traffic: count multiply-adds and bytes of eager code.
        batched: decode in tensors of fixed sizes, so that a CUDA graph holds network, decoding and
            NMS, with the engines that can; by default on a GPU, as on a CPU it gains nothing.
    """

    scope: Scope
    device: str
    seed: int
    engines: Mapping[Any, Engine]
    count_traffic: bool = False
    batched: bool | None = None
    _inputs: dict[tuple[str, torch.dtype, bool], Inputs] = field(default_factory=dict)
    _noise: dict[torch.dtype, Tensor] = field(default_factory=dict)
    _raw: list[Tensor] = field(default_factory=list)
    _alive: dict[str, nn.Module] = field(default_factory=dict)
    _traffic: dict[tuple[str, torch.dtype], tuple[int, int]] = field(default_factory=dict)
    _exact: dict[tuple[str, str], Any] = field(default_factory=dict)

    def ready(self, detector: nn.Module, case: Case) -> Ready:
        """Copy a detector and make it ready.

        Raises:
            EngineError: the engine cannot work here, or computes something else than eager code.
        """
        engine, parts = self.engines[case.engine], SCOPES[self.scope]
        engine.check(self.device, case.dtype)
        if parts.decodes and not hasattr(detector, "decode"):
            detector.detect()  # type: ignore[operator]  # a module of the user's own says why not
        frame = self.frame(case)
        with torch.no_grad():
            own = self.copied(detector, case)
            inputs = self.inputs(own, case)
            plain = parts.module(own, frame)
            traffic = self.traffic(plain, inputs, case)
            expected = None if case.engine == "eager" else _kept(plain(*inputs))
            made = self.rewritten(own, case, frame, traffic)
            if expected is not None:
                self.check(made, expected, detector)
        return made

    def rewritten(
        self, own: nn.Module, case: Case, frame: Frame, traffic: tuple[int, int] | None
    ) -> Ready:
        """A copy of a detector rewritten by its engine, and what is called of it."""
        engine, parts = self.engines[case.engine], SCOPES[self.scope]
        rewritten = engine.rewrite(own)
        inputs = self.inputs(own, case, engine.channels_last)
        batched, notes = self.decodes_batched(rewritten, engine)
        boxed = Boxed(rewritten, frame, engine.run, inputs) if batched else None
        run = boxed.outputs if boxed else engine.run(parts.module(rewritten, frame), inputs)
        call = boxed.detections if boxed else run
        if parts.decodes and not boxed:
            call = decoded(rewritten, run, frame)
        prepare = None
        if parts.prepares:
            prepare = preparing(inputs[0], self.raw(case), rewritten.spec.conventions)  # type: ignore[union-attr,arg-type]
        return Ready(
            case,
            prepared(prepare, call) if prepare else call,
            run,
            rewritten,
            engine,
            inputs,
            frame,
            prepare,
            traffic=traffic,
            boxed=boxed,
            notes=notes,
        )

    def decodes_batched(self, detector: nn.Module, engine: Engine) -> tuple[bool, tuple[str, ...]]:
        """Whether boxes are decoded in tensors of fixed sizes; if not though they could, why."""
        on = self.device.startswith("cuda") if self.batched is None else self.batched
        if not (on and engine.batched_decode and SCOPES[self.scope].decodes):
            return False, ()
        reason = plain_reason(detector)
        return reason is None, () if reason is None else (f"decoded plainly: {reason}",)

    def check(self, made: Ready, expected: Any, detector: nn.Module) -> None:
        """Compare with eager code in the second call: the first may have spoilt the inputs.

        Raises:
            EngineError: the engine computes something else, or other boxes.
        """
        case, kept = made.case, _kept(made.inputs)
        try:
            made.run()
            found = made.run()
            exact = lambda: self.exact(detector, case, kept)  # noqa: E731
            made.error = check_outputs(found, expected, case, exact)
            if made.boxed:
                made.notes += check_decoding(made.boxed, made.detector, made.frame, case)
        finally:
            for given, clean in zip(pytree.tree_leaves(made.inputs), pytree.tree_leaves(kept)):
                given.copy_(clean)

    def exact(self, detector: nn.Module, case: Case, inputs: Inputs) -> Any:
        """Outputs of eager code in float32 without TF32, of weights as they are in the dtype.

        On the host, once per row and dtype.
        """
        key = (case.row, case.dtype)
        if key not in self._exact:
            own = self.copied(detector, case).float()
            plain = SCOPES[self.scope].module(own, self.frame(case))
            wide = pytree.tree_map_only(Tensor, lambda x: x.float().contiguous(), inputs)
            with float32(False):
                outputs = plain(*wide)
            self._exact[key] = pytree.tree_map_only(Tensor, lambda x: x.cpu(), outputs)
        return self._exact[key]

    def copied(self, detector: nn.Module, case: Case) -> nn.Module:
        """A copy with live weights on the device and in the dtype, in eval mode."""
        own = copy.deepcopy(self.alive(detector, case)).to(self.device, DTYPES[case.dtype])
        return own.eval()

    def frame(self, case: Case) -> Frame:
        """The images of a case."""
        if not SCOPES[self.scope].prepares:
            return Frame(case.shape, case.batch)
        return Frame(case.shape, case.batch, scale_of(self.raw(case)[0], case.shape))

    def alive(self, detector: nn.Module, case: Case) -> nn.Module:
        """The detector, random weights given the work of trained ones; see `lifelike`."""
        boxes = SCOPES[self.scope].decodes
        if case.row not in self._alive:
            self._alive[case.row] = detector
            if needs_life(detector, boxes):
                own: Any = copy.deepcopy(detector).to(self.device, torch.float32).eval()
                image = self.images(own, case, torch.float32)[:1]
                with float32(False):
                    liven(own, image, self.seed, boxes=boxes)
                self._alive[case.row] = own.cpu()
        return self._alive[case.row]

    def inputs(self, detector: nn.Module, case: Case, channels_last: bool = False) -> Inputs:
        """What the scope's module gets, computed by plain code and the same for every engine."""
        dtype = DTYPES[case.dtype]
        key = (case.row, dtype, channels_last)
        if key not in self._inputs:
            if channels_last:
                plain = self.inputs(detector, case)
                self._inputs[key] = pytree.tree_map_only(Tensor, _laid_out, plain)
            else:
                images: Any = self.images(detector, case, dtype)
                from_features = SCOPES[self.scope].from_features
                self._inputs[key] = (detector.features(images) if from_features else images,)  # type: ignore[operator]
        return self._inputs[key]

    def images(self, detector: Any, case: Case, dtype: torch.dtype) -> Tensor:
        """Images (N, 3, H, W): normal noise, or noise that was pre-processed as the row says."""
        noise = self.noise(case, dtype)
        if not SCOPES[self.scope].prepares:
            return noise
        images = torch.empty_like(noise)
        prepare_into(images, self.raw(case), detector.spec.conventions)
        return images

    def noise(self, case: Case, dtype: torch.dtype) -> Tensor:
        """Normal noise (N, 3, H, W), the same for every row, machine and run.

        Raises:
            UsageError: there is not enough memory for it.
        """
        if dtype not in self._noise:
            generator = torch.Generator().manual_seed(self.seed)
            try:
                noise = torch.randn(case.batch, 3, *case.shape, generator=generator)
                self._noise[dtype] = noise.to(self.device, dtype)
            except RuntimeError as error:
                told = str(error).strip().splitlines()[:1]
                raise UsageError(
                    f"{case.batch} images of {format_shape(case.shape)} do not fit on "
                    f"'{self.device}' ({''.join(told)}); use a smaller --batch or --shape"
                ) from None
        return self._noise[dtype]

    def raw(self, case: Case) -> list[Tensor]:
        """The uint8 images of a batch, the same for every row; pinned for a GPU."""
        pinned = self.device.startswith("cuda")
        self._raw = self._raw or raw_images(case.shape, case.batch, self.seed, pinned=pinned)
        return self._raw

    def traffic(self, plain: nn.Module, inputs: Inputs, case: Case) -> tuple[int, int] | None:
        """Multiply-adds and bytes of eager code, counted once per row and dtype."""
        if not self.count_traffic:
            return None
        key = (case.row, DTYPES[case.dtype])
        if key not in self._traffic:
            self._traffic[key] = traffic(plain, inputs)
        return self._traffic[key]


def _laid_out(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _kept(outputs: Any) -> Any:
    """Copies: what runs in place later may write into what a call gave."""
    return pytree.tree_map_only(Tensor, torch.clone, outputs)
