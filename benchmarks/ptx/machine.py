"""``run``: a compiled kernel, executed on the CPU, all threads of a grid side by side.

A register is an array with a number for each thread, and an instruction one operation of NumPy's. Threads go different
ways where they branch: each has a place in the program of its own, and the machine always goes on with those that are
furthest behind, until they have caught up. At a barrier a thread waits for its block. This is one of the orders that a
GPU may choose. What the kernel must not do in any order, `memory` finds out.

So a kernel is checked as it was compiled, with the widths of its integers and the rounding of its sums, which Numba's
simulator, where a kernel is Python, cannot see. Not exact is what a GPU does by tables: there are no sines and powers
here. A fused multiplication and addition of float32 is rounded to float64 on its way, which in one of 2^29 cases is
the last bit.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass

import numpy as np

from benchmarks.ptx.memory import ATOMIC, READ, WRITE, Fault, Memory, Region
from benchmarks.ptx.program import DTYPES, Instruction, Program, read_number

WARP = 32  # threads that make one request
SECTOR = 32  # bytes that memory is read by
WORD = 8  # bytes of a parameter
AT_ONCE = 1 << 14  # threads side by side


def divide(a, b):
    """Integers are cut off towards zero."""
    if a.dtype.kind == "f":
        return a / b
    if not np.all(b):
        raise Fault("an integer is divided by zero")
    return (a - np.fmod(a, b)) // b


def rest(a, b):
    """Of that division, with the sign of what was divided."""
    if not np.all(b):
        raise Fault("an integer is divided by zero")
    return np.fmod(a, b)


def multiply_and_add(a, b, c):
    """Rounded once, or nearly: in float64 a product of two float32 is exact."""
    if a.dtype == np.float32:
        a, b, c = a.astype(np.float64), b.astype(np.float64), c.astype(np.float64)
    return a * b + c


def count_leading_zeros(a):
    """Of unsigned numbers."""
    bits, zeros = 8 * a.itemsize, np.zeros(a.shape, np.int64)
    for bit in range(bits):
        zeros += (a >> a.dtype.type(bit)) == 0
    return zeros


ELEMENTWISE = {
    "abs": np.abs, "neg": np.negative, "not": np.invert, "sqrt": np.sqrt, "rcp": np.reciprocal,
    "popc": np.bitwise_count, "clz": count_leading_zeros,
    "add": np.add, "sub": np.subtract, "div": divide, "rem": rest, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor, "min": np.fmin, "max": np.fmax, "mad": multiply_and_add, "fma": multiply_and_add,
}  # fmt: skip
COUNTS = "popc", "clz"  # give 32 bits
MOVES = "ld", "st", "atom", "bra", "ret", "bar"  # of any width
COMPARISONS = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
               "ge": np.greater_equal}  # fmt: skip
ATOMICS = {"add": operator.add, "or": operator.or_, "and": operator.and_, "max": max, "min": min}
ROUNDINGS = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


@dataclass
class Counts:
    """What a run took, of all threads.

    Attributes
    ----------
    instructions : int
        Carried out; arithmetic with 64 bits counts twice, as a GPU has 32.
    asked, bytes : int
        Bytes of memory that threads read or wrote, and those of all pieces of 32 that the requests of their warps took:
        more, where neighbors' are not side by side, and less, where they are the same.
    """

    instructions: int = 0
    asked: int = 0
    bytes: int = 0

    def add(self, instruction: Instruction, threads: np.ndarray) -> None:
        """These threads carry it out."""
        is_wide = instruction.name not in MOVES and instruction.dtype.itemsize == 8
        self.instructions += threads.size * (2 if is_wide else 1)

    def add_access(self, threads: np.ndarray, addresses: np.ndarray, itemsize: int) -> None:
        """These threads access these addresses, in one instruction."""
        warps = (threads // WARP).astype(np.uint64)
        self.asked += threads.size * itemsize
        self.bytes += SECTOR * np.unique((warps << np.uint64(44)) + addresses // np.uint64(SECTOR)).size


def run(program: Program, numbers: bytes, memory: Memory, blocks: int, block_size: int, counts: Counts | None = None):
    """Run a kernel to its end.

    Parameters
    ----------
    program : Program
    numbers : bytes
        What a launch hands over, eight bytes for each parameter.
    memory : Memory
        With all arrays that these have addresses of.
    blocks, block_size : int
        Of the grid, and threads of each block.
    counts : Counts, optional
        To be added to, which takes as long again.

    Raises
    ------
    Fault
        A thread did what it must not do.
    """
    together = max(1, AT_ONCE // block_size)
    for first in range(0, blocks, together):
        Machine(program, numbers, memory, range(first, min(first + together, blocks)), block_size, counts).run()


class Machine:
    """Some blocks of a grid, in the middle of a kernel; parameters are those of `run`."""

    def __init__(self, program: Program, numbers: bytes, memory: Memory, blocks: range, block_size: int, counts):
        self.program, self.memory, self.blocks, self.block_size = program, memory, blocks, block_size
        self.words, self.counts = np.frombuffer(numbers, np.uint8).reshape(-1, WORD), counts
        self.threads = np.arange(blocks.start * block_size, blocks.stop * block_size)
        own, count = np.divmod(self.threads, block_size), self.threads.size
        self.registers: dict[str, np.ndarray] = {
            "%ctaid.x": own[0].astype(np.uint32),
            "%tid.x": own[1].astype(np.uint32),
            "%ntid.x": np.full(count, block_size, np.uint32),
        }
        for name, (itemsize, size) in program.shared.items():
            region = Region(name, np.zeros(size * len(blocks), np.uint8), itemsize, blocks)
            beginnings = memory.add(region) + (own[0] - blocks.start) * size
            self.registers[name] = beginnings.astype(np.uint64)
        self.places = np.zeros(count, np.int64)  # of each thread in the program
        self.is_running, self.is_waiting = np.ones(count, bool), np.zeros(count, bool)
        self.epochs = np.zeros(count, np.int64)  # how many barriers each has passed

    def run(self) -> None:
        """All threads, to the end."""
        with np.errstate(all="ignore"):
            while self.is_running.any():
                is_ready = self.is_running & ~self.is_waiting
                if is_ready.any():
                    place = int(self.places[is_ready].min())
                    self.go_on(place, np.flatnonzero(is_ready & (self.places == place)))
                else:
                    self.pass_barriers()

    def pass_barriers(self) -> None:
        """Nobody can go on: all blocks wait."""
        places = np.where(self.is_running, self.places, -1).reshape(len(self.blocks), self.block_size)
        is_apart = (places != places[:, :1]).any(axis=1)
        if is_apart.any():
            raise Fault(f"not all threads of block {self.blocks[is_apart.argmax()]} come to a barrier")
        self.is_waiting[:] = False
        self.epochs[self.is_running] += 1

    def go_on(self, place: int, group: np.ndarray) -> None:
        """Threads that are at the same place, until they part, wait or end, or others may be met."""
        ends = self.program.ends
        everybody = slice(None) if group.size == self.threads.size else group
        while True:
            instruction = self.program.instructions[place]
            those = everybody
            if instruction.guard:
                holds = self.registers[instruction.guard][group] == instruction.wanted
                those = group[holds]
            if self.counts is not None:
                self.counts.add(instruction, self.threads[group])
            self.places[group] = place + 1
            try:
                if self.threads[those].size:
                    getattr(self, instruction.name, self.compute)(instruction, those)
            except Fault as fault:
                raise Fault(f"{self.program.name}: {fault}; in {instruction.text}") from None
            place += 1
            if place in ends:
                return

    # Numbers of threads.

    def read(self, operand: str, dtype: np.dtype, those) -> np.ndarray:
        """A register's or an instruction's own number, for those threads."""
        if operand not in self.registers:
            return np.asarray(read_number(operand, dtype))
        values = self.registers[operand][those]
        if values.itemsize != dtype.itemsize:  # the lower bytes of a wider register
            values = values.astype(f"u{dtype.itemsize}")
        return values.view(dtype)

    def write(self, operand: str, values, those) -> None:
        """Into a register; a number that has less bytes is extended."""
        kind = self.program.registers[re.match("%[a-z]+", operand)[0]]
        if operand not in self.registers:
            self.registers[operand] = np.zeros(self.threads.size, kind)
        values = np.asarray(values)
        if values.itemsize < kind.itemsize:
            values = values.astype(f"{values.dtype.kind}{kind.itemsize}")
        self.registers[operand][those] = values.view(kind)

    def address(self, operand: str, those) -> np.ndarray:
        """Where ``[operand]`` is, which is a register or an array, and a number of bytes."""
        base, _, offset = operand.partition("+")
        return self.read(base, DTYPES["u64"], those) + np.uint64(int(offset or 0) % 2**64)

    # Instructions by their names; those that are not here compute one number of others.

    def compute(self, instruction: Instruction, those) -> None:
        """destination = f(sources), all of one type."""
        name, dtype = instruction.name, instruction.dtype
        destination, *sources = instruction.operands
        if name not in ELEMENTWISE or not {"rn", "lo"}.issuperset(instruction.modifiers[:-1]):
            raise NotImplementedError(f"PTX: what {instruction.text!r} does is still to be written")
        values = ELEMENTWISE[name](*[self.read(source, dtype, those) for source in sources])
        self.write(destination, values.astype(DTYPES["u32"] if name in COUNTS else dtype), those)

    def mov(self, instruction: Instruction, those) -> None:
        destination, source = instruction.operands
        self.write(destination, self.read(source, instruction.dtype, those), those)

    cvta = mov  # an address is the same wherever one may stand

    def selp(self, instruction: Instruction, those) -> None:
        destination, a, b, predicate = instruction.operands
        a, b = (self.read(source, instruction.dtype, those) for source in (a, b))
        self.write(destination, np.where(self.registers[predicate][those], a, b), those)

    def setp(self, instruction: Instruction, those) -> None:
        destination, *sources = instruction.operands
        a, b = (self.read(source, instruction.dtype, those) for source in sources)
        comparison = instruction.modifiers[0]
        is_unordered = (a != a) | (b != b)  # NaN
        if comparison in ("nan", "num"):
            holds = is_unordered == (comparison == "nan")
        elif comparison[:-1] in COMPARISONS:  # "ltu": or unordered
            holds = COMPARISONS[comparison[:-1]](a, b) | is_unordered
        else:
            holds = COMPARISONS[comparison](a, b) & ~is_unordered
        self.write(destination, holds, those)

    def mul(self, instruction: Instruction, those) -> None:
        """Of integers, the lower half of a product, or all of it."""
        destination, *sources = instruction.operands
        a, b = (self.read(source, instruction.dtype, those) for source in sources)
        if instruction.modifiers[0] == "wide":
            wide = np.dtype(f"{instruction.dtype.kind}{2 * instruction.dtype.itemsize}")
            a, b = a.astype(wide), b.astype(wide)
        elif instruction.modifiers[0] == "hi":
            raise NotImplementedError(f"PTX: what {instruction.text!r} does is still to be written")
        self.write(destination, a * b, those)

    def shift(self, instruction: Instruction, those) -> None:
        destination, source, amount = instruction.operands
        values, amount = self.read(source, instruction.dtype, those), self.read(amount, DTYPES["u32"], those)
        move, bits = (np.left_shift if instruction.name == "shl" else np.right_shift), 8 * values.itemsize
        moved = move(values, np.minimum(amount, bits - 1).astype(values.dtype))
        is_out = (amount >= bits) & (values.dtype.kind == "u" or instruction.name == "shl")
        self.write(destination, np.where(is_out, values.dtype.type(0), moved), those)

    shl = shr = shift

    def cvt(self, instruction: Instruction, those) -> None:
        """From one type to another; a float beyond an integer's range becomes its end, NaN becomes 0."""
        *how, to, origin = instruction.modifiers
        if not {"rn", *ROUNDINGS}.issuperset(how):
            raise NotImplementedError(f"PTX: what {instruction.text!r} does is still to be written")
        to, (destination, source) = DTYPES[to], instruction.operands
        values = self.read(source, DTYPES[origin], those)
        if values.dtype.kind == "f" and how and how[0] in ROUNDINGS:
            values = ROUNDINGS[how[0]](values)
        if values.dtype.kind == "f" and to.kind != "f":
            ends = np.iinfo(to)
            wide = np.nan_to_num(values.astype(np.float64), nan=0)
            inside = np.clip(wide, float(ends.min), np.nextafter(float(ends.max) + 1, 0)).astype(to)
            values = np.where(wide > float(ends.max), to.type(ends.max), inside)
        self.write(destination, values.astype(to), those)

    # Memory.

    def reach(self, kind: int, operand: str, dtype: np.dtype, those):
        """What `Memory.access` finds."""
        threads = self.threads[those]
        addresses = np.broadcast_to(self.address(operand, those), threads.shape)
        found = self.memory.access(kind, addresses, dtype, threads, self.epochs[those])
        for region, _, chosen in found:
            if self.counts is not None and region.blocks is None:
                self.counts.add_access(threads[chosen], addresses[chosen], dtype.itemsize)
        return [(region.data.view(dtype), items, chosen) for region, items, chosen in found]

    def ld(self, instruction: Instruction, those) -> None:
        destination, source = instruction.operands
        dtype = instruction.dtype
        if instruction.modifiers[0] == "param":
            word = self.words[self.program.parameters[source]]
            self.write(destination, word[: dtype.itemsize].view(dtype)[0], those)
            return
        values = np.empty(self.threads[those].shape, dtype)
        for numbers, items, chosen in self.reach(READ, source, dtype, those):
            values[chosen] = numbers[items]
        self.write(destination, values, those)

    def st(self, instruction: Instruction, those) -> None:
        target, source = instruction.operands
        values = np.broadcast_to(self.read(source, instruction.dtype, those), self.threads[those].shape)
        for numbers, items, chosen in self.reach(WRITE, target, instruction.dtype, those):
            numbers[items] = values[chosen]

    def atom(self, instruction: Instruction, those) -> None:
        destination, target, source = instruction.operands
        change = ATOMICS[instruction.modifiers[-2]]
        values = np.broadcast_to(self.read(source, instruction.dtype, those), self.threads[those].shape)
        before = np.empty_like(values)
        for numbers, items, chosen in self.reach(ATOMIC, target, instruction.dtype, those):
            for item, one in zip(items, chosen, strict=True):
                before[one] = numbers[item]
                numbers[item] = change(numbers[item], values[one])
        self.write(destination, before, those)

    # The way through the program.

    def bra(self, instruction: Instruction, those) -> None:
        self.places[those] = self.program.labels[instruction.operands[0]]

    def ret(self, instruction: Instruction, those) -> None:
        self.is_running[those] = False

    def bar(self, instruction: Instruction, those) -> None:
        self.is_waiting[those] = True
