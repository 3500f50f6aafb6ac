"""Pickles made to run code, to hang, to take memory, or to crash what follows them."""

import pickle
import struct
import sys
from functools import cache

PROTO = b"\x80\x02"


def text(value):
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def named(module, name):
    return f"c{module}\n{name}\n".encode()


def called(module, name, *args):
    return named(module, name) + b"(" + b"".join(args) + b"tR"


def number(value):
    return pickle.dumps(value, 2)[2:-1]


def storage(kind="FloatStorage", key="0", count=4, module="torch", extra=b""):
    place = [text("storage"), named(module, kind), text(key), text("cpu"), number(count), extra]
    return b"(" + b"".join(place) + b"tQ"


def tensor(*, name="_rebuild_tensor_v2", place=None, offset=0, size=(4,), stride=(1,), more=b""):
    parts = [storage() if place is None else place, number(offset), number(size), number(stride)]
    return called("torch._utils", name, *parts, b"\x89", called("collections", "OrderedDict"), more)


def mapped(*items):
    return b"}(" + b"".join(text(key) + value for key, value in items) + b"u"


def beside(value):
    """A mapping whose one item is an attack."""
    return PROTO + mapped(("args", value)) + b"."


def shell(marker):
    """Calls that would create the marker, by the names that run anything."""
    command, code = f"touch {marker}", f"open({str(marker)!r}, 'w')"
    run = text(command)
    python = text(code)
    partial = called("functools", "partial", named("os", "system"), run)
    return {
        "os.system": called("os", "system", run),
        "posix.system": called("posix", "system", run),
        "builtins.eval": called("builtins", "eval", python),
        "builtins.exec": called("builtins", "exec", python),
        "__builtin__.eval": called("__builtin__", "eval", python),
        "subprocess": called("subprocess", "getoutput", run),
        "partial": partial + b")R",
        "import_module": called("importlib", "import_module", text("evil_module")),
        "global of an own module": named("evil_module", "anything"),
        "hub": called("torch.hub", "load", text("x/y"), text("z")),
        "load_from_bytes": called("torch.storage", "_load_from_bytes", b"B\0\0\0\0"),
        "torch.load": called("torch", "load", text(str(marker))),
        "open": called("io", "open", text(str(marker)), text("w")),
        "getattr": called("builtins", "getattr", named("os", "path"), text("os")),
        "setattr": called("builtins", "setattr", named("torch", "Tensor"), text("a"), text("b")),
        "dotted": b"\x80\x04" + text("os") + text("path.os.system") + b"\x93" + run + b"\x85R",
        "instance": b"(" + run + b"ios\nsystem\n",
        "object": b"(" + named("os", "system") + run + b"o",
        "newobj": named("os", "system") + run + b"\x85\x81",
        "newobj_ex": named("os", "system") + run + b"\x85}\x92",
        "extension": b"\x82\x01",
        "persistent text": b"P" + b"storage" + b"\n",
        "jit": called("torch.jit", "load", text(str(marker))),
        "library": called("torch.ops", "load_library", text(str(marker))),
        "ctypes": called("ctypes", "CDLL", text(str(marker))),
        "numpy": called("numpy", "load", text(str(marker))),
        "compile": called("torch._dynamo", "compile", python),
        "cpp": called("torch.utils.cpp_extension", "load", text("a"), text("b")),
        "hooks": called("torch._utils", "_rebuild_parameter", tensor(), b"\x88", partial),
        "from_type": called(
            "torch._tensor",
            "_rebuild_from_type_v2",
            named("os", "system"),
            named("torch", "Tensor"),
            b"(" + run + b"t",
            b"}",
        ),
        "build on a function": named("torch._utils", "_rebuild_tensor_v2")
        + mapped(("a", b"N"))
        + b"b",
        "setstate": named("os", "system") + b")\x81" + mapped(("__setstate__", b"N")) + b"b",
        "slots": named("a", "b") + b")\x81" + b"N" + mapped(("state", run)) + b"\x86b",
    }


@cache
def bombs():
    """Pickles that ask for much time, memory or depth."""
    laughs = b"(t" + b"2\x86" * 60
    deep = 100_000
    return {
        "tuples hashed exponentially": b"}" + b")" + b"2\x86" * 60 + b"Ns",
        "tuples in a set": b"\x8f(" + laughs + b"\x90",
        "tuples as a frozenset": b"(" + laughs + b"\x91",
        "memo far away": b"Nr\xff\xff\xff\xff",
        "memo negative": b"Np-1\n",
        "memo of many digits": b"Np" + b"9" * 4000 + b"\n",
        "memo of too many digits": b"Np" + b"9" * 9000 + b"\n",
        "memo missing": b"h\x07",
        "long declared": b"\x8b\xff\xff\xff\x7f",
        "long negative": b"\x8b\xff\xff\xff\xff",
        "long of a megabyte": b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6,
        "long in text": b"L" + b"9" * 200_000 + b"L\n",
        "text declared": b"X\xff\xff\xff\xff",
        "text8 declared": b"\x8d" + b"\xff" * 7 + b"\x7f",
        "text8 too large": b"\x8d" + b"\xff" * 8,
        "bytes8 declared": b"\x8e" + struct.pack("<Q", 2**40),
        "bytearray8 declared": b"\x96" + struct.pack("<Q", 2**40),
        "frame declared": b"\x95" + struct.pack("<Q", 2**62),
        "lists deep": b"]" * deep + b"a" * (deep - 1),
        "tuples deep": b")" + b"\x85" * deep,
        "mappings deep": (b"}" + text("a")) * deep + b"N" + b"s" * deep,
        "deep key": b"}" + b")" + b"\x85" * deep + b"Ns",
        "marks deep": b"(" * 10**6,
        "calls deep": named("a", "b") + b")R" * deep,
        "calls of tensors deep": tensor() + (b"\x85" + named("torch._utils", "_rebuild_parameter")
        + b"2" + b"R") * 10,
        "empty mappings": b"}" * 1_100_000,
        "empty sets": b"\x8f" * 1_100_000,
        "many placeholders": named("a", "b") + b"q\x00" + b"h\x00)R" * 300_000,
        "many tensors": tensor() + b"0" + named("torch._utils", "_rebuild_tensor_v2") + b"q\x00("
        + storage() + b"K\0K\x04\x85K\x01\x85\x89Nt" + b"q\x01" + b"h\x00h\x01R" * 120_000,
        "memo of everything": b"}\x94" * 500_000,
        "colliding keys": b"}(" + b"".join(number(i * (2**61 - 1)) + b"N" for i in range(60_000))
        + b"u",
        "long tuple to many calls": b"(" + b"N" * 50_000 + b"tq\x01" + named("torch._utils",
        "_rebuild_parameter") + b"q\x00" + b"h\x00h\x01R" * 50_000,
        "long list to many mappings": b"](" + b"NN\x86" * 50_000 + b"eq\x01" + named("collections",
        "OrderedDict") + b"q\x00" + b"h\x00h\x01\x85R" * 50_000,
        "long names": text("a" * 10**6) + b"q\x00" + b"h\x00h\x00\x93" * 50_000,
        "cycle": b"}q\x00" + text("model") + b"h\x00s",
        "list in itself": b"]q\x00h\x00a",
        "nothing": b"",
        "underflow": b"000",
        "mark missing": b"t",
        "unknown step": b"\xfe",
        "float in text": b"Fnan\n",
        "number in text": b"Ix\n",
        "quoted text": b"S'\\\n",
        "surrogate key": b"}" + text("\ud800") + tensor() + b"s",
        "odd number of items": b"}(Nu",
        "append to a number": b"K\x01K\x02a",
        "item of a list": b"]K\x01K\x02s",
        "long odd key": b"}" + text("k" * 10**6) + tensor() + b"s",
    }  # fmt: skip


@cache
def tensors():
    """Calls that rebuild tensors, with arguments that torch never writes."""
    big, count = 2**62, sys.maxsize
    meta = "_rebuild_meta_tensor_no_storage"
    dtype, layout = named("torch", "float32"), named("torch", "sparse_coo")
    coo = b"(" + tensor() + tensor() + number((10**9, 10**9)) + b"\x88t"
    return {
        "offset beyond": tensor(offset=big),
        "offset negative": tensor(offset=-1),
        "size beyond": tensor(size=(5,)),
        "size huge": tensor(size=(big, big), stride=(0, 0)),
        "size expanded": tensor(size=(10**6, 10**6), stride=(0, 0)),
        "size negative": tensor(size=(-4,)),
        "size zero and huge": tensor(size=(0, count, count), stride=(1, 1, 1)),
        "size bool": tensor(size=(True,)),
        "size float": tensor(size=(4.0,)),
        "size text": tensor(size="abcd"),
        "size nested": tensor(size=((4,),)),
        "axes many": tensor(size=(1,) * 1000, stride=(1,) * 1000),
        "axes differ": tensor(size=(2, 2)),
        "stride huge": tensor(size=(2,), stride=(big,)),
        "stride negative": tensor(size=(2,), stride=(-1,)),
        "stride overflows": tensor(size=(2**31, 2**31), stride=(2**31, 2**31)),
        "storage none": tensor(place=b"N"),
        "storage text": tensor(place=text("storage")),
        "storage unknown": tensor(place=storage(kind="system", module="os")),
        "storage missing": tensor(place=storage(key="no")),
        "storage elsewhere": tensor(place=storage(key="../../../etc/passwd")),
        "storage negative": tensor(place=storage(count=-1)),
        "storage huge": tensor(place=storage(count=2**61)),
        "storage overflow": tensor(place=storage(count=2**63 - 1)),
        "storage count text": tensor(place=b"(" + text("storage") + named("torch", "FloatStorage")
        + text("0") + text("cpu") + text("4") + b"tQ"),
        "storage in many ways": b"](" + b"".join(tensor(place=storage(kind=f"{kind}Storage",
        count=count), size=(1,)) for kind in ("Float", "Double", "Half", "Byte")
        for count in (1, 2, 3, 4, 8, 16)) + b"e",
        "storage of bytes": tensor(place=storage(kind="UntypedStorage", module="torch.storage")),
        "storage quantised": tensor(place=storage(kind="QInt8Storage")),
        "storage alone": storage(),
        "place none": b"NQ",
        "place number": b"K\x01Q",
        "place list": b"]Q",
        "place long": b"(" + b"N" * 10_000 + b"tQ",
        "place view": tensor(place=storage(extra=b"(" + text("v") + number(0) + number(9) + b"t")),
        "old": called("torch._utils", "_rebuild_tensor", storage(), number(0), number((4,)),
        number((1,))),
        "few arguments": called("torch._utils", "_rebuild_tensor_v2"),
        "many arguments": called("torch._utils", "_rebuild_tensor_v2", b"N" * 100_000),
        "no tuple": named("torch._utils", "_rebuild_tensor_v2") + b"NR",
        "v3 type none": tensor(name="_rebuild_tensor_v3", more=b"N"),
        "v3 type text": tensor(name="_rebuild_tensor_v3", more=text("float32")),
        "v3 larger type": tensor(name="_rebuild_tensor_v3", more=named("torch", "complex128")),
        "parameter of nothing": called("torch._utils", "_rebuild_parameter", b"N\x88N"),
        "meta": called("torch._utils", meta, dtype, number((4,)), number((1,)), b"\x89"),
        "meta huge": called("torch._utils", meta, dtype, number((big, 2)), number((1, 1)), b"\x89"),
        "meta odd": called("torch._utils", meta, b"N", b"N", b"N", b"N"),
        "sparse": called("torch._utils", "_rebuild_sparse_tensor", layout, coo),
        "sparse of nothing": called("torch._utils", "_rebuild_sparse_tensor", layout, b")"),
        "sparse odd": called("torch._utils", "_rebuild_sparse_tensor", b"N", b"N"),
        "quantised": called("torch._utils", "_rebuild_qtensor", storage(), number(0), number((4,)),
        number((1,)), b"N", b"\x89", b"N"),
        "nested": called("torch._utils", "_rebuild_nested_tensor", tensor(), b"N", b"N", b"N"),
        "wrapper": called("torch._utils", "_rebuild_wrapper_subclass", b"N", dtype),
        "device": called("torch._utils", "_rebuild_device_tensor_from_numpy", b"N", dtype),
        "from type of itself": called("torch._tensor", "_rebuild_from_type_v2",
        named("torch._tensor", "_rebuild_from_type_v2"), b"N", b")", b"N"),
        "size of torch": called("torch", "Size", b"N"),
        "mapping of numbers": called("collections", "OrderedDict", b"K\x01"),
        "mapping of odd pairs": called("collections", "OrderedDict", b"](K\x01K\x02e"),
        "state of a tensor": tensor() + mapped(("data", b"N")) + b"b",
        "items of a tensor": tensor() + b"K\0Ns",
    }  # fmt: skip
