"""PTX, the assembly language that Numba compiles a CUDA kernel to, as a list of instructions.

A line of it is, in order, whom it is for (all threads, or those in which a predicate holds), what to do, with numbers
of which kind, where to put the result, and what of:

    @%p1 add.s64 %rd3, %rd1, 16;

Of the language, which has some hundred instructions, there is what our kernels are compiled to; any other is refused.
NVIDIA, "PTX ISA", has all of it.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np

DTYPES = {
    "pred": np.dtype(bool),
    **{f"b{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"u{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"s{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"f{bits}": np.dtype(f"f{bits // 8}") for bits in (32, 64)},
}
IMMEDIATES = {"0f": (">I", ">f"), "0d": (">Q", ">d")}  # floats by their bits


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes
    ----------
    text : str
        As it was written.
    guard, wanted : str, bool
        Only for threads in which this predicate is so; for all if the name is empty.
    name : str
        ``add`` of ``add.s64``.
    modifiers : tuple of str
        ``s64`` of it: rounding, space, comparison, types.
    operands : tuple of str
        The destination first, where there is one. An address without its brackets.
    """

    text: str
    guard: str
    wanted: bool
    name: str
    modifiers: tuple[str, ...]
    operands: tuple[str, ...]

    @property
    def dtype(self) -> np.dtype:
        """Of its last type, which is that of what it takes."""
        return DTYPES[self.modifiers[-1]]


@dataclass(frozen=True)
class Program:
    """One kernel.

    Attributes
    ----------
    name : str
    parameters : dict of str to int
        Their numbers, from 0.
    registers : dict of str to dtype
        By the beginnings of their names: ``%rd`` of ``%rd12``.
    shared : dict of str to (int, int)
        Bytes of a number, and of all, of each array that the threads of a block share.
    instructions : list of Instruction
    labels : dict of str to int
        The instruction that follows.
    """

    name: str
    parameters: dict[str, int]
    registers: dict[str, np.dtype]
    shared: dict[str, tuple[int, int]]
    instructions: list[Instruction]
    labels: dict[str, int]

    @cached_property
    def ends(self) -> set[int]:
        """Instructions before which threads may part, or meet."""
        leaving = {i + 1 for i, given in enumerate(self.instructions) if given.name in ("bra", "ret", "bar")}
        return leaving.union(self.labels.values())


def parse(ptx: str) -> Program:
    """The only kernel of a text."""
    ptx = re.sub(r"//.*", "", ptx)
    (name, parameters, body), = re.findall(r"\.entry\s+(\w+)\s*\((.*?)\)[^{;]*\{(.*)\}", ptx, re.DOTALL)  # fmt: skip
    shared = re.findall(r"\.shared\s+\.align\s+(\d+)\s+\.b8\s+(\w+)\[(\d+)\];", ptx)
    registers = re.findall(r"\.reg\s+\.(\w+)\s+(%[a-z]+)<\d+>;", body)
    instructions, labels = [], {}
    for text in re.findall(r"[^;:\s][^;:]*[;:]", body):
        if text.endswith(":"):
            labels[text[:-1]] = len(instructions)
        elif not text.startswith("."):
            instructions.append(read_instruction(" ".join(text[:-1].split())))
    numbers = {name: i for i, name in enumerate(re.findall(r"\.param\s[^,]*?(\w+)\s*(?:,|$)", parameters))}
    sizes = {name: (int(align), int(size)) for align, name, size in shared}
    return Program(name, numbers, {prefix: DTYPES[kind] for kind, prefix in registers}, sizes, instructions, labels)


def read_instruction(text: str) -> Instruction:
    """One line without its semicolon."""
    negated, guard, name, operands = re.fullmatch(r"(?:@(!?)(%\w+) )?([\w.]+) ?(.*)", text).groups()
    name, *modifiers = name.split(".")
    operands = tuple(operand.strip("[] ") for operand in operands.split(",")) if operands else ()
    return Instruction(text, guard or "", not negated, name, tuple(modifiers), operands)


def read_number(text: str, dtype: np.dtype) -> np.generic:
    """A number that stands in an instruction."""
    if text[:2] in IMMEDIATES:
        bits, number = IMMEDIATES[text[:2]]
        return dtype.type(*struct.unpack(number, struct.pack(bits, int(text[2:], 16))))
    if dtype.kind in "fb" and not text.isdigit():
        raise ValueError(f"PTX: {text!r} is no number of type {dtype}")
    wide = np.array(int(text, 0) % 2**64, np.uint64)  # -1 is as well written as 2^64 - 1
    return wide.astype(dtype)[()]
