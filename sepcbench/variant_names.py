"""What is wrong with the name of a variant that is put together from parts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import SequenceMatcher

from sepcbench.errors import UsageError, nearest, unknown
from sepcbench.named_backbones import NAMED_BACKBONES, TIMM

_SURE = 0.8  # how alike the first words are where a name that is not put together is meant
Parts = tuple[str, str, str]


def unknown_variant(
    name: str, necks: Mapping[str, Collection[str]], listed: Collection[str]
) -> UsageError:
    """Build the error for a name that is no variant: which of its parts is none, and what is near.

    Args:
        name: what was given; DETECTOR_BACKBONE_NECK was wanted.
        necks: those of every detector.
        listed: names of variants, with those that are not put together.
    """
    others = {_first(one) for one in listed if not one.startswith(tuple(necks))}
    parts = _likeliest(name, necks)
    if parts is None or _likeness(_first(name), others) > _SURE:
        return unknown("variant", name, listed, "see `sepcbench list variants`")
    tables = _tables(parts[0], necks)
    found = [_known(part, table) for part, table in zip(parts, tables.values())]
    meant = _corrected(found, necks)
    wrong = [
        _fault(kind, part, table)
        for (kind, table), part, known in zip(tables.items(), parts, found)
        if part != known
    ]
    line = f"unknown variant '{name}': {', '.join(wrong)}"
    line += f"; did you mean '{meant}'?" if meant else ""
    lists = "backbones" if parts[1] != found[1] else "detectors"
    return UsageError(f"{line} (see `sepcbench list {lists}`)")


def _first(name: str) -> str:
    return name.partition("_")[0]


def _tables(detector: str, necks: Mapping[str, Collection[str]]) -> dict[str, Collection[str]]:
    """The names of every kind of part; the necks are those of the detector that is meant."""
    near = _known(detector, necks) or ""
    every = dict.fromkeys(neck for some in necks.values() for neck in some)
    kind = f"neck of {near}" if near else "neck"
    return {"detector": necks, "backbone": NAMED_BACKBONES, kind: necks.get(near, every)}


def _likeliest(name: str, necks: Mapping[str, Collection[str]]) -> Parts | None:
    """The reading of a name that has the most known parts; None where it cannot be three parts."""

    def score(parts: Parts) -> tuple[int, float]:
        tables = _tables(parts[0], necks).values()
        known = sum(_known(part, table) == part for part, table in zip(parts, tables))
        return known, sum(_likeness(part, table) for part, table in zip(parts, tables))

    best = max(_readings(name), key=score, default=None)
    return best if best and score(best) > (0, 1.5) else None


def _readings(name: str) -> Iterator[Parts]:
    words = name.split("_")
    for i in range(1, len(words) - 1):
        for j in range(i + 1, len(words)):
            yield "_".join(words[:i]), "_".join(words[i:j]), "_".join(words[j:])


def _known(part: str, table: Collection[str]) -> str | None:
    """The name that is meant by a part, which may be itself; None where nothing is near."""
    if part in table or (table is NAMED_BACKBONES and part.startswith(TIMM)):
        return part
    return nearest(part.lower(), table)


def _likeness(part: str, table: Collection[str]) -> float:
    if table is NAMED_BACKBONES and part.startswith(TIMM):
        return 1.0
    return max((SequenceMatcher(None, part.lower(), one).ratio() for one in table), default=0.0)


def _fault(kind: str, part: str, table: Collection[str]) -> str:
    near = _known(part, table)
    if near:
        return f"unknown {kind} '{part}', the nearest is '{near}'"
    return f"unknown {kind} '{part}', known: {', '.join(table)}"


def _corrected(parts: list[str | None], necks: Mapping[str, Collection[str]]) -> str | None:
    """The nearest variant; None where a part is like nothing."""
    detector, backbone, neck = parts
    if not (detector and backbone and neck) or neck not in necks[detector]:
        return None
    return f"{detector}_{backbone}_{neck}"
