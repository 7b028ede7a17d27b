"""Every tile comes once, whatever the user looks at."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_mambamic.read_ahead import read_ahead
from napari_mambamic.schedule import Schedule
from napari_mambamic.tiling import plan_tiles

GRID = plan_tiles((60, 80), tile_size=10)  # 6 x 8
views = st.none() | st.tuples(*[st.integers(-20, 90)] * 2, *[st.integers(0, 90)] * 2)


@given(
    st.lists(views, min_size=1, max_size=6),
    st.integers(1, 20),
    st.none() | st.tuples(st.integers(5, 40), st.integers(5, 40)),
    st.sets(st.integers(0, 47)),
)
def test_every_wanted_tile_comes_exactly_once(looked_at, count, block, wanted):
    schedule = Schedule(GRID, np.array(sorted(wanted), int), block=block)
    seen, turn = [], 0
    while len(schedule):
        schedule.look_at(looked_at[turn % len(looked_at)])
        seen += schedule.take(count).tolist()
        turn += 1
    assert sorted(seen) == sorted(wanted)


def test_tiles_of_one_stored_block_come_one_after_the_other():
    schedule = Schedule(GRID, np.arange(48), block=(30, 40))
    blocks = [(i // 8 // 3, i % 8 // 4) for i in schedule.take(48).tolist()]
    assert blocks == sorted(blocks)
    assert blocks.count((0, 1)) == 12


def test_the_middle_of_the_view_comes_first_and_then_the_rest_in_order():
    schedule = Schedule(GRID, np.arange(48), block=None)
    schedule.look_at((20, 30, 30, 30))
    order = schedule.take(48).tolist()
    assert order[0] == 3 * 8 + 4
    assert sorted(order[:9]) == [19, 20, 21, 27, 28, 29, 35, 36, 37]
    assert order[9:] == [i for i in range(48) if i not in order[:9]]


def test_reading_ahead_keeps_the_order_and_is_bounded():
    running, most, lock = [0], [0], threading.Lock()
    asked = []

    def batches():
        for i in range(20):
            asked.append(i)
            yield i

    def read(i):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.002 * (i % 3))
        with lock:
            running[0] -= 1
        return i * i

    got = []
    for i, square in read_ahead(batches(), read, threads=3, ahead=4):
        got.append((i, square))
        assert asked[-1] <= i + 4
    assert got == [(i, i * i) for i in range(20)]
    assert most[0] <= 3


def test_an_error_of_a_reader_comes_where_its_batch_would():
    def read(i):
        if i == 2:
            raise OSError("the share is gone")
        return i

    steps = read_ahead(iter(range(5)), read, threads=2, ahead=2)
    assert [next(steps)[0], next(steps)[0]] == [0, 1]
    with pytest.raises(OSError, match="share is gone"):
        next(steps)


def test_closing_stops_the_readers():
    before = threading.active_count()
    steps = read_ahead(iter(range(1000)), lambda i: i, threads=3, ahead=3)
    next(steps)
    steps.close()
    assert threading.active_count() == before
