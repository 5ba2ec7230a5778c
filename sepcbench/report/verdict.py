"""What a suite's numbers come to: who is on the Pareto front, who is beaten, what to take."""

from __future__ import annotations

import numpy as np

from sepcbench.records import Results, Row
from sepcbench.report.front import SURE, Axis, Front, Place, front
from sepcbench.report.table import Table

# How much more than the first row a choice may cost.
BUDGETS = (0.05, 0.1, 0.25, 0.5)
MOST_BEATEN = 6  # more than these are not named in the paragraph


def verdict_table(results: Results) -> Table | None:
    """One paragraph, as the first note, and one line per row; None where rows do not compare."""
    found = front(results)
    if found is None:
        return None
    headers = ("row", "verdict", *(_header(axis) for axis in found.axes))
    rows = tuple(_line(found, i) for i in range(len(found.places)))
    notes = (_paragraph(found), *_budgets(found), *_caveats(found))
    return Table(f"{results.title}: verdict", headers, rows, notes)


def _header(axis: Axis) -> str:
    return {"latency": "latency, times the first row", "MACs": "total, GMAC"}.get(
        axis.name, f"{axis.name}, %"
    )


def _line(found: Front, i: int) -> tuple[str, ...]:
    place = found.places[i]
    return (place.row.label, place_text(found, place), *(_value(a, i) for a in found.axes))


def _value(axis: Axis, i: int) -> str:
    value = float(axis.values[i])
    if axis.name == "MACs":
        return f"{value / 1e9:,.1f}" if value > 1e10 else f"{value / 1e9:.3g}"
    return f"{value:.3f}" if axis.name == "latency" else f"{value:.1f}"


def place_text(found: Front, place: Place) -> str:
    """Where a row stands, in words: "on the front in 98 % of draws"."""
    by = _label(found, place.beaten_by)
    if place.share is None:
        return "on the front" if place.on_front else f"beaten by {by}"
    if place.share >= SURE:
        return f"on the front in {_percent(place.share)} of draws"
    if place.share <= 1 - SURE:
        beaten = _percent(1 - place.share)
        if by and _percent(place.beaten_share or 0.0) == beaten:
            return f"beaten by {by} in {beaten} of draws"
        return f"beaten in {beaten} of draws{_most_by(place, ', by', by)}"
    return f"~ on the front in {_percent(place.share)} of draws{_most_by(place, '; beaten by', by)}"


def _most_by(place: Place, words: str, by: str) -> str:
    return f"{words} {by} in {_percent(place.beaten_share or 0.0)}" if by else ""


def _percent(share: float) -> str:
    """A share of draws; one of a thousand is not none, and all but one are not all."""
    if 0 < share < 0.01:
        return "< 1 %"
    return "> 99 %" if 0.99 < share < 1 else f"{100 * share:.0f} %"


def _label(found: Front, name: str) -> str:
    return next((_said(row) for row in found.rows if row.name == name), "")


def _said(row: Row) -> str:
    """A row's label in a sentence: in quotes where a comma of it would part a list."""
    return f"'{row.label}'" if "," in row.label else row.label


def _paragraph(found: Front) -> str:
    """The whole of it in a few sentences."""
    what = _listed([axis.name for axis in found.axes])
    sure: list[Place] = []
    open_: list[Place] = []
    beaten: list[Place] = []
    for place in found.places:
        share = place.share if place.share is not None else float(place.on_front)
        into = sure if share >= SURE else beaten if share <= 1 - SURE else open_
        into.append(place)
    drawn = any(place.share is not None for place in found.places)
    confidence = f" in at least {100 * SURE:.0f} % of draws" if drawn else ""
    names = _listed([_said(place.row) for place in sure])
    parts = [f"Of {len(found.places)} rows, {names or 'none'} {_are(sure)} on the Pareto front of "]
    parts[0] += f"{what}{confidence}."
    if len(beaten) > MOST_BEATEN:
        parts.append(f"{len(beaten)} rows are beaten; their lines say by which.")
    elif beaten:
        parts.append(f"Beaten: {_listed([_beaten(found, place) for place in beaten])}.")
    if open_:
        names = _listed([_said(place.row) for place in open_])
        parts.append(f"Not decided by these measurements: {names}.")
    return " ".join(parts)


def _are(places: list[Place]) -> str:
    return "is" if len(places) <= 1 else "are"


def _beaten(found: Front, place: Place) -> str:
    by = _label(found, place.beaten_by)
    return f"{_said(place.row)} by {by}" if by else _said(place.row)


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


# --- budgets -------------------------------------------------------------------------------------


def _budgets(found: Front) -> list[str]:
    """For each budget the row of the highest score within it; alike budgets on one line."""
    price = found.axis("latency") or found.axis("MACs")
    if price is None:
        return []
    chosen: dict[int, list[float]] = {}
    for budget in BUDGETS:
        chosen.setdefault(_choice(found, price, 1 + budget), []).append(budget)
    return [_advice(found, price, i, budgets) for i, budgets in chosen.items()]


def _choice(found: Front, price: Axis, most: float) -> int:
    """The row with the highest score among those that cost at most so many times the first."""
    within = price.values <= most * price.values[0]
    return int(np.argmax(np.where(within, found.axes[0].values, -np.inf)))


def _advice(found: Front, price: Axis, i: int, budgets: list[float]) -> str:
    score = found.axes[0]
    bounds = _listed([f"+{100 * budget:.0f} %" for budget in budgets])
    label, first = _said(found.rows[i]), _said(found.rows[0])
    head = f"For a budget of {bounds} {price.name} over {first} take {label}"
    if i == 0:
        return f"{head} itself: no row within it has a higher {score.name}."
    gain = _difference(score, i, 0)
    ratio = price.values[i] / price.values[0]
    text = f"{head}: {gain} {score.name} for {ratio:.3f} times the {price.name}"
    cheaper = _cheaper(score, price, i)
    if cheaper is not None:
        other = _said(found.rows[cheaper])
        text += f"; that it is better than the cheaper {other} is not shown"
    return f"{text}."


def _cheaper(score: Axis, price: Axis, i: int) -> int | None:
    """The cheapest row that is cheaper than row i, and whose score is not shown to be lower."""
    rows = [
        j
        for j in np.argsort(price.values)
        if price.values[j] < price.values[i] and not _shown(score, i, int(j))
    ]
    return int(rows[0]) if rows and score.draws is not None else None


def _ends(score: Axis, i: int, j: int) -> tuple[float, float] | None:
    """The 95 % interval of how much higher row i scores than row j."""
    if score.draws is None:
        return None
    low, high = np.percentile(score.draws[i] - score.draws[j], [2.5, 97.5])
    return float(low), float(high)


def _shown(score: Axis, i: int, j: int) -> bool:
    ends = _ends(score, i, j)
    return ends is not None and score.enough and ends[0] > 0


def _difference(score: Axis, i: int, j: int) -> str:
    text = f"{score.values[i] - score.values[j]:+z.1f}"
    ends = _ends(score, i, j)
    if ends is None:
        return text
    return f"{text} [{ends[0]:+z.1f}, {ends[1]:+z.1f}]{'' if _shown(score, i, j) else ' ~'}"


# --- caveats -------------------------------------------------------------------------------------


def _caveats(found: Front) -> list[str]:
    lines = []
    if any(axis.draws is not None for axis in found.axes):
        lines.append(
            "Draws: of the images for AP, of the rounds for latency, the same for every row; "
            "'on the front' are rows that no other beats, which is to be nowhere worse and "
            "somewhere better."
        )
    plain = [axis.name for axis in found.axes if axis.draws is None and not axis.exact]
    if plain:
        lines.append(f"Taken as exact, since no draws are there: {_listed(plain)}.")
    few = [axis.name for axis in found.axes if not axis.enough]
    if few:
        lines.append(f"Too few images or rounds for shares to be what they say: {_listed(few)}.")
    score = found.axes[0]
    if any(one.kind != "training" for row in found.rows for one in row.seeds):
        lines.append(
            f"{score.name} here is of the first seed alone; the table over seeds has the others."
        )
    elif score.draws is not None:
        lines.append(
            f"Each row is one training; another seed may change its {score.name} by more than "
            "other images would."
        )
    if found.left_out:
        lines.append(f"Without all of these values: {', '.join(found.left_out)}.")
    return lines
