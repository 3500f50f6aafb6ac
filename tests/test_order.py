"""The order of training images: permutations, resumption, processes and accumulation."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnprobe.datasets import Batches, epoch_order
from attnprobe.errors import AttnprobeError


def drawn(count, batch, **options):
    return list(Batches(count, batch, **{"seed": 3, "start": 0, "stop": 8, **options}))


@given(count=st.integers(1, 300), seed=st.integers(0, 2**40), epoch=st.integers(0, 1000))
def test_an_epoch_is_a_permutation(count, seed, epoch):
    order = epoch_order(count, seed, epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(count))
    assert np.array_equal(order, epoch_order(count, seed, epoch))


def test_the_order_is_written_down():
    assert epoch_order(12, 0, 0).tolist() == [0, 11, 3, 7, 10, 4, 6, 2, 5, 1, 9, 8]
    assert epoch_order(12, 1, 7).tolist() == [1, 9, 2, 11, 8, 6, 4, 3, 0, 7, 5, 10]


def test_every_place_is_as_likely_for_every_image():
    orders = np.stack([epoch_order(5, seed, epoch) for seed in range(40) for epoch in range(50)])
    counts = np.stack([np.bincount(orders[:, place], minlength=5) for place in range(5)])
    expected = len(orders) / 5
    chi2 = ((counts - expected) ** 2 / expected).sum()  # 16 degrees of freedom
    assert chi2 < 45


def test_epochs_and_seeds_differ():
    orders = {tuple(epoch_order(30, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


@given(
    extra=st.integers(0, 40),
    part=st.integers(1, 3),
    world=st.integers(1, 4),
    accumulate=st.integers(1, 3),
    start=st.integers(0, 12),
    seed=st.integers(0, 99),
)
def test_processes_and_parts_make_up_the_uninterrupted_batches(
    extra, part, world, accumulate, start, seed
):
    batch = part * world * accumulate
    count, stop = batch + extra, start + 5
    whole = drawn(count, batch, seed=seed, stop=stop)
    assert len(whole) == stop
    found = [
        drawn(
            count,
            batch,
            seed=seed,
            start=start,
            stop=stop,
            rank=rank,
            world=world,
            accumulate=accumulate,
        )
        for rank in range(world)
    ]
    for update, expected in enumerate(whole[start:]):
        micros = range(update * accumulate, (update + 1) * accumulate)
        union = [key for micro in micros for process in found for key in process[micro]]
        assert union == expected
    assert {len(process) for process in found} == {5 * accumulate}


def test_an_update_is_a_slice_of_its_epoch():
    for step, keys in enumerate(drawn(10, 3)):
        epoch, place = divmod(step, 3)
        order = epoch_order(10, 3, epoch)[place * 3 : place * 3 + 3]
        assert keys == [(epoch, index) for index in order]


def test_length_counts_micro_batches():
    batches = Batches(20, 4, seed=0, start=2, stop=7, accumulate=2)
    assert len(batches) == 10 == len(list(batches))
    assert list(islice(batches, 3)) == list(batches)[:3]
    assert list(Batches(20, 4, seed=0, start=7, stop=7)) == []


@pytest.mark.parametrize(
    ("count", "batch", "options", "message"),
    [
        (3, 4, {}, "3 images are fewer than one batch of 4"),
        (20, 6, {"world": 4}, "cannot be cut for 4 processes"),
        (20, 6, {"world": 2, "accumulate": 2}, "multiple of 4, such as 4"),
        (20, 0, {}, "a batch of 0 images"),
    ],
)
def test_what_cannot_be_cut_is_refused(count, batch, options, message):
    with pytest.raises(AttnprobeError, match=message) as caught:
        drawn(count, batch, **options)
    assert caught.value.remedy
