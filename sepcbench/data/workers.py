"""Loading ahead in worker processes, in order; what fails there fails here, in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

from sepcbench.errors import DataError, SepcbenchError

Item = TypeVar("Item")
# what each worker has ready at most
AHEAD = 2
# how torch's errors begin, or what they hold, when workers or their shared memory are at an end
_ENDED = ("DataLoader worker", "Pin memory thread", "open files", "ancdata", "shared memory")


def prefetched(
    load: Callable[[int], Item], numbers: Iterable[int], workers: int, *, pin: bool = False
) -> Iterator[Item]:
    """Yield load(number) for each of the numbers, in their order, which may have no end.

    Args:
        load: picklable where processes are not forked; its tensors come through shared memory.
        numbers: what to load.
        workers: processes; 0 loads here, when asked.
        pin: give items with a method `pin_memory` page-locked memory, for faster transfers.

    Raises:
        DataError: a worker died, or memory or files to share with it are at their limit.
    """
    if not workers:
        yield from map(load, numbers)
        return
    loader: DataLoader[Item] = DataLoader(
        _Numbered(load),
        sampler=numbers,
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=workers,
        prefetch_factor=AHEAD,
        pin_memory=pin,
    )
    try:
        for item in loader:
            if isinstance(item, _Failed):
                raise item.error
            yield item
    except (RuntimeError, EOFError, OSError) as error:
        if isinstance(error, RuntimeError) and not any(text in str(error) for text in _ENDED):
            raise
        raise DataError(
            "a process that loads images died, killed or out of memory or of files to open; try "
            "fewer --workers"
        ) from None


class _Numbered(Dataset[Item], Generic[Item]):
    """What torch's loader asks for items."""

    def __init__(self, load: Callable[[int], Item]) -> None:
        self._load = load

    def __getitem__(self, number: int) -> Item | _Failed:  # type: ignore[override]
        try:
            return self._load(number)
        except SepcbenchError as error:  # as a value: torch would add its traceback to the text
            return _Failed(error)


class _Failed:
    """An error on its way to the process that reports it."""

    def __init__(self, error: SepcbenchError) -> None:
        self.error = error


def _unchanged(item: Item) -> Item:
    return item
