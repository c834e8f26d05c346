"""The pickle of a state dict, read without `pickle`.

A pickle is a program for a machine with a stack: push a number, push a text, make a tuple of what lies above the mark,
look up a function by its name and *call* it. The last one is why a stranger's pickle must not be loaded. We run the
program on a machine of our own, for two reasons: here a name is only ever a name, nothing is imported and there is
nothing to call; and CPython's own machine reserves memory that a few bytes ask for (its memo grows to any index a file
names), which no restricted ``find_class`` prevents.

1. The machine knows the opcodes that torch.save writes (protocol 2), 32 of pickle's 68, and refuses all others.
2. A name that is not on the lists below is refused. A name on them is pushed as a `Name`.
3. A call of a name gives what `call` says: an empty OrderedDict, a `TensorView`, or `LUGGAGE`, which is dropped.
4. Every opcode takes at least a byte and makes at most one small object, and texts cannot be longer than the pickle:
   MAX_PICKLE bounds memory and time. Keys are texts and small integers, since hashing a tuple of tuples that share
   their parts takes exponential time.
"""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from dataclasses import dataclass

from minimrcnn.archive import Refused
from minimrcnn.weights.stored import shown

MAX_PICKLE = 2 * 2**20  # about 12,000 tensors; a hostile pickle takes at most a hundred times as much, and seconds


@dataclass(frozen=True, slots=True)
class Name:
    """A function or class that the pickle names."""

    path: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of ``count`` numbers (of bytes, if kind is "untyped"), the entry ``data/key`` of the zip."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class TensorView:
    """A tensor: where it starts in its storage and how far apart its elements are, counted in elements. Unchecked."""

    storage: Storage
    kind: str
    offset: int
    size: tuple
    stride: tuple


@dataclass(frozen=True, slots=True)
class Unusable:
    """A tensor that cannot become an array, and how to make it one that can."""

    why: str


LUGGAGE = object()  # what a checkpoint carries besides tensors

UTILS = "torch._utils."
STORAGES = {
    **{"torch.DoubleStorage": "float64", "torch.FloatStorage": "float32", "torch.HalfStorage": "float16"},
    **{"torch.BFloat16Storage": "bfloat16", "torch.BoolStorage": "bool", "torch.ByteStorage": "uint8"},
    **{"torch.LongStorage": "int64", "torch.IntStorage": "int32"},
    **{"torch.ShortStorage": "int16", "torch.CharStorage": "int8"},
    **{"torch.ComplexDoubleStorage": "complex128", "torch.ComplexFloatStorage": "complex64"},
    **{"torch.QInt8Storage": "qint8", "torch.QInt32Storage": "qint32", "torch.QUInt8Storage": "quint8"},
    **{"torch.storage.UntypedStorage": "untyped", "torch.UntypedStorage": "untyped"},
}
TYPES = {
    *("torch.float64", "torch.float32", "torch.float16", "torch.bfloat16", "torch.bool"),
    *("torch.int64", "torch.int32", "torch.int16", "torch.int8"),
    *("torch.uint64", "torch.uint32", "torch.uint16", "torch.uint8"),
    *("torch.complex32", "torch.complex64", "torch.complex128", "torch.float8_e4m3fn", "torch.float8_e5m2"),
    *("torch.float8_e4m3fnuz", "torch.float8_e5m2fnuz", "torch.float8_e8m0fnu", "torch.float4_e2m1fn_x2"),
}
UNUSABLE = {
    UTILS + "_rebuild_qtensor": "is quantized; save tensor.dequantize() instead",
    UTILS + "_rebuild_sparse_tensor": "is sparse; save tensor.to_dense() instead",
    UTILS + "_rebuild_nested_tensor": "is a nested tensor; save its tensors one by one instead",
    UTILS + "_rebuild_meta_tensor_no_storage": "is on the device meta, without numbers; save the real weights instead",
}
CARRIED = {  # beside the weights in the checkpoints of reference scripts and schedulers
    *("argparse.Namespace", "collections.Counter", "torch.Size", "torch.device", "_codecs.encode"),
    *("torch.per_tensor_affine", "torch.per_channel_affine", "torch.serialization._get_layout"),
}
KNOWN = {
    *("collections.OrderedDict", UTILS + "_rebuild_tensor_v2", UTILS + "_rebuild_tensor_v3"),
    *(UTILS + "_rebuild_parameter", UTILS + "_rebuild_parameter_with_state"),
    *(*STORAGES, *TYPES, *UNUSABLE, *CARRIED),
}


def read_pickle(data: bytes):
    """What the pickle describes: dicts, lists, tuples, texts, numbers, and the records above. Nothing in it is run.

    The caller has seen to it that it is no longer than MAX_PICKLE.
    """
    machine = Machine(data)
    try:
        while (opcode := machine.take(1)) != pickle.STOP:
            machine.step(opcode)
        return machine.stack.pop()
    except (IndexError, KeyError):  # more was taken from the stack, or the memo, than was put there
        raise Refused(
            f"its data.pkl makes no sense near byte {machine.position}; copy the file again from where it came"
        ) from None


class Machine:
    """Stack, marks and memo of the program, and how far it has run."""

    def __init__(self, data: bytes):
        self.data, self.position = data, 0
        self.stack: list = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, object] = {}

    def take(self, count: int) -> bytes:
        """The next bytes of the program."""
        start, self.position = self.position, self.position + count
        if self.position > len(self.data):
            raise Refused("its data.pkl ends too early; copy the file again from where it came")
        return self.data[start : self.position]

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def pop_mark(self) -> list:
        """Everything above the last mark."""
        height = self.marks.pop()
        taken = self.stack[height:]
        del self.stack[height:]
        return taken

    def step(self, opcode: bytes) -> None:
        """Run one instruction."""
        stack = self.stack
        match opcode:
            case pickle.BINPUT:
                self.memo[self.number(1)] = stack[-1]
            case pickle.LONG_BINPUT:
                self.memo[self.number(4)] = stack[-1]
            case pickle.BINGET:
                stack.append(self.memo[self.number(1)])
            case pickle.LONG_BINGET:
                stack.append(self.memo[self.number(4)])
            case pickle.NONE:
                stack.append(None)
            case pickle.NEWTRUE:
                stack.append(True)
            case pickle.NEWFALSE:
                stack.append(False)
            case pickle.BININT1:
                stack.append(self.number(1))
            case pickle.BININT2:
                stack.append(self.number(2))
            case pickle.BININT:
                stack.append(self.number(4, signed=True))
            case pickle.LONG1:
                stack.append(self.number(self.number(1), signed=True))
            case pickle.BINFLOAT:
                stack.append(struct.unpack(">d", self.take(8))[0])
            case pickle.BINUNICODE:
                stack.append(self.take(self.number(4)).decode("utf-8"))
            case pickle.MARK:
                self.marks.append(len(stack))
            case pickle.EMPTY_TUPLE:
                stack.append(())
            case pickle.TUPLE1:
                stack.append((stack.pop(),))
            case pickle.TUPLE2:
                second, first = stack.pop(), stack.pop()
                stack.append((first, second))
            case pickle.TUPLE3:
                third, second, first = stack.pop(), stack.pop(), stack.pop()
                stack.append((first, second, third))
            case pickle.TUPLE:
                stack.append(tuple(self.pop_mark()))
            case pickle.EMPTY_LIST:
                stack.append([])
            case pickle.APPEND:
                item = stack.pop()
                extend(stack[-1], [item])
            case pickle.APPENDS:
                items = self.pop_mark()
                extend(stack[-1], items)
            case pickle.EMPTY_DICT:
                stack.append({})
            case pickle.SETITEM:
                value, key = stack.pop(), stack.pop()
                update(stack[-1], [key, value])
            case pickle.SETITEMS:
                items = self.pop_mark()
                update(stack[-1], items)
            case pickle.GLOBAL:
                stack.append(self.look_up())
            case pickle.REDUCE | pickle.NEWOBJ:
                arguments, function = stack.pop(), stack.pop()
                stack.append(call(function, arguments))
            case pickle.BUILD:  # attributes: an OrderedDict's _metadata, a Namespace's options
                stack.pop()
                if stack[-1] is not LUGGAGE and type(stack[-1]) is not OrderedDict:
                    kind = type(stack[-1]).__name__
                    raise Refused(f"its data.pkl sets attributes of a {kind}; do not trust this file")
            case pickle.BINPERSID:
                stack.append(storage(stack.pop()))
            case pickle.PROTO:
                if (version := self.number(1)) != 2:
                    raise Refused(
                        f"its data.pkl is of pickle protocol {version}, wanted 2, which torch.save takes by itself: "
                        "save again without pickle_protocol"
                    )
            case _:
                raise Refused(
                    f"its data.pkl has the opcode {opcode!r} at byte {self.position - 1}, which torch.save does not "
                    "write; copy the file again from where it came, or do not trust it"
                )

    def look_up(self) -> Name:
        """Two lines, a module and a name in it: the moment at which CPython's machine would import."""
        lines = []
        for _ in range(2):
            end = self.data.index(b"\n", self.position)
            lines.append(self.take(end - self.position).decode("utf-8"))
            self.position += 1
        path = ".".join(lines)
        if path not in KNOWN:
            raise Refused(
                f"its data.pkl asks for {shown(path)}, which weights do not need; it may be a whole model, or harmful, "
                "and was not run. Wanted a state dict of tensors: where you trust the file, open it with torch and "
                "save the weights alone: torch.save(model.state_dict(), new_path)"
            )
        return Name(path)


def extend(target, items: list) -> None:
    if type(target) is not list:
        raise Refused(f"its data.pkl appends to a {type(target).__name__}, wanted a list; do not trust this file")
    target.extend(items)


def update(target, items: list) -> None:
    if type(target) not in (dict, OrderedDict) or len(items) % 2:
        raise Refused(
            f"its data.pkl puts {len(items)} keys and values in a {type(target).__name__}, wanted pairs in a dict; "
            "do not trust this file"
        )
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) is not str and not (type(key) is int and -(2**31) <= key < 2**31):
            raise Refused(
                f"its data.pkl has a {type(key).__name__} as a key, wanted a text or a small integer; "
                "save the weights alone: torch.save(model.state_dict(), new_path)"
            )
        target[key] = value


def call(function, arguments):
    """What stands for the result of a call."""
    match function, arguments:
        case Name("collections.OrderedDict"), ():
            return OrderedDict()
        case Name("torch._utils._rebuild_tensor_v2"), (Storage() as storage, offset, size, stride, _, _, *metadata):
            if any(metadata):  # the numbers are still to be negated or conjugated
                return Unusable("is negated or conjugated lazily; save tensor.resolve_neg().resolve_conj() instead")
            return TensorView(storage, storage.kind, offset, size, stride)
        case (
            Name("torch._utils._rebuild_tensor_v3"),
            (Storage("untyped") as storage, offset, size, stride, _, _, Name(path), *_),
        ):
            return TensorView(storage, path.removeprefix("torch."), offset, size, stride)
        case Name("torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state"), (value, *_):
            return value
        case Name(path), tuple() if path in UNUSABLE:
            return Unusable(UNUSABLE[path])
        case Name(path), tuple() if path in CARRIED:
            return LUGGAGE
    what = function.path if isinstance(function, Name) else f"a {type(function).__name__}"
    raise Refused(f"its data.pkl calls {what} as torch.save does not; nothing was run, do not trust this file")


def storage(identity) -> Storage:
    """The storage that a tensor refers to."""
    match identity:
        case ("storage", Name(path), str(key), str(), int(count)) if path in STORAGES:
            return Storage(STORAGES[path], key, count)
    raise Refused("its data.pkl refers to something outside that is no storage; copy the file again from where it came")
