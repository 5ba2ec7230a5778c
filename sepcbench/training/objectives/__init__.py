"""Training objectives: one file per head, from raw predictions and targets to losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from sepcbench.errors import UsageError
from sepcbench.specs import (
    HEAD_TYPES,
    AtssSpec,
    FcosSpec,
    FreeAnchorSpec,
    FsafSpec,
    HeadSpec,
    RcnnSpec,
    RepPointsSpec,
    RetinaSpec,
    RpnSpec,
)
from sepcbench.training.objectives.atss import atss_loss
from sepcbench.training.objectives.fcos import fcos_loss
from sepcbench.training.objectives.free_anchor import free_anchor_loss
from sepcbench.training.objectives.fsaf import fsaf_loss
from sepcbench.training.objectives.rcnn import rcnn_loss
from sepcbench.training.objectives.rep_points import rep_points_loss
from sepcbench.training.objectives.retina import retina_loss
from sepcbench.training.objectives.rpn import rpn_loss
from sepcbench.training.objectives.targets import Target

if TYPE_CHECKING:
    from sepcbench.detectors import Detector
    from sepcbench.heads import LevelOutput

OBJECTIVES: dict[type, Callable[..., dict[str, Tensor]]] = {
    RetinaSpec: retina_loss,
    FcosSpec: fcos_loss,
    AtssSpec: atss_loss,
    FreeAnchorSpec: free_anchor_loss,
    FsafSpec: fsaf_loss,
    RepPointsSpec: rep_points_loss,
    RpnSpec: rpn_loss,
    RcnnSpec: rcnn_loss,
}
"""From the type of a head's spec to its objective, called like `loss`.

A head without a line here can be measured and evaluated but not trained.
"""

__all__ = ["OBJECTIVES", "Target", "check_trainable", "loss"]


def check_trainable(name: str, head: HeadSpec) -> None:
    """Check that the head of the variant `name` has an objective.

    Raises:
        UsageError: it has none.
    """
    if type(head) not in OBJECTIVES:
        able = ", ".join(f"'{kind}'" for kind, cls in HEAD_TYPES.items() if cls in OBJECTIVES)
        raise UsageError(
            f"train {name}: head '{head.TYPE}' has no training objective, only {able} have; train "
            "a variant with one of those, or evaluate weights with `sepcbench eval`"
        )


def loss(
    detector: Detector,
    outputs: list[LevelOutput],
    targets: Sequence[Target],
    image_sizes: Sequence[tuple[int, int]],
) -> dict[str, Tensor]:
    """Compute the losses of a batch: named scalars whose sum is to be minimised.

    Args:
        detector: the one that gave `outputs`.
        outputs: raw predictions per level.
        targets: one per image, on the device of the outputs.
        image_sizes: (height, width) of each resized, unpadded image.
    """
    return OBJECTIVES[type(detector.spec.head)](detector, outputs, targets, image_sizes)
