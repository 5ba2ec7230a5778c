"""Class names that published detectors leave out of their files."""

from __future__ import annotations

from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

TORCHVISION: tuple[str, ...] = tuple(RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
"""By COCO's category ids: 0 is the background, and ids that COCO does not use are "N/A"."""

COCO: tuple[str, ...] = tuple(name for name in TORCHVISION if name not in ("__background__", "N/A"))
"""COCO's 80 classes in the order of their category ids."""
