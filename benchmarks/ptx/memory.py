"""A GPU's memory that is watched: an access that no GPU should be asked for ends the run with what, who and where.

Found out are

- an access outside of an array, or of other bytes than one of its numbers;
- a number of a shared array that is read before its block wrote it;
- a race: two threads at the same number, one of them writing, and nothing that says who comes first. Two things do:
  a barrier between them, if they are of one block, and both accesses being atomic.

For the last, every number of memory remembers who wrote it, read it and changed it atomically: not all of them, but the
first and the last thread since the block's last barrier (or of all, if they are of different blocks, whom no barrier
orders). Where both are the thread that comes now, there is no race; where both are of its block, there is none after a
barrier; else there is one. So little is enough to find every race between the accesses that were made, however the
threads happened to take turns. After the happened-before checks of data-race detectors (Flanagan and Freund 2009,
FastTrack).

Not found out is a wrong index that is still one of the array: x[i - 1] is the last number where i is 0, and x[i, j + 1]
the first one of the next row where j is at its end. Nor is a number that nobody writes. Results tell.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.ptx.program import Unknown

SPACING = 40  # bits: each array has 1 TiB of addresses, so that an address says which one is meant
MIDDLE = 1 << SPACING - 1  # where it begins there, so that what lies before one is not another's
SKEW = 1 << 32  # and so much later than the one before: an index of 2^32 - 1 that was to be -1 may be 1 TiB off
ALIGNED = 16  # bytes: arrays begin at multiples of so many, unless they are parts of others (CuPy's: of 512)
READ, WRITE, ATOMIC = range(3)
RACES = {READ: (WRITE, ATOMIC), WRITE: (READ, WRITE, ATOMIC), ATOMIC: (READ, WRITE)}
DEEDS = {READ: "reads", WRITE: "writes", ATOMIC: "changes"}
NOBODY = np.iinfo(np.int64).max, -1  # first and last thread


class Fault(Exception):
    """What a kernel must not do."""


class Grid:
    """The threads of a launch, which are counted through all blocks; each block is one after the other.

    Parameters
    ----------
    blocks, threads : int or tuple of int
        How many, along x, y and z.
    """

    def __init__(self, blocks, threads):
        self.blocks, self.threads = (
            tuple(np.ravel(sides).tolist()) + (1,) * (3 - np.size(sides)) for sides in (blocks, threads)
        )
        self.count, self.block_size = math.prod(self.blocks), math.prod(self.threads)

    @staticmethod
    def split(number, sides):
        """A number as three, along x, y and z."""
        return number % sides[0], number // sides[0] % sides[1], number // (sides[0] * sides[1])

    def name(self, thread: int) -> str:
        """A thread, for messages."""
        names = []
        for number, sides in ((thread % self.block_size, self.threads), (thread // self.block_size, self.blocks)):
            along = [int(i) for i in self.split(number, sides)]
            axes = 3 if sides[2] > 1 else 2 if sides[1] > 1 else 1
            names.append(str(along[0] if axes == 1 else tuple(along[:axes])))
        return f"thread {names[0]} of block {names[1]}"


class Region:
    """One array of a GPU's memory: its bytes, and who has been at each of its numbers.

    Parameters
    ----------
    name : str
        For messages.
    data : ndarray (bytes,) uint8
    itemsize : int
        Bytes of a number.
    owners : range, optional
        Each of these has a part of its own, which is empty to begin with. Without: all of it is everybody's.
    threads : int
        Of each owner.
    shape : tuple of int, optional
        Of the array, where it is this and nothing else.
    over : int
        Bytes by which its address is no multiple of `ALIGNED`.
    """

    def __init__(self, name: str, data: np.ndarray, itemsize: int, owners: range | None = None, threads: int = 1,
                 shape: tuple[int, ...] = (), over: int = 0):  # fmt: skip
        self.name, self.data, self.itemsize, self.owners, self.threads = name, data, itemsize, owners, threads
        self.shape, self.over, count = shape, over, data.size // itemsize
        self.part = data.size // (1 if owners is None else len(owners))  # bytes
        self.first, self.last = (np.full((3, count), thread, np.int64) for thread in NOBODY)
        self.epoch = np.zeros((3, count), np.int64)  # how many barriers the block had passed

    def find_own(self, threads) -> np.ndarray:
        """Where the threads' parts begin, in bytes."""
        return 0 * threads if self.owners is None else (threads // self.threads - self.owners.start) * self.part

    def locate(self, offsets, width: int, threads) -> np.ndarray:
        """Which numbers have these bytes, ``width`` of them from each; -1 where none has, or none of that owner."""
        own = offsets - self.find_own(threads)
        rest = own % self.itemsize
        is_whole = (rest % width == 0) & (rest + width <= self.itemsize)
        return np.where((own >= 0) & (own < self.part) & is_whole, offsets // self.itemsize, -1)

    def tell(self, offset: int, width: int) -> str:
        """What is at a byte of a part, for messages."""
        count = self.part // self.itemsize
        if offset < 0:
            return f"{-offset} bytes before the beginning of {self.name}"
        if offset % width:
            return f"{width} bytes from byte {offset} on of {self.name}, whose numbers have {self.itemsize}"
        number = offset // self.itemsize
        if number >= count:
            return f"number {number} of {self.name}, which has {count}"
        if len(self.shape) > 1:
            return f"{self.name}[{', '.join(map(str, np.unravel_index(number, self.shape)))}]"
        return f"number {number} of {self.name}"


class Memory:
    """All regions, by their addresses.

    Parameters
    ----------
    grid : Grid
        Who accesses it.
    """

    def __init__(self, grid: Grid):
        self.grid = grid
        self.regions: list[Region] = []

    def add(self, region: Region) -> int:
        """Its address."""
        self.regions.append(region)
        return self.beginning(len(self.regions))

    def beginning(self, number: int) -> int:
        """Where the so-manieth region begins."""
        return (number << SPACING) + MIDDLE + number * SKEW + self.regions[number - 1].over

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
        found, numbers = [], addresses >> np.uint64(SPACING)
        for number in np.unique(numbers).tolist():
            chosen = np.flatnonzero(numbers == number)
            here = threads[chosen]
            if not 0 < number <= len(self.regions):
                self.accuse(here[0], kind, f"at address {addresses[chosen[0]]:#x}, where nothing is")
            region = self.regions[number - 1]
            if region.threads > 1 and dtype.itemsize < region.itemsize:
                raise Unknown(f"{region.name}, which is aligned to more than its numbers")
            offsets = (addresses[chosen] - np.uint64(self.beginning(number))).astype(np.int64)
            items = region.locate(offsets, dtype.itemsize, here)
            own = offsets - region.find_own(here)
            fault = None
            if (items < 0).any():
                fault = int((items < 0).argmax()), ""
            elif kind != READ and not region.data.flags.writeable:
                fault = 0, ", which is read-only"
            fault = fault or self.meet(region, kind, items, here, epochs[chosen])
            if fault is not None:
                one, why = fault
                self.accuse(here[one], kind, f"{region.tell(int(own[one]), dtype.itemsize)}{why}")
            found.append((region, offsets // dtype.itemsize, chosen))
        return found

    def accuse(self, thread: int, kind: int, what: str):
        raise Fault(f"{self.grid.name(thread)} {DEEDS[kind]} {what}")

    def meet(self, region: Region, kind: int, items, threads, epochs) -> tuple[int, str] | None:
        """Note that threads access items; which of them should not, and why, if there is one."""
        block_size = self.grid.block_size
        blocks = threads // block_size
        for other in RACES[kind]:
            first, last = region.first[other, items], region.last[other, items]
            is_own = (first == threads) & (last == threads)
            of_block = (first // block_size == blocks) & (last // block_size == blocks)
            races = (last >= 0) & ~is_own & ~(of_block & (region.epoch[other, items] < epochs))
            if races.any():
                one = int(races.argmax())
                return one, self.tell_race(threads[one], (first[one], last[one]), DEEDS[other])
        if region.owners is not None and kind != WRITE and (region.last[WRITE, items] < 0).any():
            return int((region.last[WRITE, items] < 0).argmax()), ", which nobody has written before"
        self.note(region, kind, items, threads, blocks, epochs)
        first, last = region.first[kind, items], region.last[kind, items]
        if kind == WRITE and (first != last).any():  # in one instruction
            one = int((first != last).argmax())
            return one, self.tell_race(threads[one], (first[one], last[one]), "writes at the same time")
        return None

    def tell_race(self, thread: int, others, deed: str) -> str:
        """Why the first or the last of the others is in the way."""
        other = others[0] if others[0] != thread else others[1]
        missing = (
            "there is no cuda.syncthreads() between that both pass"
            if other // self.grid.block_size == thread // self.grid.block_size
            else "nothing says which of two blocks is first, but cuda.atomic lets both change a number"
        )
        return f", which {self.grid.name(other)} {deed}: {missing}"

    def note(self, region: Region, kind: int, items, threads, blocks, epochs) -> None:
        """Who has been here."""
        first, last, epoch = region.first[kind], region.last[kind], region.epoch[kind]
        block_size = self.grid.block_size
        of_block = (first[items] // block_size == blocks) & (last[items] // block_size == blocks)
        is_settled = items[(kind == WRITE) | of_block & (epoch[items] < epochs)]
        first[is_settled], last[is_settled] = NOBODY
        np.minimum.at(first, items, threads)
        np.maximum.at(last, items, threads)
        epoch[items] = epochs
