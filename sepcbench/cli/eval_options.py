"""The options of `sepcbench eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Checkpoints = Annotated[
    list[Path], typer.Argument(metavar="CHECKPOINT...", help="To score; files or folders.")
]
Data = Annotated[Path | None, typer.Option("--data", help="Data folder in COCO layout.")]
Variant = Annotated[
    str | None, typer.Option("--variant", help="Build this variant, not the one inside.")
]
Split = Annotated[str | None, typer.Option(help="Which annotation file; else val.")]
Annotations = Annotated[Path | None, typer.Option(help="The annotation file.")]
Images = Annotated[Path | None, typer.Option(help="The image folder.")]
Batch = Annotated[int, typer.Option(help="Images of one padded shape per call.", min=1)]
Workers = Annotated[
    int | None,
    typer.Option("--workers", help="Threads that decode and resize; else by the cores.", min=0),
]
Limit = Annotated[int | None, typer.Option(help="Only the first images.", min=1)]
Proposals = Annotated[
    Path | None, typer.Option("--proposals", help="Proposals file of the set, for Fast R-CNN.")
]
SaveDetections = Annotated[
    Path | None,
    typer.Option(
        "--save-detections",
        "--out",
        help="Write what was found in COCO result format, an RPN's proposals too (a folder "
        "for several).",
    ),
]
Keep = Annotated[
    Path | None,
    typer.Option(
        "--keep",
        help="Keep what was found, here; else in runs/eval until all images are done. The same "
        "command goes on there.",
    ),
]
Scales = Annotated[
    str | None,
    typer.Option(
        "--scales",
        "--test-scales",
        help="Short sides to detect at, such as 400,600,1200; 400:96- only gives boxes of 96 "
        "pixels and more. All boxes go through one NMS.",
    ),
]
MaxSide = Annotated[
    int | None, typer.Option("--max-side", help="Longest side of any scale.", min=1)
]
Flip = Annotated[bool, typer.Option("--flip", help="Detect in mirrored images too.")]
Draw = Annotated[
    Path | None, typer.Option("--draw", help="Draw what was found into PNG files, here.")
]
DrawCount = Annotated[int, typer.Option("--draw-count", help="Images to draw.", min=1)]
DrawScore = Annotated[
    float, typer.Option("--draw-score", help="The lowest score to draw.", min=0, max=1)
]
AblateConventions = Annotated[
    bool,
    typer.Option("--ablate-conventions", help="AP of one checkpoint under every named set."),
]
AgainstPlain = Annotated[
    bool,
    typer.Option("--against-plain", help="Images/s, beside a plain loop's and torchvision's."),
]
