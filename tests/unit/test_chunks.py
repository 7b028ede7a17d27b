"""Arrays in chunks: slices, one decoding per chunk, bounded memory, threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_mambamic.chunks import ChunkCache, ChunkedArray
from napari_mambamic.errors import ImageError

WHOLE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)


class Counted:
    """Chunks of WHOLE, and how often each was decoded."""

    def __init__(self, chunk=(10, 16)):
        self.chunk, self.decoded = chunk, []

    def __call__(self, index):
        self.decoded.append(index)
        y, x = (i * n for i, n in zip(index, self.chunk, strict=False))
        return WHOLE[y : y + self.chunk[0], x : x + self.chunk[1]]

    def array(self, max_bytes=2**20):
        chunks = (*self.chunk, 3)
        return ChunkedArray(WHOLE.shape, chunks, np.uint8, self, cache=ChunkCache(max_bytes))


def slices(length):
    return st.builds(
        slice, st.integers(0, length), st.integers(0, length + 5), st.integers(1, length + 5)
    )


@given(slices(37), slices(53), slices(3), st.integers(1, 40), st.integers(1, 60))
def test_slices_are_those_of_numpy(rows, columns, channels, height, width):
    array = Counted((height, width)).array()
    np.testing.assert_array_equal(
        array[rows, columns, channels], WHOLE[rows, columns, channels], strict=True
    )
    np.testing.assert_array_equal(array[rows], WHOLE[rows])


def test_neighbouring_patches_decode_each_chunk_once():
    read = Counted()
    array = read.array()
    for y in range(0, 32, 6):
        for x in range(0, 48, 6):
            np.testing.assert_array_equal(array[y : y + 6, x : x + 6], WHOLE[y : y + 6, x : x + 6])
    assert len(read.decoded) == len(set(read.decoded)) == 12


def test_a_step_longer_than_a_chunk_leaves_chunks_out():
    read = Counted((4, 4))
    np.testing.assert_array_equal(read.array()[::9, ::9], WHOLE[::9, ::9])
    assert len(read.decoded) == 5 * 6


def test_the_cache_holds_no_more_than_its_bound_and_forgets_the_oldest():
    read = Counted()
    cache_bytes = 2 * 10 * 16 * 3
    array = read.array(cache_bytes)
    for x in (0, 16, 32, 16, 0):
        array[0:10, x : x + 16]
        assert array._cache.n_bytes <= cache_bytes
    assert read.decoded == [(0, 0, 0), (0, 1, 0), (0, 2, 0), (0, 0, 0)]
    without = read.array(0)
    without[0:10, 0:16]
    assert without._cache.n_bytes == 0


def test_what_was_read_can_be_changed_without_changing_the_cache():
    array = Counted().array()
    array[0:10, 0:16][:] = 0
    np.testing.assert_array_equal(array[0:10, 0:16], WHOLE[0:10, 0:16])


def test_threads_that_want_the_same_chunk_decode_it_once():
    read, barrier = Counted(), threading.Barrier(4)
    array = read.array()

    def look(_):
        barrier.wait()
        return array[:, :]

    with ThreadPoolExecutor(4) as pool:
        for pixels in pool.map(look, range(4)):
            np.testing.assert_array_equal(pixels, WHOLE)
    assert len(read.decoded) == len(set(read.decoded))


@pytest.mark.parametrize("error", [RuntimeError("bad Huffman code"), KeyError("x"), MemoryError()])
def test_any_error_of_a_decoder_becomes_a_sentence_with_the_place(error):
    def read(index):
        raise error

    array = ChunkedArray(
        (3, 64, 64), (1, 16, 32), np.uint8, read, cache=ChunkCache(), channel_axis=0, name="a.tif"
    )
    with pytest.raises(
        ImageError, match=r"a\.tif cannot be read at rows 16 to 31, columns 32 to 63"
    ):
        array[:, 20:24, 40:50]


@pytest.mark.parametrize("part", [np.zeros((1, 1), np.uint8), np.zeros((8, 8), np.uint16)])
def test_a_chunk_of_another_size_or_type_is_not_stretched_to_fit(part):
    array = ChunkedArray((8, 8), (8, 8), np.uint8, lambda _: part, cache=ChunkCache(), name="a.tif")
    with pytest.raises(ImageError, match=r"a\.tif is damaged at rows 0 to 7, columns 0 to 7"):
        array[:, :]


def test_chunks_of_gigabytes_are_refused_before_anything_is_read():
    with pytest.raises(ImageError, match=r"pieces of 4\.0 GB"):
        ChunkedArray((2**16, 2**16), (2**16, 2**16), np.uint8, Counted(), cache=ChunkCache())
