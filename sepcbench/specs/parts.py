"""What every backbone, neck and head says of itself; a part overrides what is different there.

Whatever works on any part asks for these and never for its type. JSON has none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from sepcbench.errors import UsageError
from sepcbench.specs.names import Need


@dataclass(frozen=True)
class AnyBackbone:
    """Images in, maps of strides 4 to 32 out."""

    TYPE: ClassVar[str]

    @property
    def label(self) -> str:
        """How it is called in a list of variants."""
        return self.TYPE

    @property
    def levels(self) -> tuple[int, ...]:
        """The levels of its maps: 2 for C2, of stride 4."""
        return (2, 3, 4, 5)

    @property
    def plain_last_stage(self) -> bool:
        """Whether its last stage is of plain ResNet bottlenecks, as a `conv5` head builds it."""
        return False

    def without_c5(self) -> Self:
        """The same without its last stage.

        Raises:
            UsageError: it cannot leave that out.
        """
        raise UsageError(
            f"a C4 baseline needs a ResNet: backbone '{self.label}' cannot leave out its last "
            "stage; take r50, r101, r152 or tiny"
        )


@dataclass(frozen=True)
class AnyNeck:
    """Pyramid in, pyramid or pyramid pair out."""

    TYPE: ClassVar[str]

    @property
    def label(self) -> str:
        """How it is called in a list of variants."""
        return self.TYPE

    @property
    def levels(self) -> tuple[int, ...] | None:
        """The pyramid levels that come out; None for those that go in."""
        return None

    @property
    def tower(self) -> bool:
        """Whether it stands in for the towers of the head: gives a pyramid pair."""
        return False

    @property
    def scale_reach(self) -> int | None:
        """How many levels up and down its PConvs can read; None without PConvs."""
        return None


@dataclass(frozen=True)
class AnyHead:
    """Pyramid or pyramid pair in, predictions out."""

    TYPE: ClassVar[str]

    @property
    def label(self) -> str:
        """How it is called in a list of variants."""
        return f"{self.TYPE} head"

    @property
    def one_stage(self) -> bool:
        """Whether boxes of classes are read off its maps, without a second stage."""
        return False

    @property
    def reads_pairs(self) -> bool:
        """Whether it has two branches, and so can read a pyramid pair."""
        return False

    @property
    def has_last_stage(self) -> bool:
        """Whether it has the stage that the backbone leaves out."""
        return False

    @property
    def needs(self) -> frozenset[Need]:
        """What it cannot be trained without: masks of the objects, proposals per image.

        Proposals it needs also to detect.
        """
        return frozenset()

    @property
    def gives_proposals(self) -> bool:
        """Whether what it finds are class-agnostic proposals, scored by their recall."""
        return False

    @property
    def mask_threshold(self) -> float | None:
        """The probability from which a pixel is of a mask; None without masks."""
        return None
