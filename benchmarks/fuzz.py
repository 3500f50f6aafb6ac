"""Load a corpus of damaged and attacking files, and count what became of them.

`python benchmarks/fuzz.py --count 2500` prints every problem, and a table by container; the
corpus and its rules are `tests/fuzzing.py`. It ends with 1 where a file was a problem.
"""

import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

# isort: split
import fuzzing
from fuzz_worker import Loader, Outcome


@click.command()
@click.option("--count", default=2500, help="Files, at least.")
@click.option("--only", default="", help="Only those whose kind and name contain this.")
@click.option("--messages", default=0, help="Print every so-many-th message.")
def main(count: int, only: str, messages: int) -> None:
    """Load the corpus."""
    counts: Counter[tuple[str, str]] = Counter()
    most = [0.0, 0.0]
    with tempfile.TemporaryDirectory() as place:
        warm = []
        for name, (suffix, raw) in fuzzing.good().items():
            warm.append(Path(place, f"warm {name}{suffix}"))
            warm[-1].write_bytes(raw)
        with Loader(warm) as loader:
            digests = {path.stem[5:]: loader.outcome(path).digest for path in warm}
            for number, case in enumerate(fuzzing.cases(count)):
                told = f"{case.container} / {case.mutator} / {case.name}"
                if only not in told:
                    continue
                folder = Path(place, "case")
                folder.mkdir()
                path = case.write(folder)
                outcome = loader.outcome(path)
                found = fuzzing.problems(case, path, outcome, digests.get(case.container, ""))
                counts[case.container, "problem" if found else outcome.kind] += 1
                most = [max(pair) for pair in zip(most, measured(outcome), strict=True)]
                for problem in found:
                    print(f"PROBLEM {told}: {problem}", flush=True)
                if messages and number % messages == 0:
                    print(f"{told}: {outcome.kind}: {outcome.cause[:400]} | {outcome.remedy}")
                shutil.rmtree(folder)
    report(counts)
    print(f"at most {most[0]:.1f} s and {most[1]:.0f} MiB a file")
    sys.exit(any(kind == "problem" for _, kind in counts))


def measured(outcome: Outcome) -> tuple[float, float]:
    """Return seconds and MiB."""
    return outcome.seconds, outcome.peak / 2**20


def report(counts: Counter[tuple[str, str]]) -> None:
    """Print the counts as a table."""
    print("| container | files | loaded | refused | problems |")
    print("|---|---|---|---|---|")
    for container in [*sorted({container for container, _ in counts}), "all"]:
        row = {
            kind: sum(n for (c, k), n in counts.items() if k == kind and container in (c, "all"))
            for kind in ("loaded", "refused", "problem")
        }
        print(f"| {container} | {sum(row.values())} | {' | '.join(map(str, row.values()))} |")


if __name__ == "__main__":
    main()
