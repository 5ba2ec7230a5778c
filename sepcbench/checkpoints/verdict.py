"""What a file is: one variant with its producer's conventions, or why that cannot be said."""

from __future__ import annotations

from dataclasses import dataclass

from sepcbench import overriding
from sepcbench.checkpoints import FORMATS
from sepcbench.checkpoints.contents import Contents
from sepcbench.checkpoints.format import Format, Reason
from sepcbench.checkpoints.matching import Match, Wishes, differing_fields, find
from sepcbench.errors import unknown
from sepcbench.specs import CONVENTIONS, VariantSpec


@dataclass(frozen=True, eq=False)
class Verdict:
    """What was concluded about a file.

    Attributes:
        contents: of the file.
        match: its format and the variants that fit; None if no format does.
        spec: the variant, with the producer's conventions; None if it cannot be told.
        reasons: what the conclusions rest on.
        ambiguous: what the file does not say and the user must, in one line.
        problem: why it cannot be loaded, in one line.
    """

    contents: Contents
    match: Match | None
    spec: VariantSpec | None
    reasons: tuple[Reason, ...]
    ambiguous: str | None
    problem: str | None


def judge(contents: Contents, wishes: Wishes) -> Verdict:
    """Draw all conclusions, each with its reason.

    Raises:
        UsageError: no such variant, field or conventions.
    """
    if wishes.conventions is not None and wishes.conventions not in CONVENTIONS:
        raise unknown("conventions", wishes.conventions, CONVENTIONS)
    match = find(contents, wishes)
    if match is None:
        keys = ", ".join(list(contents.state)[:3])
        unknown_keys = (
            f"its keys are of no format known here ({keys}, ...); known: {', '.join(FORMATS)}"
        )
        return Verdict(contents, None, None, (), None, unknown_keys)
    fits, why = _stated(contents, match, wishes)
    reasons = list(match.reasons)
    spec = None
    if len(fits) == 1:
        reasons.append(Reason(f"variant {fits[0].name}", why))
        spec = fits[0]
    if not match.possible:
        spec = _as_produced(contents, match.format, spec, wishes, reasons)
    problem = _problem(contents, match) or _obstacles(contents, match, spec, wishes, reasons)
    spec = wishes.apply(spec) if spec else None
    return Verdict(contents, match, spec, tuple(reasons), _ambiguity(match, fits), problem)


def _stated(
    contents: Contents, match: Match, wishes: Wishes
) -> tuple[tuple[VariantSpec, ...], str]:
    """The fits whose head the file names, or all of them if it names none; and why these."""
    heads = match.format.heads(contents)
    others = f"; the file names the head {' and '.join(heads)}"
    named = tuple(spec for spec in match.fits if spec.head.TYPE in heads)
    if wishes.variant is not None:
        return match.fits, "asked for; keys and shapes fit" + (
            others if heads and not named else ""
        )
    if match.format.inside(contents) is not None:
        return match.fits, "written in the file; keys and shapes fit"
    if len(match.fits) == 1:
        why = "the only named variant with these keys and shapes"
        return match.fits, why + (others if heads and not named else "")
    names = ", ".join(spec.name for spec in match.fits)
    return named or match.fits, f"keys and shapes are those of {names}{others}"


def _ambiguity(match: Match, fits: tuple[VariantSpec, ...]) -> str | None:
    lines = []
    if match.possible:
        producers = " or ".join(made.producer for made in match.possible)
        sets = " or ".join(sorted({made.conventions for made in match.possible}))
        lines.append(
            f"nothing in the file says whether {producers} wrote it, and their boxes differ; "
            f"add --conventions {sets}"
        )
    if len(fits) > 1:
        lines.append(
            f"{' and '.join(spec.name for spec in fits)} have the same keys and shapes and differ "
            f"only in {differing_fields(fits)}; nothing in the file says which it is, add --variant"
        )
    return "; ".join(lines) or None


def _problem(contents: Contents, match: Match) -> str | None:
    if match.nearest is None:
        return f"no named variant can come from {match.format.producer}"
    if not match.fits:
        return f"it does not fit {match.nearest.name}{_hint(contents, match)}: " + (
            match.differences.line()
        )
    if contents.broken:
        count, first = len(contents.broken), contents.broken[0]
        return f"NaN or infinite values in {count} tensors, the first is '{first}'"
    return None


def _obstacles(
    contents: Contents,
    match: Match,
    spec: VariantSpec | None,
    wishes: Wishes,
    reasons: list[Reason],
) -> str | None:
    """What the file asks for and is not there; who names conventions goes on without it."""
    found = match.format.obstacles(contents, spec) if spec and not match.possible else ()
    if not found:
        return None
    if wishes.conventions is not None:
        reasons += [Reason(f"not followed: {what}", "conventions were asked for") for what in found]
        return None
    return (
        f"its configuration asks for {' and '.join(found)}, so boxes would differ from those of "
        f"{match.format.producer}; add --conventions {match.format.conventions} to go on without"
    )


def _hint(contents: Contents, match: Match) -> str:
    """Say that no named variant fits, or which one would."""
    free = find(contents, Wishes(conventions=match.format.conventions))
    if free is None or not free.fits:
        return ", the nearest, nor any other named variant"
    return f" but {' and '.join(spec.name for spec in free.fits)}"


def _as_produced(
    contents: Contents,
    made_by: Format,
    spec: VariantSpec | None,
    wishes: Wishes,
    reasons: list[Reason],
) -> VariantSpec | None:
    """The variant as the producer had it, before the user's overrides, which come last."""
    if made_by.conventions:
        why = f"those of {made_by.producer}"
        reasons.append(Reason(f"conventions {made_by.conventions}", why))
    elif spec is not None:
        reasons.append(Reason(f"conventions {spec.conventions.name}", "written in the file"))
    if spec is None:
        return None
    if made_by.conventions:
        spec = overriding.override(spec, "conventions", made_by.conventions)
    for setting in made_by.settings(contents, spec):
        spec = overriding.override(spec, setting.field, setting.value)
        reasons.append(Reason(f"{setting.field} = {setting.value}", setting.why))
    wanted = wishes.conventions
    if wanted is not None and wanted != spec.conventions.name:
        spec = overriding.override(spec, "conventions", wanted)
        reasons.append(Reason(f"conventions {wanted}", "asked for"))
    reasons += [Reason(f"{field} = {value}", "asked for") for field, value in wishes.overrides]
    return spec
