"""A sample of the corpus of hostile files: each loads, or is refused in words; nothing runs.

`python benchmarks/fuzz.py` loads all of it.
"""

import itertools
import os
import shutil
import sys
from collections import Counter

import fuzzing
import pytest
from fuzz_worker import Loader

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches processes by /proc")
SAMPLE = int(os.environ.get("ATTNPROBE_FUZZ", "80"))  # files


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("warm")
    paths = {}
    for name, (suffix, raw) in fuzzing.good().items():
        paths[name] = folder / f"{name}{suffix}"
        paths[name].write_bytes(raw)
    return paths


def outcomes(loader, cases, place):
    for case in cases:
        folder = place / "case"
        folder.mkdir()
        path = case.write(folder)
        outcome = loader.outcome(path)
        yield case, outcome, path
        shutil.rmtree(folder)


@pytest.mark.slow
def test_hostile_files_load_or_are_refused_in_words(warm, tmp_path):
    counts, wrong = Counter(), []
    with Loader(warm.values()) as loader:
        good = {name: loader.outcome(path) for name, path in warm.items()}
        assert {outcome.kind for outcome in good.values()} == {"loaded"}
        assert len({outcome.digest for outcome in good.values()}) == 1, "containers differ"
        for case, outcome, path in outcomes(loader, fuzzing.sample(SAMPLE), tmp_path):
            digest = good[case.container].digest if case.container in good else ""
            found = fuzzing.problems(case, path, outcome, digest)
            wrong += [f"{case.container} / {case.mutator} / {case.name}: {it}" for it in found]
            counts[outcome.kind] += 1
    assert not wrong, "\n".join(wrong)
    assert counts["refused"] > SAMPLE / 2
    assert counts["loaded"] > 3


def test_the_watch_sees_code_that_runs(warm, tmp_path):
    cases = [case for case in fuzzing.pickle_cases() if case.mutator == "code"]
    chosen = [case for case in cases if case.name in ("os.system", "builtins.eval", "subprocess")]
    with Loader([warm["zip"]], trust=True) as loader:
        for case, outcome, path in itertools.islice(outcomes(loader, chosen, tmp_path), 3):
            found = fuzzing.problems(case, path, outcome, "")
            assert "code ran" in found, case
            assert any(problem.startswith("events") for problem in found), case
