"""Parts can be cut, put on disk, shuffled and joined without a trace in the values."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from attnprobe.errors import AttnprobeError
from attnprobe.gathering import Gathered
from attnprobe.grouping import Grouping
from attnprobe.hsic import pseudo_values
from attnprobe.measuring import Batch, Measurement
from attnprobe.metrics.cka import grams
from attnprobe.parts import Part, arrays_of, joined, part_of
from attnprobe.readout import group_samples
from attnprobe.types import LayerInfo, MetricOptions, TokenGrid

LAYERS = tuple(
    LayerInfo(index, f"blocks.{index}", 2, 4, TokenGrid(2, 2, (8, 8), 1, names=("cls",)))
    for index in range(2)
)
COUNT, MINI = 37, 10
VALUES = torch.randn(2, COUNT, 2, generator=torch.Generator().manual_seed(0)).numpy()
FEATURES = torch.randn(2, COUNT, 6, generator=torch.Generator().manual_seed(1))


def fresh():
    measured = Measurement.start(("entropy", "cka"), MetricOptions(cka_batch=MINI), "auto")
    return Gathered(measured.metrics, measured.options, COUNT)


def feed(gathered, numbers, broken=frozenset()):
    """Measure some candidates as one batch; return the part."""
    good = [number for number in numbers if number not in broken]
    batch = Batch(
        rows={f"entropy|{at}": VALUES[at, good] for at in range(2)},
        sums={},
        features={f"cka|{at}": FEATURES[at, good] for at in range(2)},
        layers=LAYERS if good else (),
        kernels=("blocked", "blocked") if good else (),
    )
    digests = np.zeros((len(good), 32), np.uint8)
    digests[:, 0] = good
    skipped = {number: f"{number}: broken" for number in numbers if number in broken}
    return gathered.add_batch(batch if good else Batch(), good, digests, skipped)


def result(gathered):
    part = gathered.finish()
    cka = next(metric for metric in gathered.metrics if metric.name == "cka")
    return part, group_samples(cka, part)


def expected_samples(broken=frozenset()):
    found = []
    for start, stop in ((0, 10), (10, 20), (20, 30), (30, 37)):
        good = [number for number in range(start, stop) if number not in broken]
        found.append(pseudo_values(grams([*FEATURES[:, good]]).numpy()))
    return np.concatenate(found)


def test_mini_batches_are_runs_of_candidates_whose_tail_is_never_dropped():
    for count in range(1, 40):
        grouping = Grouping(count, 10, 5)
        members = [number for at in range(grouping.last + 1) for number in grouping.members(at)]
        assert members == list(range(count))
        assert all(number in grouping.members(grouping.of(number)) for number in range(count))
        assert count < 5 or len(grouping.members(grouping.last)) >= 5


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 12), min_size=1, max_size=12),
    seed=st.integers(0, 9),
    broken=st.frozensets(st.integers(0, COUNT - 1), max_size=5),
    through_disk=st.booleans(),
)
def test_cuts_order_processes_and_disk_leave_no_trace(cuts, seed, broken, through_disk):
    groups = ((0, 10), (10, 20), (20, 30), (30, 37))
    assume(all(len(set(range(*group)) - broken) >= 5 for group in groups))
    batches, start = [], 0
    while start < COUNT:
        size = cuts[len(batches) % len(cuts)]
        batches.append(range(start, min(start + size, COUNT)))
        start += size
    random = np.random.default_rng(seed)
    order = random.permutation(len(batches))
    processes = [fresh() for _ in range(1 + seed % 3)]
    for at in order:
        feed(processes[random.integers(len(processes))], batches[at], broken)
    main = processes[0]
    for other in processes[1:]:
        part = other.whole()
        main.add(part_of(*arrays_of(part)) if through_disk else part)
    part, samples = result(main)
    good = [number for number in range(COUNT) if number not in broken]
    assert part.numbers.tolist() == good == part.digests[:, 0].tolist()
    assert set(part.skipped) == set(broken)
    for at in range(2):
        np.testing.assert_array_equal(part.rows[f"entropy|{at}"], VALUES[at, good])
    np.testing.assert_allclose(samples, expected_samples(broken), rtol=1e-9, atol=1e-9)


def test_features_are_kept_only_until_their_mini_batch_is_complete():
    gathered = fresh()
    first = feed(gathered, range(7))
    assert first.pending.tolist() == list(range(7))
    second = feed(gathered, range(7, 15))
    assert second.pending.tolist() == list(range(10, 15))
    assert list(second.groups) == [0]
    assert gathered.whole().pending.tolist() == list(range(10, 15))


def test_images_of_an_unreadable_mini_batch_change_no_estimate():
    broken = frozenset(range(13, 20))  # three images are left of ten
    gathered = fresh()
    for start in range(0, COUNT, 8):
        feed(gathered, range(start, min(start + 8, COUNT)), broken)
    with pytest.warns(UserWarning, match="3 images do not count in cka"):
        part, samples = result(gathered)
    assert samples.shape == (30, 2, 2)
    told = np.concatenate([samples[:10], samples[13:]])
    np.testing.assert_allclose(samples.mean(0), told.mean(0))
    sizes = gathered.reduced[0].features.arrays(
        [
            {name.removeprefix("cka|"): x for name, x in group.items()}
            for _, group in sorted(part.groups.items())
        ]
    )["grams"]["sizes"]
    assert sizes.tolist() == [10, 3, 10, 7]


def test_two_small_mini_batches_become_one():
    broken = frozenset({*range(13, 20), *range(23, 30)})
    gathered = fresh()
    for start in range(0, COUNT, 8):
        feed(gathered, range(start, min(start + 8, COUNT)), broken)
    _, samples = result(gathered)
    small = pseudo_values(grams([*FEATURES[:, [10, 11, 12, 20, 21, 22]]]).numpy())
    np.testing.assert_allclose(samples[10:16], small, rtol=1e-9, atol=1e-9)


def test_an_image_counts_once():
    gathered = fresh()
    feed(gathered, range(5))
    with pytest.raises(AttnprobeError, match="image 4 was measured twice"):
        gathered.add(feed(fresh(), range(4, 8)))


def test_missing_images_are_noticed():
    gathered = fresh()
    feed(gathered, range(30))
    with pytest.raises(AttnprobeError, match="7 of 37 images were never measured"):
        gathered.finish()


def test_layers_must_be_the_same_everywhere():
    one, other = feed(fresh(), range(3)), feed(fresh(), range(3, 6))
    other.layers = LAYERS[:1]
    with pytest.raises(AttnprobeError, match="layers changed"):
        joined([one, other])


def test_a_part_survives_being_taken_apart():
    part = feed(fresh(), range(12), {3})
    part.sums = {"0": np.arange(4.0)}
    part.maps = {5: {"image": np.arange(3, dtype=np.uint8), "rows|0": np.ones((2, 2))}}
    again = part_of(*arrays_of(part))
    for name in ("numbers", "digests", "pending"):
        np.testing.assert_array_equal(getattr(again, name), getattr(part, name))
    assert (again.skipped, again.layers, again.kernels) == (
        part.skipped,
        part.layers,
        part.kernels,
    )
    for kind in ("rows", "sums", "features"):
        assert {k: v.tolist() for k, v in getattr(again, kind).items()} == {
            k: v.tolist() for k, v in getattr(part, kind).items()
        }
    assert again.maps[5]["image"].tolist() == [0, 1, 2]
    assert set(again.groups) == set(part.groups)
    assert joined([Part()]).seen == set()
