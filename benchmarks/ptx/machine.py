"""``run``: a compiled kernel, executed on the CPU, all threads of a grid side by side.

A register is an array with a number for each thread, and an instruction one operation of NumPy's. Threads go different
ways where they branch: each has a place in the program of its own, and the machine always goes on with those that are
furthest behind, until they have caught up. At a barrier a thread waits for its block. This is one of the orders that a
GPU may choose. What the kernel must not do in any order, `memory` finds out.

So a kernel is checked as it was compiled, with the widths of its integers and the rounding of its sums, which Numba's
simulator, where a kernel is Python, cannot see. A fused multiplication and addition of float32 is rounded to float64 on
its way, which in one of 2^29 cases is the last bit; one of float64 is rounded twice. What a GPU does by tables, sines
and powers, is not here, nor are words among the threads of a warp; and a thread that waits in a loop for what another
will write waits until `LONGEST`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.ptx.arithmetic import ATOMICS, COMPARISONS, ELEMENTWISE, ROUNDINGS, cut_off
from benchmarks.ptx.memory import ATOMIC, READ, WRITE, Fault, Memory, Region
from benchmarks.ptx.program import DTYPES, Instruction, Program, Unknown, find_dtype, read_number

WARP = 32  # threads that make one request
SECTOR = 32  # bytes that memory is read by
WORD = 8  # bytes of a parameter
AT_ONCE = 1 << 14  # threads side by side
LONGEST = 3_000_000  # instructions of threads side by side: minutes, where our kernels take seconds
COUNTS = "popc", "clz"  # give 32 bits
MOVES = "ld", "st", "atom", "red", "bra", "ret", "bar"  # of any width


@dataclass
class Counts:
    """What a run took, of all threads.

    Attributes
    ----------
    instructions : int
        Carried out, by all threads; arithmetic with 64 bits counts twice, as a GPU has 32.
    asked, bytes : int
        Bytes of arrays (not of shared ones) that threads read or wrote, and those of all pieces of 32 that the requests
        of their warps took: more, where neighbors' are not side by side, and less, where they are the same.
    """

    instructions: int = 0
    asked: int = 0
    bytes: int = 0

    def add(self, instruction: Instruction, threads: np.ndarray) -> None:
        """These threads carry it out."""
        is_wide = instruction.name not in MOVES and instruction.dtype.itemsize == 8
        self.instructions += threads.size * (2 if is_wide else 1)

    def add_access(self, threads: np.ndarray, addresses: np.ndarray, size: int) -> None:
        """These threads access so many bytes from these addresses on, in one instruction; none is in two pieces."""
        warps = (threads // WARP).astype(np.uint64)  # where a block is not of whole warps, near enough
        self.asked += threads.size * size
        self.bytes += SECTOR * np.unique((warps << np.uint64(44)) + addresses // np.uint64(SECTOR)).size


def run(program: Program, numbers: bytes, memory: Memory, counts: Counts | None = None) -> None:
    """Run a kernel to its end.

    Parameters
    ----------
    program : Program
    numbers : bytes
        What a launch hands over, eight bytes for each parameter.
    memory : Memory
        With all arrays that these have addresses of, and the grid.
    counts : Counts, optional
        To be added to, which takes as long again.

    Raises
    ------
    Fault
        A thread did what it must not do.
    Unknown
        An instruction that is not here.
    """
    together = max(1, AT_ONCE // memory.grid.block_size)
    count = len(memory.regions)
    for first in range(0, memory.grid.count, together):
        blocks = range(first, min(first + together, memory.grid.count))
        Machine(program, numbers, memory, blocks, counts).run()
        del memory.regions[count:]  # what the threads of these blocks shared


class Machine:
    """Some blocks of a grid, in the middle of a kernel; parameters are those of `run`."""

    def __init__(self, program: Program, numbers: bytes, memory: Memory, blocks: range, counts: Counts | None):
        self.program, self.memory, self.blocks, self.counts = program, memory, blocks, counts
        self.words = np.frombuffer(numbers, np.uint8).reshape(-1, WORD)
        grid = memory.grid
        self.threads = np.arange(blocks.start * grid.block_size, blocks.stop * grid.block_size)
        block, own = np.divmod(self.threads, grid.block_size)
        self.registers: dict[str, np.ndarray] = {"%laneid": (own % WARP).astype(np.uint32)}
        for name, number, sides in (("tid", own, grid.threads), ("ctaid", block, grid.blocks)):
            for axis, along, side in zip("xyz", grid.split(number, sides), sides, strict=True):
                self.registers[f"%{name}.{axis}"] = along.astype(np.uint32)
                self.registers[f"%n{name}.{axis}"] = np.full(own.size, side, np.uint32)
        for number, (name, (itemsize, size)) in enumerate(program.shared.items(), 1):
            data = np.zeros(size * len(blocks), np.uint8)
            region = Region(f"shared array {number}", data, itemsize, blocks, grid.block_size)
            self.registers[name] = (memory.add(region) + region.find_own(self.threads)).astype(np.uint64)
        for name, (itemsize, size) in program.local.items():
            data, owners = np.zeros(size * own.size, np.uint8), range(self.threads[0], self.threads[-1] + 1)
            region = Region("its local array", data, itemsize, owners)
            self.registers[name] = (memory.add(region) + region.find_own(self.threads)).astype(np.uint64)
        self.counters = np.zeros(own.size, np.int64)  # which instruction is each thread's next
        self.is_running, self.is_waiting = np.ones(own.size, bool), np.zeros(own.size, bool)
        self.epochs = np.zeros(own.size, np.int64)  # how many barriers each has passed
        self.steps = 0

    def run(self) -> None:
        """All threads, to the end."""
        with np.errstate(all="ignore"):
            while self.is_running.any():
                is_ready = self.is_running & ~self.is_waiting
                if is_ready.any():
                    counter = int(self.counters[is_ready].min())
                    self.go_on(counter, np.flatnonzero(is_ready & (self.counters == counter)))
                else:
                    self.pass_barriers()

    def pass_barriers(self) -> None:
        """Nobody can go on: all blocks wait."""
        counters = np.where(self.is_running, self.counters, -1).reshape(len(self.blocks), -1)
        is_apart = counters != counters[:, :1]
        if is_apart.any():
            block, thread = np.unravel_index(is_apart.argmax(), counters.shape)
            told = [self.tell(block * counters.shape[1] + some) for some in (thread, 0)]
            raise Fault(f"{told[0]}, and {told[1]}: a barrier is for all threads of a block")
        self.is_waiting[:] = False
        self.epochs[self.is_running] += 1

    def tell(self, number: int) -> str:
        """Where one of the threads is."""
        name = self.memory.grid.name(self.threads[number])
        if not self.is_running[number]:
            return f"{name} has ended"
        return f"{name} waits at {self.program.instructions[self.counters[number] - 1].where}"

    def go_on(self, counter: int, group: np.ndarray) -> None:
        """Threads that have the same instruction before them, until they part, wait or end, or others may be met."""
        ends = self.program.ends
        everybody = slice(None) if group.size == self.threads.size else group
        while True:
            instruction = self.program.instructions[counter]
            those = everybody
            if instruction.guard:
                holds = self.registers[instruction.guard][group] == instruction.wanted
                those = group[holds]
            if self.counts is not None:
                self.counts.add(instruction, self.threads[those])
            self.counters[group] = counter + 1
            self.steps += 1
            try:
                if self.steps > LONGEST:
                    raise Fault(
                        f"{self.memory.grid.name(self.threads[group[0]])} still runs after {LONGEST} instructions"
                    )
                if self.threads[those].size:
                    getattr(self, instruction.name, self.compute)(instruction, those)
            except Fault as fault:
                raise Fault(f"{fault}; in {instruction}") from None
            except (Unknown, KeyError, ValueError) as error:  # a type, or a number of operands, that is not here
                what = f" ({error})" if isinstance(error, Unknown) and error.args else ""
                raise Unknown(f"the machine does not know {instruction}{what}: it has what our kernels need") from error
            counter += 1
            if counter in ends:
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
        kind = self.program.registers[re.match("%[A-Za-z]+", operand)[0]]
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
            raise Unknown
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
        comparison, _ = instruction.modifiers
        is_unordered = (a != a) | (b != b)  # NaN
        if comparison in ("nan", "num"):
            holds = is_unordered == (comparison == "nan")
        elif comparison[:-1] in COMPARISONS:  # "ltu": or unordered
            holds = COMPARISONS[comparison[:-1]](a, b) | is_unordered
        else:
            holds = COMPARISONS[comparison](a, b) & ~is_unordered
        self.write(destination, holds, those)

    def mul(self, instruction: Instruction, those) -> None:
        """Of integers, the lower half of a product, the upper half, or all of it."""
        destination, *sources = instruction.operands
        a, b = (self.read(source, instruction.dtype, those) for source in sources)
        if instruction.modifiers[0] == "wide":
            wide = np.dtype(f"{instruction.dtype.kind}{2 * instruction.dtype.itemsize}")
            product = a.astype(wide) * b.astype(wide)
        elif instruction.modifiers[0] == "hi" and instruction.dtype.kind != "f":
            product = (a.astype(object) * b.astype(object) >> 8 * a.itemsize).astype(instruction.dtype)
        elif {"lo", "rn"}.issuperset(instruction.modifiers[:-1]):
            product = a * b
        else:
            raise Unknown
        self.write(destination, product, those)

    def shift(self, instruction: Instruction, those) -> None:
        destination, source, amount = instruction.operands
        values, amount = self.read(source, instruction.dtype, those), self.read(amount, DTYPES["u32"], those)
        move, bits = (np.left_shift if instruction.name == "shl" else np.right_shift), 8 * values.itemsize
        moved = move(values, np.minimum(amount, bits - 1).astype(values.dtype))
        is_out = (amount >= bits) & (values.dtype.kind == "u" or instruction.name == "shl")
        self.write(destination, np.where(is_out, values.dtype.type(0), moved), those)

    shl = shr = shift

    def cvt(self, instruction: Instruction, those) -> None:
        """From one type to another; a float beyond an integer's range becomes its end. NaN: see `cut_off`."""
        *how, to, origin = instruction.modifiers
        if not {"rn", *ROUNDINGS}.issuperset(how):
            raise Unknown
        to, (destination, source) = find_dtype(to), instruction.operands
        values = self.read(source, find_dtype(origin), those)
        if values.dtype.kind == "f" and how and how[0] in ROUNDINGS:
            values = ROUNDINGS[how[0]](values)
        if values.dtype.kind == "f" and to.kind != "f":
            values = cut_off(values, to)
        self.write(destination, values.astype(to), those)

    # Memory.

    def reach(self, kind: int, operand: str, dtype: np.dtype, those, number: int = 0, count: int = 1):
        """What `Memory.access` finds at an address, ``number`` numbers further, of ``count`` that are asked for."""
        threads = self.threads[those]
        addresses = np.broadcast_to(self.address(operand, those), threads.shape) + np.uint64(number * dtype.itemsize)
        found = self.memory.access(kind, addresses, dtype, threads, self.epochs[those])
        for region, _, chosen in found:
            if self.counts is not None and region.owners is None and number == 0:  # all of a vector are one request
                self.counts.add_access(threads[chosen], addresses[chosen], count * dtype.itemsize)
        return [(region.data.view(dtype), items, chosen) for region, items, chosen in found]

    def ld(self, instruction: Instruction, those) -> None:
        destination, source = instruction.operands
        dtype = instruction.dtype
        if instruction.modifiers[0] == "param":
            word = self.words[self.program.parameters[source]]
            self.write(destination, word[: dtype.itemsize].view(dtype)[0], those)
            return
        kind = ATOMIC if instruction.modifiers[0] == "volatile" else READ
        registers = self.components(destination, source, dtype, those)
        values = np.empty((len(registers), self.threads[those].size), dtype)
        for number in range(len(registers)):
            for numbers, items, chosen in self.reach(kind, source, dtype, those, number, len(registers)):
                values[number, chosen] = numbers[items]
        for register, loaded in zip(registers, values, strict=True):
            self.write(register, loaded, those)

    def st(self, instruction: Instruction, those) -> None:
        target, source = instruction.operands
        dtype = instruction.dtype
        kind = ATOMIC if instruction.modifiers[0] == "volatile" else WRITE
        registers = self.components(source, target, dtype, those)
        for number, register in enumerate(registers):
            values = np.broadcast_to(self.read(register, dtype, those), self.threads[those].shape)
            for numbers, items, chosen in self.reach(kind, target, dtype, those, number, len(registers)):
                numbers[items] = values[chosen]

    def components(self, operand: str, address: str, dtype: np.dtype, those) -> list[str]:
        """One register, or those of a vector, which must lie where a vector may."""
        names = operand.strip("{}").replace(" ", "").split(",")
        if len(names) > 1 and (self.address(address, those) % np.uint64(len(names) * dtype.itemsize)).any():
            raise Fault(
                f"a thread wants {len(names)} numbers at once, from an address that is no multiple of their bytes"
            )
        return names

    def atom(self, instruction: Instruction, those) -> None:
        """Thread after thread, in the order of their numbers: one of those that a GPU may choose."""
        destination, target, *sources = instruction.operands
        values = [
            np.broadcast_to(self.read(source, instruction.dtype, those), self.threads[those].shape)
            for source in sources
        ]
        before = np.empty_like(values[0])
        for numbers, items, chosen in self.reach(ATOMIC, target, instruction.dtype, those):
            for item, one in zip(items, chosen, strict=True):
                before[one] = numbers[item]
                if instruction.modifiers[-2] != "cas":
                    numbers[item] = ATOMICS[instruction.modifiers[-2]](numbers[item], values[0][one])
                elif numbers[item] == values[0][one]:
                    numbers[item] = values[1][one]
        if destination:
            self.write(destination, before, those)

    def red(self, instruction: Instruction, those) -> None:
        """The same where nobody asks what was there before."""
        self.atom(replace(instruction, operands=("", *instruction.operands)), those)

    # The way through the program.

    def bra(self, instruction: Instruction, those) -> None:
        self.counters[those] = self.program.labels[instruction.operands[0]]

    def ret(self, instruction: Instruction, those) -> None:
        self.is_running[those] = False

    def bar(self, instruction: Instruction, those) -> None:
        if instruction.modifiers != ("sync",) or instruction.operands != ("0",):
            raise Unknown  # of a warp, or of some threads
        self.is_waiting[those] = True
