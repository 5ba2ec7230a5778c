"""What is shown and logged while a training runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sepcbench.errors import UsageError
from sepcbench.training.meter import peak_bytes
from sepcbench.training.schedule import learning_rate
from sepcbench.training.session import Session
from sepcbench.training.step import Values

Progress = Callable[[int, int, str], None]
Log = Callable[[int, Mapping[str, float]], None]


def label(session: Session, values: Values) -> str:
    """Losses, learning rate, speed, share of time waiting, memory and score, in one line."""
    speed, memory = session.meter.now(), peak_bytes(session.device)
    parts = " ".join(f"{name} {value:.3f}" for name, value in values.parts.items())
    shown = [
        f"loss {values.total:.3f} ({parts})",
        f"lr {_rate(session):.2g}",
        f"{speed.images_per_s:.1f} img/s",
        f"data {100 * speed.data_wait:.0f} %",
    ]
    if memory is not None:
        shown.append(f"{memory / 2**30:.1f} GiB")
    if session.scores:
        shown.append(f"score {100 * session.scores[-1][1]:.1f}")
    return " · ".join(shown)


def logged(session: Session, values: Values) -> dict[str, float]:
    """What a log keeps of an iteration."""
    speed, memory = session.meter.now(), peak_bytes(session.device)
    found = {"loss": values.total, "lr": _rate(session)}
    found |= {f"loss/{name}": value for name, value in values.parts.items()}
    found |= {"images_per_s": speed.images_per_s, "data_wait": speed.data_wait}
    return found if memory is None else {**found, "peak_gib": memory / 2**30}


def _rate(session: Session) -> float:
    """Of the iteration that is just done."""
    return learning_rate(session.recipe, session.iteration - 1)


class TensorBoard:
    """A log as TensorBoard's event files."""

    def __init__(self, folder: Path) -> None:
        """Prepare to write event files.

        Args:
            folder: made with the first values.

        Raises:
            UsageError: the package tensorboard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UsageError(
                "--tensorboard needs the package tensorboard; pip install 'sepcbench[tensorboard]'"
            ) from None
        self._make: Any = SummaryWriter
        self.folder = folder
        self._writer: Any = None

    def __call__(self, iteration: int, values: Mapping[str, float]) -> None:
        """Write named values of an iteration; later ones of an earlier sitting are dropped."""
        if self._writer is None:
            self._writer = self._make(str(self.folder), purge_step=iteration)
        for name, value in values.items():
            self._writer.add_scalar(name, value, iteration)
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
