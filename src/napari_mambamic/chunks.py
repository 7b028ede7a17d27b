"""Arrays that lie in a file in chunks (tiles, strips), sliced without decoding a chunk twice.

Patches are smaller than chunks or straddle them, so neighbours need the same chunks again: those
that were decoded last are kept.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mambamic.errors import ImageError

CACHE_BYTES = 256 * 2**20  # two rows of 256 px tiles of an RGB slide 170,000 px wide
LARGEST_CHUNK_BYTES = 2**31

Index = tuple[int, ...]


class ChunkCache:
    """The chunks that were used last, at most `max_bytes` of them; threads may share it."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._chunks: OrderedDict[Any, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()
        # Two threads that want the same chunk must not both decode it; others need not wait.
        self._decoding = [threading.Lock() for _ in range(64)]

    def get(self, key: Any, read: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The chunk of a key; `read` decodes it when it is not here."""
        with self._decoding[hash(key) % len(self._decoding)]:
            with self._lock:
                if key in self._chunks:
                    self._chunks.move_to_end(key)
                    return self._chunks[key]
            chunk = read()
            with self._lock:
                self._chunks[key] = chunk
                self.n_bytes += chunk.nbytes
                while self.n_bytes > self.max_bytes:
                    self.n_bytes -= self._chunks.popitem(last=False)[1].nbytes
            return chunk


class ChunkedArray:
    """An array that is read chunk by chunk through a cache.

    Parameters
    ----------
    shape, chunks : tuple of int
        Of the array and of a chunk; chunks at the far ends may stick out.
    dtype : dtype
        Of the pixels.
    read_chunk : callable
        From the number of a chunk along each axis to its pixels; it may be called by several
        threads at once.
    cache : ChunkCache
        May be shared with other arrays.
    channel_axis : 0, 2 or None
        The others are (y, x).
    name : str
        Of the file, for messages.

    Examples
    --------
    >>> whole = np.arange(35).reshape(5, 7)
    >>> def read_chunk(index):
    ...     y, x = 2 * index[0], 4 * index[1]
    ...     return whole[y : y + 2, x : x + 4]
    >>> array = ChunkedArray((5, 7), (2, 4), whole.dtype, read_chunk, cache=ChunkCache())
    >>> array[1:5:2, 3:6]
    array([[10, 11, 12],
           [24, 25, 26]])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        chunks: tuple[int, ...],
        dtype: Any,
        read_chunk: Callable[[Index], NDArray[Any]],
        *,
        cache: ChunkCache,
        channel_axis: Literal[0, 2] | None = None,
        name: str = "image",
    ) -> None:
        self.shape, self.chunks, self.dtype = shape, chunks, np.dtype(dtype)
        self.ndim = len(shape)
        self._read_chunk, self._cache, self._name = read_chunk, cache, name
        self.channel_axis = channel_axis
        self._token = object()  # tells the chunks of this array from those of others in the cache
        check_chunk_size(math.prod(chunks) * self.dtype.itemsize, name)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read slices along the leading axes; ImageError says which region cannot be read."""
        keys = key if isinstance(key, tuple) else (key,)
        keys += (slice(None),) * (self.ndim - len(keys))
        ranges = [range(*k.indices(n)) for k, n in zip(keys, self.shape, strict=True)]
        pixels = np.empty([len(r) for r in ranges], self.dtype)
        for pieces in product(*map(_pieces, ranges, self.chunks)):
            index, inside, outside = zip(*pieces, strict=True)
            part = self._chunk(index)[inside]
            if part.shape != pixels[outside].shape or part.dtype != self.dtype:
                raise ImageError(
                    f"{self._name} is damaged at {self._place(index)}: there are other pixels than "
                    f"the file announces. Get another copy, or leave this region out."
                )
            pixels[outside] = part
        return pixels

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def _chunk(self, index: Index) -> NDArray[Any]:
        try:
            return self._cache.get((self._token, index), lambda: self._read_chunk(index))
        except ImageError:
            raise
        except Exception as error:  # decoders raise anything on damaged bytes
            raise ImageError(
                f"{self._name} cannot be read at {self._place(index)}: {said_by(error)}. Open it "
                f"again, get another copy, or leave this region out."
            ) from error

    def _place(self, index: Index) -> str:
        """Where a chunk lies in px of its level, in words."""
        axes = (1, 2) if self.channel_axis == 0 else (0, 1)
        starts = [index[a] * self.chunks[a] for a in axes]
        ends = [
            min(s + self.chunks[a], self.shape[a]) - 1 for s, a in zip(starts, axes, strict=True)
        ]
        return f"rows {starts[0]} to {ends[0]}, columns {starts[1]} to {ends[1]}"


def check_chunk_size(n_bytes: int, name: str) -> None:
    """Refuse an image that can only be read in gigabytes, be it damaged or real."""
    if n_bytes > LARGEST_CHUNK_BYTES:
        raise ImageError(
            f"{name} is stored in pieces of {n_bytes / 2**30:,.1f} GB, and each would have to be "
            f"decoded whole; the limit is {LARGEST_CHUNK_BYTES / 2**30:.0f} GB. Save it in tiles, "
            f"or get another copy if it should be smaller."
        )


def said_by(error: BaseException) -> str:
    """What an error of another library says, in words that fit into a sentence."""
    if isinstance(error, (ArithmeticError, AttributeError, LookupError, TypeError)):
        return "what it says about itself makes no sense"  # bugs that damaged files bring out
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(reason).split())[:300].rstrip(".")


def _pieces(wanted: range, chunk: int) -> Iterator[tuple[int, slice, slice]]:
    """(number of the chunk, slice of it, slice of the result) for each chunk along one axis."""
    done = 0
    while done < len(wanted):
        number, first = divmod(wanted[done], chunk)
        count = min(len(wanted) - done, -(-(chunk - first) // wanted.step))
        last = first + (count - 1) * wanted.step
        yield number, slice(first, last + 1, wanted.step), slice(done, done + count)
        done += count
