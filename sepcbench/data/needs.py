"""What a head takes of the data beyond images and boxes, and what it gives."""

from __future__ import annotations

from typing import Literal

from sepcbench.data.coco import CocoData, check_masks
from sepcbench.data.proposals import HOW, Proposals, check_proposals
from sepcbench.errors import DataError, UsageError
from sepcbench.specs import HeadSpec, RcnnSpec, RpnSpec, VariantSpec

Need = Literal["masks", "proposals"]


def needs(head: HeadSpec) -> frozenset[Need]:
    """What a head cannot be trained without: masks of the objects, proposals per image.

    Proposals it needs also to detect.
    """
    found: set[Need] = set()
    if isinstance(head, RcnnSpec) and head.mask is not None:
        found.add("masks")
    if isinstance(head, RcnnSpec) and head.rpn is None:
        found.add("proposals")
    return frozenset(found)


def gives_proposals(head: HeadSpec) -> bool:
    """Whether what a head finds are class-agnostic proposals, scored by their recall."""
    return isinstance(head, RpnSpec)


def check_given(spec: VariantSpec, data: CocoData, proposals: Proposals | None) -> None:
    """Check that a detector that works on given proposals has them for every image, and no other.

    Raises:
        UsageError: proposals are needed and not given, or given and not needed.
        DataError: some images have none.
    """
    needed = "proposals" in needs(spec.head)
    if needed and proposals is None:
        raise UsageError(f"{spec.name} works on given proposals: add --proposals FILE; {HOW}")
    if proposals is not None and not needed:
        raise UsageError(f"{spec.name} finds its own boxes; leave out --proposals")
    if proposals is not None:
        check_proposals(proposals, data)


def check_learnable(spec: VariantSpec, data: CocoData, proposals: Proposals | None) -> None:
    """Check that a set, with the given proposals, has what a variant is trained on.

    Raises:
        UsageError: proposals are needed and not given, or given and not needed.
        DataError: masks are needed and some object has none, or some image has no proposals.
    """
    check_given(spec, data, proposals)
    if "masks" in needs(spec.head):
        try:
            check_masks(data)
        except DataError as error:
            raise DataError(f"{spec.name} learns masks: {error}") from None
