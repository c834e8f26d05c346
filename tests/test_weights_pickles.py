"""The pickle in a torch file: nothing in it runs, whatever it says, and nothing makes it large."""

import io
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimrcnn import weights
from minimrcnn.weights import pickles
from tests.foreign_weights import MIB, Bomb, assert_same, load_or_refuse, peak_of, refuse, write_program


def text(value):
    return pickle.BINUNICODE + struct.pack("<I", len(value)) + value.encode()


def hostile_programs(mark):
    """Pickles that make a folder when pickle reads them."""
    python = f"__import__('os').mkdir({mark!r})"
    posix, evaluate = b"cposix\nmkdir\n", b"c__builtin__\neval\n"
    yield from (posix + text(mark) + b"\x85R.", evaluate + text(python) + b"\x85R.")
    yield b"cos\nsystem\n" + text(f"mkdir {mark}") + b"\x85R."
    yield b"cbuiltins\nexec\n" + text(python) + b"\x85R."
    yield b"(" + text(mark) + b"iposix\nmkdir\n."  # INST
    yield b"(" + posix + text(mark) + b"o."  # OBJ
    yield text("posix") + text("mkdir") + b"\x93" + text(mark) + b"\x85R."  # STACK_GLOBAL
    yield b"ccollections\nOrderedDict\n)R}" + text("x") + posix + text(mark) + b"\x85Rsb."  # under BUILD
    yield b"ctorch._utils\n_rebuild_parameter\n" + posix + text(mark) + b"\x85R\x89N\x87R."
    yield b"(" + text("storage") + posix + text("0") + text("cpu") + b"K\x01tQ" + posix + text(mark) + b"\x85R."


def test_hostile_pickles_never_run(tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "a.pth"
    programs = [pickle.dumps({"x": Bomb(str(mark))}, protocol) for protocol in range(6)]
    programs += [header + program for program in hostile_programs(str(mark)) for header in (b"", b"\x80\x02")]
    for program in programs:
        write_program(path, program)
        refuse(path)
        path.write_bytes(program)  # bare
        refuse(path)
        assert not mark.exists()
    assert sum(runs(program, mark) for program in programs) >= 15  # they are what they say


def runs(program, mark):
    class Unpickler(pickle.Unpickler):
        def persistent_load(self, identity):
            return None

    try:
        Unpickler(io.BytesIO(program)).load()
    except Exception:
        pass
    return mark.exists() and not mark.rmdir()


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x02tQ"


@pytest.mark.parametrize(
    "program, words",
    [
        (b"", ["ends too early"]),
        (b".", ["no sense"]),
        (b"}", ["ends too early"]),
        (b"R.", ["no sense"]),
        (b"h\x05.", ["no sense"]),
        (b"t.", ["no sense"]),
        (b"\x86.", ["no sense"]),
        (b"X\xff\xff\xff\xffabc", ["ends too early"]),
        (b"X\x02\0\0\0\xff\xff.", ["damaged"]),
        (b"\x8b\xff\xff\xff\x7f1.", ["opcode"]),
        (b"\x8d" + b"\xff" * 7 + b"\x7f1.", ["opcode"]),
        (b"\x95" + b"\xff" * 8 + b"}.", ["opcode"]),
        (b"}2.", ["opcode"]),
        (b"\x80\x05}.", ["protocol 5"]),
        (b"ctorch", ["damaged"]),
        (b"ctorch\nload\n.", ["torch.load", "not run"]),
        (b"ctorch\nFloatStorage\n)R.", ["calls torch.FloatStorage"]),
        (b"K\x01K\x02R.", ["calls a int"]),
        (b"}}R.", ["calls a dict"]),
        (b"ccollections\nOrderedDict\nK\x05\x85R.", ["calls collections.OrderedDict"]),
        (REBUILD + b")R.", ["calls torch._utils._rebuild_tensor_v2"]),
        (REBUILD + b"(K\x01K\x00))\x89}tR.", ["calls torch._utils._rebuild_tensor_v2"]),
        (b"K\x05Q.", ["no storage"]),
        (b"(" + text("storage") + b"}" + text("0") + text("cpu") + b"K\x02tQ.", ["no storage"]),
        (b"(" + text("module") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x02tQ.", ["no storage"]),
        (b"}}b.", ["attributes of a dict"]),
        (STORAGE + b"}b.", ["attributes of a Storage"]),
        (b"}K\x01a.", ["appends to a dict"]),
        (b"]K\x01K\x02s.", ["in a list"]),
        (b"}(K\x01K\x02K\x03u.", ["3 keys"]),
        (b"}))s.", ["tuple as a key"]),
        (b"}\x8a\x05\0\0\0\0\1K\1s.", ["int as a key, wanted a text or a small integer"]),  # 2**32
        (b"}" + b"K\x01" * 3 + b"e.", ["no sense"]),
        (STORAGE + b".", ["a Storage"]),
        (b"}" + text("x") + REBUILD + b"(" + STORAGE + b"K\x00K\x02\x85K\x01\x85\x89}t" + b"Rs", ["ends too early"]),
    ],
    ids=str,
)
def test_programs_that_torch_does_not_write(tmp_path, program, words):
    refuse(write_program(tmp_path / "a.pth", program), *words)


def test_program_that_it_does_write(tmp_path):
    program = b"\x80\x02}" + text("x") + REBUILD + b"(" + STORAGE + b"K\x00K\x02\x85K\x01\x85\x89}tRs."
    assert_same(weights.load(write_program(tmp_path / "a.pth", program)), {"x": np.zeros(2, np.float32)})


FRAGMENTS = [
    *(b".}])(Nabeghjqrstu\x81\x85\x86\x87\x88\x89QR"[at : at + 1] for at in range(25)),
    *(b"K\x00", b"K\x01", b"K\x02", b"h\x00", b"q\x00", b"\x8a\x09" + b"\xff" * 9, b"G" + b"\0" * 8),
    *(text(value) for value in ("x", "0", "storage", "model")),
    *(STORAGE, REBUILD, b"ctorch._utils\n_rebuild_tensor_v3\n", b"ctorch._utils\n_rebuild_parameter\n"),
    *(b"ccollections\nOrderedDict\n", b"ctorch\nuint16\n", b"cargparse\nNamespace\n", b"ctorch\nFloatStorage\n"),
    REBUILD + b"(" + STORAGE + b"K\x00K\x02\x85K\x01\x85\x89}tR",
]


@settings(max_examples=200)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=30))
def test_any_program_gives_arrays_or_an_error(tmp_path_factory, fragments):
    path = write_program(tmp_path_factory.getbasetemp() / "program.pth", b"\x80\x02}" + b"".join(fragments) + b".")
    load_or_refuse(path)


def test_pickle_bombs(tmp_path):
    path, many = tmp_path / "a.pth", 10_000
    # A memo index of two thousand million, for which CPython's machine reserves 16 GiB.
    assert peak_of(weights.load, write_program(path, b"}r\xff\xff\xff\x7f.")) < MIB
    # A billion laughs: every tuple holds the one before it ten times. Nothing looks inside.
    laughs = b"".join(b"(" + bytes([ord("h"), at]) * 10 + b"tq" + bytes([at + 1]) for at in range(9))
    assert peak_of(weights.load, write_program(path, b"}q\0" + text("x") + b")q\0" + laughs + b"s.")) < MIB
    # Tuples of tuples as a key, whose hash would take 2**50 steps.
    write_program(path, b"})" + b"q\0h\0\x86" * 50 + b"K\x01s.")
    refuse(path, "tuple as a key")
    for nested in (b")" + b"\x85" * many, b"(" * many, b"]" * many + b"a" * (many - 1), STORAGE + REBUILD * many):
        assert peak_of(weights.load, write_program(path, nested + b".")) < 8 * MIB
        refuse(path)
    # A list that holds itself.
    refuse(write_program(path, b"}" + text("x") + b"]q\0h\0as."), "'x' (list)")
    write_program(path, b"}" * (pickles.MAX_PICKLE + 1))
    assert peak_of(weights.load, path) < MIB
    refuse(path, f"more than {pickles.MAX_PICKLE}")
