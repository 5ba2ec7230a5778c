"""sepcbench: what does this neck cost, and what does it buy?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from sepcbench.detectors import Detector
    from sepcbench.specs import VariantSpec

__version__ = "0.1.0"
__all__ = ["__version__", "build", "load"]


def build(name: str, **overrides: Any) -> Detector:
    """Build a named variant as a module.

    Args:
        name: a variant, such as `retinanet_r50_sepc`.
        overrides: fields to change, such as `norm="gn"`, or `**{"necks.1.depth": 6}`.

    Returns:
        A module with `.backbone`, `.necks` and `.head`. Calling it on a normalised batch
        (N, 3, H, W) gives the raw head outputs per level; `.detect` gives boxes.

    Raises:
        UsageError: unknown variant or field, or a value that does not fit.
    """
    from sepcbench import detectors, variants

    return detectors.build(variants.variant(name, overrides))


def load(
    path: str | Path,
    variant: str | VariantSpec | None = None,
    conventions: str | None = None,
    *,
    trust: bool = False,
    **overrides: Any,
) -> Detector:
    """Load a checkpoint of any known format with its producer's conventions.

    Args:
        path: safetensors, what `torch.save` wrote, or detectron2's pickle of arrays.
        variant: a name or a spec; needed only where keys and shapes fit several.
        conventions: a named set, instead of that of the producer.
        trust: unpickle whatever the file names, which may run any code in it.
        overrides: fields to change, such as `score_threshold=0.3`.

    Returns:
        A module in eval mode; `.detect` gives what the producer's code would give. What was
        concluded about the file, and why, is what `sepcbench inspect` prints.

    Raises:
        CheckpointError: it cannot be read, does not fit, or fits several variants.
        UsageError: unknown variant, conventions or field.
    """
    from pathlib import Path

    from sepcbench.checkpoints import loading
    from sepcbench.checkpoints.matching import Wishes

    wishes = Wishes(variant, conventions, tuple(overrides.items()))
    return loading.load(Path(path), wishes, trust).detector
