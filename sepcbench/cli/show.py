"""`sepcbench show`: one variant, whole: spec, parts, parameters and map sizes per level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sepcbench.cli import options
from sepcbench.codec import encode
from sepcbench.report.table import Table
from sepcbench.units import format_shape, parse_shape

if TYPE_CHECKING:
    from torch import nn

    from sepcbench.specs import VariantSpec


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="VARIANT", help="A named variant.", autocompletion=options.complete_variant
        ),
    ],
    sets: options.Set = None,
    shape: options.Shape = "800x1344",
    fmt: options.Format = "table",
) -> None:
    """Show a variant: its spec, its parts with their parameters, and its maps per level.

    Example: sepcbench show retinanet_r50_sepc
    Example: sepcbench show retinanet_r50_pconv --set norm=gn --set depth=6 --format json
    """
    options.check_format(fmt)
    (spec,) = options.parse_variants([name], sets)
    size = parse_shape(shape)
    from sepcbench import detectors

    detector = detectors.build(spec, init=False)
    parts = _parts(detector)
    maps = _maps(detector, spec, size)
    value = {"name": spec.name, "spec": encode(spec), "parts": parts, "maps": maps}
    tables = [_spec_table(spec), _parts_table(parts), _maps_table(maps, shape)]
    options.emit(fmt, tables, [value])


def _parts(detector: Any) -> list[dict[str, Any]]:
    """Parameters of the backbone, each neck and the head."""
    named = [("backbone", detector.backbone)]
    named += [(f"necks.{i}", neck) for i, neck in enumerate(detector.necks)]
    named += [("head", detector.head)]
    return [
        {"part": name, "module": type(module).__name__, **_count(module)} for name, module in named
    ]


def _count(module: nn.Module) -> dict[str, int]:
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    return {
        "params": sum(size for size, _ in sizes),
        "trainable_params": sum(size for size, trains in sizes if trains),
    }


def _maps(detector: nn.Module, spec: VariantSpec, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Size of the head's maps per level, from a forward pass on tensors without data.

    Of a second stage the maps are those of its RPN; without one there are none.
    """
    import torch

    from sepcbench.heads.rcnn import RcnnHead

    head: Any = detector.to("meta").eval().head
    head.train(isinstance(head, RcnnHead))  # in training mode it stops at the maps
    with torch.no_grad():
        outputs = detector(torch.empty(1, 3, *size, device="meta"))
    if isinstance(head, RcnnHead):
        outputs = outputs.rpn or ()
    return [
        {
            "level": f"P{level}",
            "stride": 2**level,
            "height": output.cls.shape[2],
            "width": output.cls.shape[3],
            "cls_channels": output.cls.shape[1],
            "box_channels": output.box.shape[1],
        }
        for level, output in zip(spec.levels, outputs)
    ]


def _spec_table(spec: VariantSpec) -> Table:
    rows: list[tuple[str, str]] = []
    _flatten(encode(spec), "", rows)
    return Table(f"{spec.name}: spec", ("field (for --set)", "value"), tuple(rows))


def _flatten(node: Any, path: str, rows: list[tuple[str, str]]) -> None:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        place = f"{path}.{key}" if path else str(key)
        tables = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
        if isinstance(value, dict) or tables:
            _flatten(value, place, rows)
        elif isinstance(value, list):
            rows.append((place, ", ".join(map(str, value))))
        else:
            rows.append((place, str(value)))


def _parts_table(parts: list[dict[str, Any]]) -> Table:
    rows = tuple(
        (p["part"], p["module"], f"{p['params']:,}", f"{p['trainable_params']:,}") for p in parts
    )
    total = [sum(part[key] for part in parts) for key in ("params", "trainable_params")]
    rows += (("total", "", f"{total[0]:,}", f"{total[1]:,}"),)
    return Table("parts", ("part", "module", "parameters", "trainable"), rows)


def _maps_table(maps: list[dict[str, Any]], shape: str) -> Table:
    rows = tuple(
        (
            m["level"],
            str(m["stride"]),
            format_shape((m["height"], m["width"])),
            str(m["cls_channels"]),
            str(m["box_channels"]),
        )
        for m in maps
    )
    headers = ("level", "stride, px", "map, HxW", "class channels", "box channels")
    return Table(f"head outputs for one {shape} image", headers, rows)
