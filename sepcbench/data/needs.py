"""Whether a set has what a variant needs beyond images and boxes (`AnyHead.needs`)."""

from __future__ import annotations

from sepcbench.data.coco import CocoData, check_masks
from sepcbench.data.proposals import HOW, Proposals, check_proposals
from sepcbench.errors import DataError, UsageError
from sepcbench.specs import VariantSpec


def check_given(spec: VariantSpec, data: CocoData, proposals: Proposals | None) -> None:
    """Check that a detector that works on given proposals has them for every image, and no other.

    Raises:
        UsageError: proposals are needed and not given, or given and not needed.
        DataError: some images have none.
    """
    needed = "proposals" in spec.head.needs
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
    if "masks" in spec.head.needs:
        try:
            check_masks(data)
        except DataError as error:
            raise DataError(f"{spec.name} learns masks: {error}") from None
