"""Paths that are no plain files, and folders whose index lies."""

import json
import os
import socket

from safetensors.torch import save_file


def places(raw):  # noqa: C901 - one short function a place
    """By name, what makes a path and returns it."""

    def file(name):
        def write(folder):
            path = folder / name
            path.write_bytes(raw)
            return path

        return write

    def link(target):
        def write(folder):
            (folder / "case.pth").symlink_to(target)
            return folder / "case.pth"

        return write

    def pipe(folder):
        os.mkfifo(folder / "case.pth")
        return folder / "case.pth"

    def listening(folder):
        with socket.socket(socket.AF_UNIX) as made:
            here = os.open(".", os.O_RDONLY)
            os.chdir(folder)  # the names of sockets are short
            try:
                made.bind("case.pth")
            finally:
                os.fchdir(here)
                os.close(here)
        return folder / "case.pth"

    def linked_pipe(folder):
        os.mkfifo(folder / "pipe")
        (folder / "case.pth").symlink_to(folder / "pipe")
        return folder / "case.pth"

    def directory(folder):
        (folder / "case.pth").mkdir()
        return folder / "case.pth"

    def empty(folder):
        (folder / "case.pth").write_bytes(b"")
        return folder / "case.pth"

    def sparse(folder):
        with (folder / "case.pth").open("wb") as made:
            made.truncate(2**36)
        return folder / "case.pth"

    found = {
        "pipe": pipe,
        "pipe behind a link": linked_pipe,
        "socket": listening,
        "folder": directory,
        "empty": empty,
        "hole of 64 GiB": sparse,
        "absent": lambda folder: folder / "case.pth",
        "long name": lambda folder: folder / ("case" + "x" * 10**6),
        "long path": lambda folder: folder / "/".join(["case"] * 5000),
        "null in the name": lambda folder: folder / "case\0.pth",
        "link to itself": link("case.pth"),
        "link to nothing": link("nothing"),
        "link to zero": link("/dev/zero"),
        "link to null": link("/dev/null"),
        "link to random": link("/dev/urandom"),
        "link to memory": link("/proc/self/mem"),
        "link to proc": link("/proc/self/environ"),
        "link to a folder": link("."),
    }
    names = {
        "escape": "case\x1b[31m.pth",
        "newline": "case\n.pth",
        "surrogate": os.fsdecode(b"case\xff.pth"),
        "quotes": "case'\".pth",
        "no suffix": "case",
        "bell": "case\x07.pth",
        "right to left": "case\u202e.pth",
        "braces": "case{0}%s.pth",
        "tar": "case.pth.tar",
    }
    return found | {f"named with {name}": file(value) for name, value in names.items()}


def folders(state):  # noqa: C901 - one short function a folder
    """By name, what makes a sharded folder and returns it."""
    names = list(state)
    half = len(names) // 2
    shards = {
        "model-00001-of-00002.safetensors": {name: state[name] for name in names[:half]},
        "model-00002-of-00002.safetensors": {name: state[name] for name in names[half:]},
    }
    first, second = shards
    places = {name: shard for shard, held in shards.items() for name in held}

    def written(index, *, change=None):
        def write(folder):
            inner = folder / "case"
            inner.mkdir()
            for name, held in shards.items():
                save_file(held, inner / name)
            text = index if isinstance(index, bytes) else json.dumps(index).encode()
            (inner / "model.safetensors.index.json").write_bytes(text)
            if change is not None:
                change(inner)
            return inner

        return write

    def mapped(**changes):
        return written({"metadata": {}, "weight_map": places | changes})

    def swapped(target):
        def change(inner):
            (inner / second).unlink()
            (inner / second).symlink_to(target)

        return written({"weight_map": places}, change=change)

    def pipe(inner):
        (inner / second).unlink()
        os.mkfifo(inner / second)

    def cut(inner):
        raw = (inner / second).read_bytes()
        (inner / second).write_bytes(raw[:-100])

    def config(text):
        def change(inner):
            (inner / "config.json").write_bytes(text)

        return written({"weight_map": places}, change=change)

    some, good = names[0], {"weight_map": places}
    return {
        "good": written(good),
        "climbs": mapped(**{some: "../../etc/passwd.safetensors"}),
        "absolute": mapped(**{some: "/etc/passwd.bin"}),
        "backslashes": mapped(**{some: "..\\x.safetensors"}),
        "null": mapped(**{some: "a\0.safetensors"}),
        "number": mapped(**{some: 1}),
        "mapping": mapped(**{some: {}}),
        "long name": mapped(**{some: "a" * 10**6 + ".safetensors"}),
        "escape": mapped(**{some: "\x1b[31m.safetensors"}),
        "surrogate": mapped(**{some: "\ud800.safetensors"}),
        "missing shard": mapped(**{some: "model-00003-of-00003.safetensors"}),
        "index as shard": mapped(**{some: "model.safetensors.index.json"}),
        "folder as shard": mapped(**{some: "..safetensors"}),
        "wrong shard": mapped(**{some: second}),
        "tensor too many": mapped(**{"blocks.9.x": first}),
        "long tensor": mapped(**{"x" * 10**6: first}),
        "tensor too few": written({"weight_map": {k: v for k, v in places.items() if k != some}}),
        "no map": written({"metadata": {}}),
        "map list": written({"weight_map": []}),
        "list": written([]),
        "empty": written(b""),
        "text": written(b"hello"),
        "deep": written(b"[" * 100_000),
        "deep map": written(b'{"weight_map":' * 50_000),
        "twice": written(json.dumps(good)[:-1].encode() + b', "weight_map": {}}'),
        "huge number": written(b'{"weight_map": ' + b"9" * 100_000 + b"}"),
        "no utf-8": written(b'{"weight_map": "\xff"}'),
        "many": written({"weight_map": {f"t{i}": f"s{i}.safetensors" for i in range(200_000)}}),
        "huge": written(b" " * 40_000_000 + b"{}"),
        "lists": written(b'{"weight_map": [' + b"[]," * 3_000_000 + b"[]]}"),
        "shard is a pipe": written(good, change=pipe),
        "shard is cut": written(good, change=cut),
        "shard links to itself": swapped(second),
        "shard links to zero": swapped("/dev/zero"),
        "shard links to the other": swapped(first),
        "shard links away": swapped("/etc/hostname"),
        "config text": config(b"hello"),
        "config deep": config(b"[" * 100_000),
        "config list": config(b"[]"),
        "config numbers": config(b'{"hidden_size": 1e999, "num_attention_heads": -1}'),
        "config heads huge": config(b'{"num_attention_heads": 1000000000000}'),
        "config image huge": config(b'{"image_size": 100000000}'),
        "config depth": config(b'{"num_hidden_layers": 1e9, "patch_size": 0}'),
        "config timm": config(b'{"architecture": "vit_giant_patch14_224", "pretrained_cfg": {}}'),
        "config evil": config(b'{"architecture": "../evil", "pretrained_cfg": []}'),
        "config args": config(
            b'{"architecture": "vit_tiny_patch16_224", "model_args": {"depth": 100000},'
            b' "pretrained_cfg": {"mean": "x"}}'
        ),
    }
