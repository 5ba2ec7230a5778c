"""Loading ahead in threads, in order.

Threads, not processes: decoding and resizing let go of Python's lock, and what they make is at once
where it is needed. From a process it would come as copies, or as shared memory and open files.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import torch

Work = TypeVar("Work")
Item = TypeVar("Item")
# what each worker has ready at most, beside what the consumer takes at a time
AHEAD = 2


def prefetched(
    load: Callable[[Work], Item],
    work: Iterable[Work],
    workers: int,
    *,
    taken: int = 1,
    device: str = "cpu",
) -> Iterator[Item]:
    """Yield load(one) for each one of the work, in its order, which may have no end.

    Args:
        load: safe to call from several threads; what it raises is raised here.
        work: what to load; gone through in the thread of the consumer.
        workers: threads, each of which computes on one core; 0 loads here, when asked.
        taken: how many items the consumer takes before it works on them.
        device: where items go; for one of CUDA those of workers get page-locked memory, by their
            method `pin_memory`.
    """
    if not workers:
        yield from map(load, work)
        return
    left, consumer, card = iter(work), threading.get_ident(), _card(device)
    pool = ThreadPoolExecutor(workers, "loading")
    make = load if card is None else partial(_load_pinned, load)
    waiting: deque[Future[Item]] = deque()
    try:
        _on_one_core_each(pool, workers, card)
        for one in islice(left, AHEAD * workers + taken):
            waiting.append(pool.submit(make, one))
        while waiting:
            item = waiting.popleft().result()
            for one in islice(left, 1):
                waiting.append(pool.submit(make, one))
            yield item
    finally:  # one that nobody took to its end may be collected in a thread of its own pool
        pool.shutdown(wait=threading.get_ident() == consumer, cancel_futures=True)


def _card(device: str) -> int | None:
    """The index of a CUDA device; of "cuda" that of the one in use, which is a thread's own."""
    if not device.startswith("cuda"):
        return None
    index = torch.device(device).index
    return torch.cuda.current_device() if index is None else index


def _on_one_core_each(pool: ThreadPoolExecutor, workers: int, card: int | None) -> None:
    """Start all threads; torch's setting is that of a thread and of those that begin later."""
    together = threading.Barrier(workers + 1)
    begun = [pool.submit(_begin, card, together) for _ in range(workers)]
    together.wait()
    torch.set_num_threads(torch.get_num_threads())
    for one in begun:
        one.result()


def _begin(card: int | None, together: threading.Barrier) -> None:
    try:
        torch.get_num_threads()  # else torch would set it when it first computes here
        torch.set_num_threads(1)
        if card is not None:
            torch.cuda.set_device(card)
    finally:
        together.wait()


def _load_pinned(load: Callable[[Work], Any], one: Work) -> Any:
    """Into page-locked memory, for faster transfers."""
    return load(one).pin_memory()
