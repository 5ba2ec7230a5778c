"""A module of the user's own, named instead of registered, such as `mypkg.necks:MyNeck`."""

from __future__ import annotations

from dataclasses import dataclass

from sepcbench.errors import require

IMAGES = "none"  # as a backbone: the module takes the images themselves
DEFAULT_BACKBONE = "r50"


@dataclass(frozen=True)
class OwnSpec:
    """A module by its place, and what it is fed.

    Attributes:
        target: MODULE:NAME or FILE.py:NAME of a module, or of what makes one.
        backbone: a backbone, or a variant whose pyramid is the input; "none" for images. None
            lets the module say: what takes `in_channels` is a neck.
        name: of the row.
    """

    target: str
    backbone: str | None = None
    name: str = ""

    def __post_init__(self) -> None:
        module, colon, attribute = self.target.rpartition(":")
        written = bool(module and colon and attribute)
        require(written, f"'{self.target}' is not MODULE:NAME, such as mypkg.necks:MyNeck")
        if not self.name:
            object.__setattr__(self, "name", self.target)
