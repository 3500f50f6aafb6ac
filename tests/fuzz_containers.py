"""Good files of every container, and structured lies about them."""

import io
import json
import struct
import warnings
import zipfile

import numpy as np
import torch
from random_modules import random_vit
from safetensors.torch import save

ROOT = "archive/"


def module():
    return random_vit(img_size=16, patch_size=8, embed_dim=64, depth=1, num_heads=1, num_classes=0)


def state():
    return {name: tensor.clone() for name, tensor in module().state_dict().items()}


def torch_bytes(content, *, legacy=False):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def npz_bytes(tensors, *, packed=False):
    buffer = io.BytesIO()
    arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    (np.savez_compressed if packed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def script_bytes():
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module(), torch.zeros(1, 3, 16, 16)), buffer)
    return buffer.getvalue()


def good():
    """One good file a container: suffix and bytes."""
    beside = {"model": state(), "epoch": 1, "optimizer": {"state": {0: {"step": 1}}}}
    return {
        "zip": (".pth", torch_bytes(beside)),
        "legacy": (".pth", torch_bytes(beside, legacy=True)),
        "module": (".pt", torch_bytes(module())),
        "torchscript": (".pt", script_bytes()),
        "safetensors": (".safetensors", save(state(), metadata={"format": "pt"})),
        "npz": (".npz", npz_bytes(state())),
        "npz packed": (".npz", npz_bytes(state(), packed=True)),
    }


def stored(entries, *, mode=zipfile.ZIP_STORED):
    """A zip of named bytes, with right checksums."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", mode) as archive:
        warnings.simplefilter("ignore")  # of names that come twice
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def entries_of(raw):
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def pickled(code, *, legacy=False):
    """A torch file whose pickle is this code and which has one storage of four numbers."""
    data = torch.arange(4.0).numpy().tobytes()
    if not legacy:
        named = [("data.pkl", code), ("version", b"3\n"), ("data/0", data)]
        return stored([(ROOT + name, content) for name, content in named])
    import pickle

    begin = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {})]
    return b"".join([*begin, code, pickle.dumps(["0"], 2), struct.pack("<Q", 4), data])


def odd_tensors():
    """Changes to one weight or name of a state dict, that the containers can all hold."""
    weight = "blocks.0.mlp.fc1.weight"

    def changed(**new):
        return state() | {name.replace("__", "."): value for name, value in new.items()}

    whole = state()[weight]
    kinds = [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool, torch.int64]
    kinds += [torch.complex64, torch.float8_e4m3fn, torch.uint16]
    found = {f"as {kind}": state() | {weight: whole.to(kind)} for kind in kinds}
    values = {"nan": float("nan"), "inf": float("inf"), "denormal": 1e-42, "large": 3e38}
    for name, value in values.items():
        found[name] = state() | {weight: torch.full_like(whole, value)}
    shapes = [(0,), (0, 64), (64,), (1, 1), (256, 64, 1), (), (256, 0, 2**40)]
    for shape in shapes:
        found[f"shape {shape}"] = state() | {weight: torch.zeros(shape)}
    for name in ("patch_embed.proj.weight", "pos_embed", "cls_token", "norm.weight"):
        found[f"empty {name}"] = state() | {name: torch.zeros(0)}
        found[f"scalar {name}"] = state() | {name: torch.tensor(1.0)}
        found[f"six axes {name}"] = state() | {name: torch.zeros(1, 1, 1, 1, 1, 1)}
    names = [
        "",
        ".",
        "..",
        "a" * 100_000,
        "blocks.999999999.norm1.weight",
        "blocks.-1.a",
        "\x1b[0m",
    ]
    names += ["blocks.0.attn.qkv.weight.", "é", "\u202e", "blocks.0", "a\nb", "x." * 5000]
    for name in names:
        found[f"name {name[:20]!a}"] = state() | {name: torch.ones(3)}
    found["without everything"] = {"a": torch.ones(1)}
    return found | {"huge patch": changed(patch_embed__proj__weight=torch.zeros(64, 3, 1, 4000))}


def odd_views():
    """State dicts that only torch's files hold: strides, sparse, quantised, tied."""
    weight, whole = "blocks.0.mlp.fc1.weight", state()["blocks.0.mlp.fc1.weight"]
    one = torch.zeros(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(whole, 0.1, 0, torch.qint8)
        rows = whole.to_sparse_csr()
    changes = {
        "transposed": {weight: whole.t().contiguous().t()},
        "expanded": {weight: one.expand(256, 64)},
        "expanded hugely": {weight: one.expand(10**9, 10**9)},
        "expanded much": {f"blocks.0.{i}": one.expand(300, 300) for i in range(3000)},
        "sparse": {weight: whole.to_sparse()},
        "csr": {weight: rows},
        "quantised": {weight: quantised},
        "meta": {weight: whole.to("meta")},
        "conjugate": {weight: torch.zeros(256, 64, dtype=torch.complex64).conj()},
        "negative bit": {weight: torch.zeros(256, 64, dtype=torch.complex64).conj().imag},
        "parameter": {weight: torch.nn.Parameter(whole)},
        "buffer": {weight: torch.nn.Buffer(whole)},
        "numbers as names": {1: whole, None: whole},
    }
    return {name: state() | change for name, change in changes.items()}


def zips():
    """Zip files that lie about their entries; those that torch's reader believes as well."""
    raw = good()["zip"][1]
    inner = entries_of(raw)
    by_name = dict(inner)
    data = next(name for name in by_name if name.endswith("data/0"))
    twice = [*inner, (data, by_name[data])]
    end = raw.rindex(b"PK\x05\x06")
    many = [(f"{ROOT}data/x{i}", b"") for i in range(20_000)]
    directory = struct.unpack_from("<I", raw, end + 16)[0]
    found = {
        "name twice": stored(twice),
        "compressed": stored(inner, mode=zipfile.ZIP_DEFLATED),
        "bzip2": stored(inner, mode=zipfile.ZIP_BZIP2),
        "lzma": stored(inner, mode=zipfile.ZIP_LZMA),
        "bomb of a pickle": lambda: stored(
            [(ROOT + "data.pkl", b"\0" * 50_000_000)], mode=zipfile.ZIP_DEFLATED
        ),
        "zip in a zip": stored([("a.pth", raw)]),
        "zip as a storage": stored([*inner[:-1], (data, raw)]),
        "zip before it": raw + raw,
        "pickle deeper": stored([(f"a/b/{name}", content) for name, content in inner]),
        "two pickles": stored([*inner, ("other/data.pkl", b"N.")]),
        "pickle at the top": stored([(name.partition("/")[2], c) for name, c in inner]),
        "pickle missing": stored([(n, c) for n, c in inner if not n.endswith(".pkl")]),
        "storage missing": stored([(n, c) for n, c in inner if n != data]),
        "storage short": stored([(n, c[:-4] if n == data else c) for n, c in inner]),
        "storage long": stored([(n, c + b"0000" if n == data else c) for n, c in inner]),
        "other byte order": stored([(n, b"big" if "order" in n else c) for n, c in inner]),
        "no byte order": stored([(n, b"middle" if "order" in n else c) for n, c in inner]),
        "many entries": stored([*inner, *many]),
        "names that climb": stored([*inner, ("../../evil", b"x"), ("/abs", b"x")]),
        "empty zip": stored([]),
        "arrays and a pickle": stored([*inner, ("a.npy", b"")]),
        "start far": raw[: end + 16] + struct.pack("<I", 2**32 - 2) + raw[end + 20 :],
        "directory huge": raw[: end + 12] + struct.pack("<I", 2**32 - 2) + raw[end + 16 :],
        "comment": raw[:-2] + struct.pack("<H", 5) + b"hello",
    }
    first = raw.index(b"PK\x01\x02")
    first = first if first < directory + 4 else directory
    fields = {
        "flags": 8,
        "method": 10,
        "crc": 16,
        "packed": 20,
        "size": 24,
        "name": 28,
        "extra": 30,
    }
    for name, place in (fields | {"offset": 42}).items():
        for value in (b"\x00" * 4, b"\xff" * 4, b"\x01\x00\x00\x00"):
            width = 2 if place in (8, 10, 28, 30) else 4
            edited = bytearray(raw)
            edited[first + place : first + place + width] = value[:width]
            found[f"directory {name} {value.hex()}"] = bytes(edited)
    return found


def headers():
    """Safetensors files whose headers lie."""
    raw = good()["safetensors"][1]
    length = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    name, other = [key for key in header if key != "__metadata__"][:2]

    def made(text, content=data):
        text = text if isinstance(text, bytes) else json.dumps(text).encode()
        return struct.pack("<Q", len(text)) + text + content

    def entry(**changes):
        return made(header | {name: header[name] | changes})

    start, stop = header[name]["data_offsets"]
    plain = json.dumps(header)
    first = json.dumps({name: header[name]})[1:-1]
    found = {
        "name twice": made((plain[:-1] + ", " + first + "}").encode()),
        "key twice": made(plain.replace('"dtype"', '"dtype": "F32", "dtype"', 1).encode()),
        "overlapping": made(header | {name: header[other]}),
        "gap": made(header, data[:start] + b"0000" + data[start:]),
        "appended": raw + b"0" * 8,
        "cut": raw[:-4],
        "list": made([header]),
        "number": made(b"1"),
        "text": made(b'"a"'),
        "empty mapping": made({}),
        "empty header": struct.pack("<Q", 0) + data,
        "deep": made(b"[" * 100_000 + b"]" * 100_000),
        "deep mappings": made(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        "large header": lambda: made(b"{" + b" " * 100_000_000 + b"}", b""),
        "header of lists": made(b'{"a":[' + b"[]," * 2_000_000 + b"[]]}", b""),
        "padded": made(json.dumps(header).encode() + b" " * 64),
        "misaligned": made(json.dumps(header).encode() + b" "),
        "no utf-8": made(b'{"\xff\xfe": 1}'),
        "surrogate": made(header | {"\ud800": header[name]}),
        "number of many digits": made(b'{"a": ' + b"9" * 5000 + b"}"),
        "nan": made(b'{"a": NaN}'),
        "metadata list": made(header | {"__metadata__": [1]}),
        "metadata numbers": made(header | {"__metadata__": {"a": 1}}),
        "metadata of ours": made(header | {"__metadata__": {"attnprobe": "[" * 100_000}}),
        "entry extra": entry(more=1),
        "entry list": made(header | {name: []}),
        "shape text": entry(shape="ab"),
        "shape negative": entry(shape=[-1, -64]),
        "shape float": entry(shape=[64.0, 1]),
        "shape bool": entry(shape=[True]),
        "shape huge": entry(shape=[2**62, 2**62]),
        "shape overflow": entry(shape=[2**33, 2**31, 0]),
        "shape zeros": entry(shape=[0, 2**62, 2**62], data_offsets=[start, start]),
        "shape long": entry(shape=[1] * 100_000),
        "offsets negative": entry(data_offsets=[-4, stop]),
        "offsets swapped": entry(data_offsets=[stop, start]),
        "offsets beyond": entry(data_offsets=[start, 2**60]),
        "offsets three": entry(data_offsets=[start, stop, stop]),
        "offsets text": entry(data_offsets="ab"),
        "length all": b"\xff" * 8 + raw[8:],
        "length off by one": struct.pack("<Q", length - 1) + raw[8:],
    }
    for dtype in ("F4", "F128", "f32", "", "F8_E5M2", "BOOL", "I64", "C64", 1, None, "F8_E8M0"):
        found[f"dtype {dtype}"] = entry(dtype=dtype)
    return found


def arrays():
    """NumPy archives whose arrays lie."""
    plain = {name: tensor.numpy() for name, tensor in state().items()}
    name = "blocks.0.mlp.fc1.weight"

    def made(array):
        buffer = io.BytesIO()
        np.savez(buffer, **(plain | {name: array}))
        return buffer.getvalue()

    def headed(text, version=b"\x01\x00", content=bytes(64), *, packed=False):
        width = "<H" if version[0] == 1 else "<I"
        raw = b"\x93NUMPY" + version + struct.pack(width, len(text)) + text + content
        mode = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
        return stored([(f"{name}.npy", raw)], mode=mode)

    def claim(shape, descr="'<f4'", order="False"):
        return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}\n".encode()

    class Evil:
        def __reduce__(self):
            return print, ("evil",)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        newer = io.BytesIO()
        np.lib.format.write_array(newer, np.zeros(4, [("é", "f4")]), version=(3, 0))
    return {
        "objects": made(np.array([Evil()], dtype=object)),
        "fortran": made(np.asfortranarray(plain[name])),
        "big endian": made(plain[name].astype(">f4")),
        "structured": made(np.zeros(4, [("a", "f4"), ("b", "i4")])),
        "structured bytes": made(np.zeros((256, 64), "V2")),
        "text": made(np.array(["a", "b"])),
        "dates": made(np.zeros(4, "datetime64[s]")),
        "long double": made(plain[name].astype(np.longdouble)),
        "complex": made(plain[name].astype(np.complex64)),
        "half": made(plain[name].astype(np.float16)),
        "scalar": made(np.float32(1)),
        "empty": made(np.zeros((0, 64), np.float32)),
        "version 3": stored([(f"{name}.npy", newer.getvalue())]),
        "version 9": headed(claim("(4,)"), b"\x09\x00"),
        "version 2": headed(claim("(4,)"), b"\x02\x00"),
        "shape huge": headed(claim("(1000000, 1000000)")),
        "shape negative": headed(claim("(-4,)")),
        "shape float": headed(claim("(4.0,)")),
        "shape overflow": headed(claim(f"({2**63}, {2**63})")),
        "shape zero": headed(claim(f"(0, {2**62}, {2**62})")),
        "dtype objects": headed(claim("(4,)", "'|O'")),
        "dtype nothing": headed(claim("(4,)", "'|V0'")),
        "dtype wide": headed(claim("(4,)", "'|S2000000000'")),
        "dtype odd": headed(claim("(4,)", "[('a', '<f4', (1000000, 1000000))]")),
        "dtype nested": headed(claim("(4,)", "[('a', " * 50 + "'<f4'" + ")]" * 50)),
        "header code": headed(b"__import__('os').system('true')"),
        "header brackets": headed(b"(" * 9000),
        "header minus": headed(b"-" * 9000 + b"1"),
        "header power": headed(b"9**9**9"),
        "header long": headed(b" " * 60_000),
        "header empty": headed(b""),
        "header list": headed(b"[]"),
        "header keys": headed(b"{'descr': '<f4'}"),
        "header bomb": lambda: headed(b" " * 150_000_000, b"\x02\x00", packed=True),
        "array bomb": lambda: headed(claim("(60000000,)"), content=bytes(240_000_000), packed=True),
        "no magic": stored([(f"{name}.npy", b"hello")]),
        "no array": stored([("a.npy", b""), ("b.txt", b"x")]),
        "name twice": stored([("a.npy", npy(plain[name])), ("a.npy", npy(plain[name]))]),
        "many": stored([(f"{i}.npy", npy(np.zeros(1))) for i in range(5000)]),
        "bzip2": stored([("a.npy", npy(plain[name]))], mode=zipfile.ZIP_BZIP2),
    }


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
