"""sepcbench: what does this neck cost, and what does it buy?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sepcbench.detectors import Detector

__version__ = "0.1.0"
__all__ = ["__version__", "build"]


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
