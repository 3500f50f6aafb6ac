"""A corpus of damaged, lying and attacking checkpoint files, the same at every run.

`cases(count)` gives them; `problems` says what is wrong with an outcome. Every container is
met by every mutator; structured attacks come from `fuzz_pickles`, `fuzz_containers` and
`fuzz_places`.
"""

import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import fuzz_containers
import fuzz_pickles
import fuzz_places
import fuzz_states
from fuzz_worker import SECONDS, Outcome

FREE = 200 * 2**20  # bytes of memory beyond three times the file
LONGEST_CAUSE = 1500
CHECKED = ("zip", "module", "torchscript", "npz", "npz packed")  # containers with checksums


@dataclass(frozen=True)
class Case:
    """One file of the corpus.

    Attributes:
        container: What it is, or pretends to be.
        mutator: What was done to it.
        name: Which of those.
        write: Writes it into an empty folder and returns the path to load.
        exact: Whether it may only load as the good file does.
    """

    container: str
    mutator: str
    name: str
    write: Callable[[Path], Path]
    exact: bool = False


@cache
def good():
    return fuzz_containers.good()


def truncated(raw, rng):
    return raw[: rng.randrange(len(raw))]


def truncated_late(raw, rng):
    return raw[: len(raw) - rng.randrange(1, 300)]


def flipped(raw, rng):
    found = bytearray(raw)
    for _ in range(rng.randrange(1, 4)):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def flipped_head(raw, rng):
    found = bytearray(raw)
    found[rng.randrange(min(len(found), 4096))] ^= 1 << rng.randrange(8)
    return bytes(found)


def flipped_tail(raw, rng):
    found = bytearray(raw)
    found[-1 - rng.randrange(min(len(found), 6000))] ^= 1 << rng.randrange(8)
    return bytes(found)


def numbered(raw, rng):
    """Overwrite some bytes of head or tail with a number that counters do not expect."""
    found, values = bytearray(raw), (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
    value = struct.pack("<Q", rng.choice(values))[: rng.choice((2, 4, 8))]
    place = rng.randrange(min(len(found), 4096))
    place = place if rng.random() < 0.5 else len(found) - place - len(value)
    found[max(0, place) : max(0, place) + len(value)] = value
    return bytes(found)


def zeroed(raw, rng):
    place, size = rng.randrange(len(raw)), rng.choice((1, 64, 4096))
    return raw[:place] + bytes(min(size, len(raw) - place)) + raw[place + size :]


def moved(raw, rng):
    """Swap two stretches, as a broken download does."""
    first, second = sorted(rng.randrange(len(raw)) for _ in range(2))
    size = rng.choice((16, 512, 4096))
    parts = raw[:first], raw[first : first + size], raw[first + size : second]
    return parts[0] + raw[second : second + size] + parts[2] + parts[1] + raw[second + size :]


def inserted(raw, rng):
    place = rng.randrange(len(raw))
    return raw[:place] + rng.randbytes(rng.choice((1, 4, 1000))) + raw[place:]


def removed(raw, rng):
    place = rng.randrange(len(raw))
    return raw[:place] + raw[place + rng.choice((1, 4, 1000)) :]


def appended(raw, rng):
    return raw + rng.choice((b"\0", b"\0" * 5000, raw[:500], rng.randbytes(70_000)))


def prepended(raw, rng):
    return rng.choice((b"\0", b"\x80\x02N.", b"PK\x03\x04", raw[:500])) + raw


MUTATORS = (
    *(truncated, truncated_late, flipped, flipped_head, flipped_tail, numbered, zeroed, moved),
    *(inserted, removed, appended, prepended),
)
PICKLE_MUTATORS = (flipped, flipped_head, numbered, zeroed, moved, inserted, removed, truncated)


def written(raw, suffix):
    def write(folder):
        path = folder / f"case{suffix}"
        path.write_bytes(raw() if callable(raw) else raw)
        return path

    return write


def seeded(*parts):
    return random.Random(zlib.crc32("/".join(map(str, parts)).encode()))


def byte_cases(turn) -> Iterator[Case]:
    """Every byte mutator on every container, and on the pickles inside the zips."""
    for container, (suffix, raw) in good().items():
        for mutator in MUTATORS:
            made = mutator(raw, seeded(container, mutator.__name__, turn))
            # what lies in a zip is covered by checksums
            exact = container in CHECKED and mutator is not prepended
            yield Case(container, mutator.__name__, str(turn), written(made, suffix), exact)
    for container in ("zip", "module", "torchscript"):
        suffix, raw = good()[container]
        for mutator in PICKLE_MUTATORS:
            rng = seeded(container, "pickle", mutator.__name__, turn)
            made = fuzz_containers.stored(
                (name, mutator(content, rng) if name.endswith("data.pkl") else content)
                for name, content in fuzz_containers.entries_of(raw)
            )
            told = f"pickle {mutator.__name__}"
            yield Case(container, told, str(turn), written(made, suffix))


def state_cases(turn) -> Iterator[Case]:
    """Every mutator of state dicts on every release, in turn as one or another container."""
    for mutator in fuzz_states.MUTATORS:
        for number, release in enumerate(fuzz_states.releases()):
            rng = seeded("state", release, mutator.__name__, turn)
            content = fuzz_states.mutated(release, mutator, rng)
            raw = fuzz_containers.torch_bytes(content, legacy=(turn + number) % 2 == 1)
            yield Case("release", mutator.__name__, f"{release} {turn}", written(raw, ".pth"))


def pickle_cases() -> Iterator[Case]:
    kinds = {
        "code": fuzz_pickles.shell,
        "bomb": lambda marker: fuzz_pickles.bombs(),
        "rebuilding": lambda marker: fuzz_pickles.tensors(),
    }
    for kind, made in kinds.items():
        for name in made(Path("marker")):
            for legacy in (False, True):
                for top in (False, True):
                    yield Case(
                        "legacy" if legacy else "zip",
                        kind + (" alone" if top else ""),
                        name,
                        _pickle(made, name, legacy=legacy, top=top),
                    )


def _pickle(made, name, *, legacy, top):
    def write(folder):
        code = made(folder / "marker")[name]
        code = fuzz_pickles.PROTO + code + b"." if top else fuzz_pickles.beside(code)
        path = folder / "case.pth"
        path.write_bytes(fuzz_containers.pickled(code, legacy=legacy))
        return path

    return write


def structured_cases() -> Iterator[Case]:
    makers = {
        ("zip", "directory", ".pth"): fuzz_containers.zips,
        ("safetensors", "header", ".safetensors"): fuzz_containers.headers,
        ("npz", "arrays", ".npz"): fuzz_containers.arrays,
    }
    for (container, mutator, suffix), make in makers.items():
        for name, raw in make().items():
            yield Case(container, mutator, name, written(raw, suffix))
    for name, state in fuzz_containers.odd_tensors().items():
        yield from _odd(name, state)
    for name, state in fuzz_containers.odd_views().items():
        for container, legacy in (("zip", False), ("legacy", True)):
            raw = fuzz_containers.torch_bytes(state, legacy=legacy)
            yield Case(container, "views", name, written(raw, ".pth"))


def _odd(name, state) -> Iterator[Case]:
    makers = {
        ("zip", ".pth"): fuzz_containers.torch_bytes,
        ("legacy", ".pth"): lambda value: fuzz_containers.torch_bytes(value, legacy=True),
        ("safetensors", ".safetensors"): fuzz_containers.save,
        ("npz", ".npz"): fuzz_containers.npz_bytes,
    }
    for (container, suffix), make in makers.items():
        try:
            raw = make(state)
        except Exception:  # noqa: BLE001 - not every container holds every tensor
            continue
        yield Case(container, "tensors", name, written(raw, suffix))


def place_cases() -> Iterator[Case]:
    for name, write in fuzz_places.places(good()["zip"][1]).items():
        yield Case("place", "place", name, write)
    for name, write in fuzz_places.folders(fuzz_containers.state()).items():
        yield Case("folder", "index", name, write)


def cases(count: int | None = None) -> list[Case]:
    """Return the corpus: one of each kind first, then further turns of the byte mutators.

    Args:
        count: How many; without it, one turn of everything.
    """
    found = [*byte_cases(0), *structured_cases(), *pickle_cases(), *place_cases()]
    found += state_cases(0)
    turn = 1
    while count is not None and len(found) < count:
        found += [*byte_cases(turn), *state_cases(turn)]
        turn += 1
    return found


def sample(count: int) -> list[Case]:
    """Return some of one turn: every container with every mutator, then others at random."""
    every = cases()
    kinds = {(case.container, case.mutator): case for case in reversed(every)}
    chosen = list(kinds.values())
    others = [case for case in every if case not in chosen]
    return chosen + seeded("sample").sample(others, max(0, count - len(chosen)))


def problems(case: Case, path: Path, outcome: Outcome, digest: str) -> list[str]:
    """Return what an outcome does that no file may make the loader do."""
    found = []
    if outcome.kind not in ("loaded", "refused"):
        found.append(f"{outcome.kind}: {outcome.cause}")
    if outcome.kind == "refused":
        found += unclear(path, outcome)
    if outcome.kind == "loaded" and case.exact and outcome.digest != digest:
        found.append("damage was not noticed")
    if outcome.peak > 3 * size_of(path) + FREE:
        found.append(f"{outcome.peak >> 20} MiB for a file of {size_of(path)} bytes")
    if outcome.seconds > SECONDS:
        found.append(f"{outcome.seconds:.0f} s")
    if outcome.events:
        found.append(f"events {outcome.events}")
    # unlike pathlib's it never raises
    if any(os.path.exists(folder / "marker") for folder in path.parents[:2]):  # noqa: PTH110
        found.append("code ran")
    return found


def unclear(path: Path, outcome: Outcome) -> list[str]:
    """Return what is wrong with the words of a refusal."""
    found, names = [], [path.name, ascii(path.name)[1:-1], repr(path.name)[1:-1]]
    if os.path.isdir(path):  # noqa: PTH112 - unlike pathlib's it never raises
        names += [item.name for item in path.iterdir()]
    if not any(name[:40] in outcome.cause for name in names):
        found.append(f"the cause does not name the file: {outcome.cause[:200]!a}")
    if not outcome.remedy:
        found.append("no remedy")
    plain = outcome.cause.replace(str(path), "").replace("\n", "")
    if len(plain) > LONGEST_CAUSE:
        found.append(f"a cause of {len(plain)} characters")
    if path.name.isprintable() and not plain.isprintable():
        found.append(f"a cause that steers the terminal: {outcome.cause[:200]!a}")
    return found


def size_of(path: Path) -> int:
    try:
        inside = path.iterdir() if path.is_dir() else [path]
        return sum(item.stat().st_size for item in inside)
    except (OSError, ValueError):
        return 0
