"""PTX, the assembly language that Numba compiles a CUDA kernel to, as a list of instructions.

A line of it is, in order, whom it is for (all threads, or those in which a predicate holds), what to do, with numbers
of which kind, where to put the result, and what of:

    @%p1 add.s64 %rd3, %rd1, 16;

Of the language, which has some hundred instructions, there is what our kernels are compiled to, and a little more; any
other is refused. NVIDIA, "PTX ISA", has all of it.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

DTYPES = {
    "pred": np.dtype(bool),
    **{f"b{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"u{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"s{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"f{bits}": np.dtype(f"f{bits // 8}") for bits in (32, 64)},
}
IMMEDIATES = {"0f": (">I", ">f"), "0d": (">Q", ">d")}  # floats by their bits


class Unknown(NotImplementedError):
    """Something of PTX that is not here."""


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes
    ----------
    text : str
        As it was written.
    where : str
        File and line of the Python that it was compiled from.
    guard, wanted : str, bool
        Only for threads in which this predicate is so; for all if the name is empty.
    name : str
        ``add`` of ``add.s64``.
    modifiers : tuple of str
        ``s64`` of it: rounding, space, comparison, types.
    operands : tuple of str
        The destination first, where there is one. An address without its brackets; several registers with their braces.
    """

    text: str
    where: str
    guard: str
    wanted: bool
    name: str
    modifiers: tuple[str, ...]
    operands: tuple[str, ...]

    @property
    def dtype(self) -> np.dtype:
        """Of its last type, which is that of what it takes."""
        return find_dtype(self.modifiers[-1])

    def __str__(self):
        return f"{self.where} ({self.text})" if self.where else self.text


@dataclass(frozen=True)
class Program:
    """One kernel.

    Attributes
    ----------
    parameters : dict of str to int
        Their numbers, from 0.
    registers : dict of str to dtype
        By the beginnings of their names: ``%rd`` of ``%rd12``.
    shared, local : dict of str to (int, int)
        Bytes of a number, and of all, of each array that the threads of a block share, or that a thread has to itself.
    instructions : list of Instruction
    labels : dict of str to int
        The instruction that follows.
    """

    parameters: dict[str, int]
    registers: dict[str, np.dtype]
    shared: dict[str, tuple[int, int]]
    local: dict[str, tuple[int, int]]
    instructions: list[Instruction]
    labels: dict[str, int]

    @cached_property
    def ends(self) -> set[int]:
        """Instructions before which threads may part, or meet."""
        leaving = {i + 1 for i, given in enumerate(self.instructions) if given.name in ("bra", "ret", "bar")}
        return leaving.union(self.labels.values())


def find_dtype(kind: str) -> np.dtype:
    """NumPy's type of PTX's."""
    if kind not in DTYPES:
        raise Unknown(f"numbers of type {kind}")
    return DTYPES[kind]


def parse(ptx: str) -> Program:
    """The only kernel of a text.

    Raises
    ------
    Unknown
        There is something in it that is not known here.
    """
    files = {number: Path(path).name for number, path in re.findall(r'^\s*\.file\s+(\d+)\s+"(.*?)"', ptx, re.MULTILINE)}
    ptx = re.sub(r"//.*", "", ptx)
    ptx = re.sub(r"^\s*\.loc\s+(\d+)\s+(\d+).*", r".loc \1 \2;", ptx, flags=re.MULTILINE)  # a statement like others
    if re.search(r"^\s*(\.\w+ )?\.func\b", ptx, re.MULTILINE):
        raise Unknown("a function that is called, such as math.sin or print")
    (parameters, body), = re.findall(r"\.entry\s+\w+\s*\((.*?)\)[^{;]*\{(.*)\}", ptx, re.DOTALL)  # fmt: skip
    instructions, labels, where = [], {}, ""
    for text in re.findall(r"[^;:\s][^;:]*[;:]", body):
        text, ending = " ".join(text[:-1].split()), text[-1]
        if ending == ":":
            labels[text] = len(instructions)
        elif text.startswith(".loc "):
            _, number, line = text.split()
            where = f"{files[number]}, line {line}" if number in files else f"line {line}"
        elif not text.startswith("."):
            instructions.append(read_instruction(text, where))
    return Program(
        {name: i for i, name in enumerate(re.findall(r"\.param\s[^,]*?(\w+)\s*(?:,|$)", parameters))},
        {prefix: find_dtype(kind) for kind, prefix in re.findall(r"\.reg\s+\.(\w+)\s+(%[A-Za-z]+)(?:<\d+>)?;", body)},
        find_arrays("shared", ptx), find_arrays("local", ptx), instructions, labels,
    )  # fmt: skip


def find_arrays(space: str, ptx: str) -> dict[str, tuple[int, int]]:
    """(bytes of a number, and of all) of the arrays in a space, if they are aligned as their numbers are."""
    found = re.findall(rf"\.{space}\s+\.align\s+(\d+)\s+\.b8\s+(\w+)\[(\d+)\];", ptx)
    return {name: (int(align), int(size)) for align, name, size in found}


def read_instruction(text: str, where: str = "") -> Instruction:
    """One line without its semicolon."""
    parts = re.fullmatch(r"(?:@(!?)(%\w+) )?([a-z][\w.]*) ?([^()]*)", text)
    if parts is None:
        raise Unknown(f"the machine does not know {text} ({where}): it has what our kernels need")
    negated, guard, name, operands = parts.groups()
    name, *modifiers = name.split(".")
    operands = tuple(operand.strip("[] ") for operand in re.findall(r"\{.*?\}|[^,{\s][^,{]*", operands))
    return Instruction(text, where, guard or "", not negated, name, tuple(modifiers), operands)


def read_number(text: str, dtype: np.dtype) -> np.generic:
    """A number that stands in an instruction."""
    if text[:2] in IMMEDIATES:
        bits, number = IMMEDIATES[text[:2]]
        packed = struct.pack(bits, int(text[2:], 16))
        if dtype.kind == "f":
            return dtype.type(*struct.unpack(number, packed))
        if len(packed) != dtype.itemsize:
            raise Unknown(f"{text!r} as a number of {dtype.itemsize} bytes")
        return np.frombuffer(packed[::-1], dtype)[0]  # its bits
    if not re.fullmatch(r"-?\d+", text):
        raise Unknown(f"{text!r}")
    wide = np.array(int(text) % 2**64, np.uint64)  # -1 is as well written as 2^64 - 1
    return wide.astype(dtype)[()]
