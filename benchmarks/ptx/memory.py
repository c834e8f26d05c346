"""A GPU's memory that is watched: an access that no GPU should be asked for ends the run with what, who and where.

Found out are

- an access outside of an array, or of other bytes than one of its numbers;
- a number of shared memory that is read before it was written;
- a race: two threads at the same number, one of them writing, and nothing that says who comes first. Two things do:
  a barrier between them, if they are of one block, and both accesses being atomic.

For the last, every number of memory remembers who wrote it, read it and changed it atomically: not all of them, but the
first and the last thread since the block's last barrier (or of all, if they are of different blocks, whom no barrier
orders). If these two are one, it is that thread; if they are of one block, a barrier settles it; else nothing can. So
little is enough to find every race between the accesses that were made, however the threads happened to take turns.
After the happened-before checks of data-race detectors (Flanagan and Freund 2009, FastTrack).
"""

from __future__ import annotations

import numpy as np

SPACING = 36  # bits: arrays begin 64 GiB apart, so that an address says which one is meant
READ, WRITE, ATOMIC = range(3)
RACES = {READ: (WRITE, ATOMIC), WRITE: (READ, WRITE, ATOMIC), ATOMIC: (READ, WRITE)}
DEEDS = {READ: "reads", WRITE: "writes", ATOMIC: "changes"}
NOBODY = np.iinfo(np.int64).max, -1  # first and last thread


class Fault(Exception):
    """What a kernel must not do."""


class Region:
    """One array of a GPU's memory: its bytes, and who has been at each of its numbers.

    Parameters
    ----------
    name : str
        For messages.
    data : ndarray (bytes,) uint8
    itemsize : int
        Bytes of a number.
    blocks : range, optional
        Each of these has a part of its own, which is empty to begin with. Without: all of it is everybody's.
    """

    def __init__(self, name: str, data: np.ndarray, itemsize: int, blocks: range | None = None):
        self.name, self.data, self.itemsize, self.blocks = name, data, itemsize, blocks
        count = data.size // itemsize
        self.first, self.last = (np.full((3, count), thread, np.int64) for thread in NOBODY)
        self.epoch = np.zeros((3, count), np.int64)  # how many barriers the block had passed

    def locate(self, offsets, width: int, blocks) -> np.ndarray:
        """Which numbers have these bytes, ``width`` of them from each; -1 where none has, or none of that block."""
        items, rest = np.divmod(offsets, self.itemsize)
        low, size = 0, self.data.size
        if self.blocks is not None:
            size //= len(self.blocks)
            low = (blocks - self.blocks.start) * size
        is_whole = (rest % width == 0) & (rest + width <= self.itemsize)
        return np.where((offsets >= low) & (offsets < low + size) & is_whole, items, -1)

    def describe(self) -> str:
        """What there is to be accessed."""
        parts = "" if self.blocks is None else f" in {len(self.blocks)} parts, one for each block"
        return f"which has {self.data.size} bytes{parts}, {self.itemsize} a number"

    def meet(self, kind: int, items, threads, block_size: int, epochs) -> tuple[int, str] | None:
        """Note that threads access items; the place of one that should not, and why, if there is one."""
        blocks = threads // block_size
        for other in RACES[kind]:
            first, last = self.first[other, items], self.last[other, items]
            is_own = (first == threads) & (last == threads)
            of_block = (first // block_size == blocks) & (last // block_size == blocks)
            races = (last >= 0) & ~is_own & ~(of_block & (self.epoch[other, items] < epochs))
            if races.any():
                place = int(races.argmax())
                rival = first[place] if first[place] != threads[place] else last[place]
                return place, f"which thread {rival} {DEEDS[other]}, with nothing that says who is first"
        if self.blocks is not None and kind != WRITE and (self.last[WRITE, items] < 0).any():
            return int((self.last[WRITE, items] < 0).argmax()), "which nothing was written to"
        self.note(kind, items, threads, blocks, block_size, epochs)
        if kind == WRITE and (self.first[WRITE, items] != self.last[WRITE, items]).any():  # in the same instruction
            place = int((self.first[WRITE, items] != self.last[WRITE, items]).argmax())
            return place, "which another thread writes at the same time"
        return None

    def note(self, kind, items, threads, blocks, block_size, epochs) -> None:
        """Who has been here."""
        first, last, epoch = self.first[kind], self.last[kind], self.epoch[kind]
        of_block = (first[items] // block_size == blocks) & (last[items] // block_size == blocks)
        is_settled = items[(kind == WRITE) | of_block & (epoch[items] < epochs)]
        first[is_settled], last[is_settled] = NOBODY
        np.minimum.at(first, items, threads)
        np.maximum.at(last, items, threads)
        epoch[items] = epochs


class Memory:
    """All regions, by their addresses.

    Parameters
    ----------
    block_size : int
        Threads of a block.
    """

    def __init__(self, block_size: int):
        self.block_size = block_size
        self.regions: list[Region] = []

    def add(self, region: Region) -> int:
        """Its address."""
        self.regions.append(region)
        return len(self.regions) << SPACING

    def access(self, kind: int, addresses, dtype: np.dtype, threads, epochs):
        """(region, which numbers of that type, by which of the threads), for each region that is accessed.

        Parameters
        ----------
        kind : int
            `READ`, `WRITE` or `ATOMIC`.
        addresses : ndarray (T,) uint64
        dtype : dtype
        threads, epochs : ndarray (T,) int64
            Who, and how many barriers their blocks have passed.

        Raises
        ------
        Fault
            A thread must not do this.
        """
        found, places = [], addresses >> np.uint64(SPACING)
        for place in np.unique(places):
            chosen = np.flatnonzero(places == place)
            here, offsets = threads[chosen], (addresses[chosen] - (place << np.uint64(SPACING))).astype(np.int64)
            if not 0 < place <= len(self.regions):
                raise Fault(f"thread {here[0]} {DEEDS[kind]} at {addresses[chosen[0]]:#x}, where nothing is")
            region = self.regions[int(place) - 1]
            items = region.locate(offsets, dtype.itemsize, here // self.block_size)
            if (items < 0).any():
                one = int((items < 0).argmax())
                what = f"{dtype.itemsize} bytes from byte {offsets[one]} on of {region.name}"
                raise Fault(f"thread {here[one]} {DEEDS[kind]} {what}, {region.describe()}")
            fault = region.meet(kind, items, here, self.block_size, epochs[chosen])
            if fault is not None:
                one, why = fault
                raise Fault(f"thread {here[one]} {DEEDS[kind]} number {items[one]} of {region.name}, {why}")
            found.append((region, offsets // dtype.itemsize, chosen))
        return found
