"""What `sepcbench` alone prints: what to do next."""

from __future__ import annotations

from pathlib import Path

STEPS: tuple[tuple[str, str], ...] = (
    ("sepcbench flops retinanet_r50_fpn retinanet_r50_sepc", "what do two necks cost?"),
    ("sepcbench latency retinanet_tiny_fpn retinanet_tiny_sepc --shape 128x128", "how long?"),
    ("sepcbench flops my_neck.py:MyNeck --backbone r50", "the same for a neck of your own"),
    ("sepcbench list variants sepc", "which variants are there?"),
    ("sepcbench run quick", "train, count, time and score six necks; minutes on a CPU"),
)


def first_steps(results: Path = Path("results")) -> str:
    """A few commands to start with; with results in this folder, how to read them."""
    steps = [*STEPS, *_with_results(results)]
    width = max(len(command) for command, _ in steps)
    lines = [f"  {command:<{width}}  {about}" for command, about in steps]
    return "\n".join(
        [
            "sepcbench: what does this neck cost, and what does it buy? Try:",
            "",
            *lines,
            "",
            "All commands: sepcbench --help. One of them, with examples: sepcbench flops --help.",
            "Complete names with Tab: sepcbench --install-completion",
        ]
    )


def _with_results(results: Path) -> list[tuple[str, str]]:
    """How to draw again what was measured here."""
    found = sorted(path.parent.parent.name for path in results.glob("*/*/suite.json"))
    return [(f"sepcbench report {found[0]}", f"what is in {results}/")] if found else []
