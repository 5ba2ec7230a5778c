"""Which images a batch of training has, from its number and the seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

# what random numbers are for; the first two are as old as the first committed results
ORDER, MIRROR, BATCHES, SIDE = 0, 1, 3, 4
_GROUPS = (ORDER, 2)


def generator(seed: int, purpose: int, number: int) -> torch.Generator:
    """Random numbers for one purpose, such as the order of epoch `number`."""
    further, old = divmod(purpose, 2)
    mixed = (further << 40) + (seed * 2 + old) * 1_000_003 + number
    return torch.Generator().manual_seed(mixed)


class EpochOrder:
    """Batches without end, each of images of one group.

    The images of a group follow each other in a new order in each epoch, and its batches are cut
    from that sequence: every image comes once per epoch, none twice and none left out to fill up
    a batch; a batch may span two epochs. An epoch's batches of two groups come in random order.
    """

    def __init__(self, groups: Sequence[Sequence[int]], batch: int, seed: int) -> None:
        """Order images.

        Args:
            groups: one or two lists of images; empty ones have no batches.
            batch: images per batch.
            seed: of all orders.
        """
        self._groups = [list(group) for group in groups if len(group)]
        self._images = sum(len(group) for group in self._groups)
        self._batch, self._seed = batch, seed
        self._orders: dict[tuple[int, int], list[int]] = {}
        self._batches: tuple[int, list[tuple[int, int]]] = (-1, [])

    def __getitem__(self, number: int) -> list[int]:
        """The images of one batch, counted from 0."""
        epoch = number * self._batch // self._images
        while self._before(epoch + 1) <= number:
            epoch += 1
        group, start = self._batches_of(epoch)[number - self._before(epoch)]
        return [self._image(group, start * self._batch + slot) for slot in range(self._batch)]

    def _before(self, epoch: int) -> int:
        """How many batches are complete before an epoch begins."""
        return sum(epoch * len(group) // self._batch for group in self._groups)

    def _batches_of(self, epoch: int) -> list[tuple[int, int]]:
        """(group, number among its batches) of the batches that an epoch completes."""
        if self._batches[0] != epoch:
            made = [
                (index, number)
                for index, group in enumerate(self._groups)
                for number in range(
                    epoch * len(group) // self._batch, (epoch + 1) * len(group) // self._batch
                )
            ]
            if len(self._groups) > 1:
                mixed = torch.randperm(len(made), generator=generator(self._seed, BATCHES, epoch))
                made = [made[place] for place in mixed.tolist()]
            self._batches = (epoch, made)
        return self._batches[1]

    def _image(self, index: int, position: int) -> int:
        group = self._groups[index]
        epoch, place = divmod(position, len(group))
        if (index, epoch) not in self._orders:
            if len(self._orders) > 4:
                self._orders.clear()
            mixed = generator(self._seed, _GROUPS[index], epoch)
            self._orders[index, epoch] = torch.randperm(len(group), generator=mixed).tolist()
        return group[self._orders[index, epoch][place]]
