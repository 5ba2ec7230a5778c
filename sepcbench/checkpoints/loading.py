"""From a checkpoint file to a detector with its weights, or to what is known about the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sepcbench import detectors
from sepcbench.checkpoints.contents import read
from sepcbench.checkpoints.fitting import Differences
from sepcbench.checkpoints.inspection import Conclusion, Inspection, OtherShape
from sepcbench.checkpoints.matching import Match, Wishes
from sepcbench.checkpoints.verdict import Verdict, judge
from sepcbench.codec import encode
from sepcbench.detectors import Detector
from sepcbench.errors import CheckpointError
from sepcbench.specs import CONVENTIONS, VariantSpec

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, eq=False)
class Loaded:
    """A detector with its weights, its class names (label 0 first; empty if not known), and why."""

    detector: Detector
    classes: tuple[str, ...]
    inspection: Inspection


def inspect(path: Path, wishes: Wishes | None = None, trust: bool = False) -> Inspection:
    """Say what a checkpoint is without loading it.

    Args:
        path: the file.
        wishes: what the user says about it.
        trust: unpickle whatever the file names.

    Raises:
        CheckpointError: it cannot be read.
        UsageError: no such variant, field or conventions.
    """
    return _inspection(judge(read(path, trust), wishes or Wishes()))


def load(path: Path, wishes: Wishes | None = None, trust: bool = False) -> Loaded:
    """Build the detector of a checkpoint with its weights and its producer's conventions.

    Arguments as in `inspect`.

    Raises:
        CheckpointError: it cannot be read, does not fit, or fits several variants.
        UsageError: no such variant, field or conventions.
    """
    verdict = judge(read(path, trust), wishes or Wishes())
    if verdict.match is None or verdict.spec is None or verdict.problem or verdict.ambiguous:
        raise CheckpointError(f"checkpoint '{path}': {verdict.problem or verdict.ambiguous}")
    inspection = _inspection(verdict)
    detector = _build(verdict.match, verdict.spec)
    return Loaded(detector, inspection.class_names, inspection)


def _build(match: Match, spec: VariantSpec) -> Detector:
    """The detector in eval mode; counters of batches that the file leaves out start at 0."""
    given = match.format.arrange(match.renamed.state, spec)
    detector = detectors.build(spec, init=False)
    wanted = detector.state_dict()
    state = {key: given.get(key, value.zero_()) for key, value in wanted.items()}
    detector.load_state_dict(state, strict=True)
    return detector.eval()


def _inspection(verdict: Verdict) -> Inspection:
    contents, match, spec = verdict.contents, verdict.match, verdict.spec
    compared = spec or (match.nearest if match else None)
    differences = match.differences if match else Differences()
    conventions = _conventions(match, spec)
    return Inspection(
        file=str(contents.path),
        container=contents.container,
        format=match.format.name if match and not match.possible else None,
        producer=_producer(verdict),
        variant=spec.name if spec else None,
        fits=tuple(fit.name for fit in match.fits) if match else (),
        compared_with=compared.name if compared else None,
        num_classes=compared.num_classes if compared else None,
        class_names=(
            match.format.classes(contents, compared.num_classes) if match and compared else ()
        ),
        conventions=conventions,
        conventions_changed=_changed(spec) if spec and conventions else (),
        tensors=len(contents.state),
        parameters=_parameters(verdict),
        dtypes=contents.dtypes,
        missing=differences.missing,
        unexpected=differences.unexpected,
        other_shapes=tuple(OtherShape(*entry) for entry in differences.shapes),
        not_finite=contents.broken,
        notes=contents.notes,
        reasons=tuple(Conclusion(*reason) for reason in verdict.reasons),
        ambiguous=verdict.ambiguous,
        problem=verdict.problem,
    )


def _conventions(match: Match | None, spec: VariantSpec | None) -> str | None:
    if match is None or match.possible:
        return None
    return spec.conventions.name if spec else match.format.conventions or None


def _producer(verdict: Verdict) -> str:
    match = verdict.match
    if match is None or match.possible:
        return "unknown"
    version = match.format.version(verdict.contents)
    return match.format.producer + (f", version {version}" if version else "")


def _parameters(verdict: Verdict) -> int:
    state = verdict.match.renamed.state if verdict.match else verdict.contents.state
    return sum(value.numel() for key, value in state.items() if not key.endswith(_STATISTICS))


def _changed(spec: VariantSpec) -> tuple[tuple[str, str], ...]:
    """The fields in which conventions are not those of their named set."""
    ours, theirs = encode(spec.conventions), encode(CONVENTIONS[spec.conventions.name])
    return tuple((field, str(value)) for field, value in ours.items() if value != theirs[field])
