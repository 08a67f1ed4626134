"""Decoded samples that the processes of a machine keep in memory for each other."""

from __future__ import annotations

import itertools
import json
import math
import struct
import threading
from functools import lru_cache

import numpy as np

from ..runtime import console, shared_memory
from .reader import Sample

LENGTH = struct.Struct("<q")  # of the layout of a record, in bytes
ALIGNED = 64  # bytes: where records start


class SampleCache:
    """Samples by number, 0 to `count` - 1, as long as they fit into `room` bytes; what it returns cannot be written to.

    The memory starts with an int64 for each sample: where its record lies, 0 for none. A record is the length of its
    layout, the layout (names, types and shapes as JSON) and the entries. Each process appends to a part of its own, so
    that none waits for another, and writes the place last: one that is killed leaves no sample, never half of one.
    Several threads may call at once.
    """

    def __init__(self, count: int, room: float):
        start = -(-count * 8 // ALIGNED) * ALIGNED
        try:
            shared = shared_memory.allocate(start + int(room))
        except OSError as error:
            console.note(f"no memory for decoded images ({error}): each is decoded every time")
            memory, self._next, self._end = memoryview(bytearray(start)), 0, 0
        else:
            memory = memoryview(shared.memory)
            each = (len(memory) - start) // shared.parts // ALIGNED * ALIGNED
            self._next = start + shared.part * each
            self._end = self._next + each
        self._places = np.frombuffer(memory, np.int64, count)
        self._bytes = np.frombuffer(memory, np.uint8)
        self._fixed = memory.toreadonly()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many samples are kept."""
        return int(np.count_nonzero(self._places))

    def get(self, number: int) -> Sample | None:
        """Return a sample, as views of the memory; None where it is not kept."""
        place = int(self._places[number])
        if not place:
            return None
        start = place + LENGTH.size
        end = start + LENGTH.unpack_from(self._fixed, place)[0]
        sample = {}
        for name, kind, shape, size in _layout(bytes(self._fixed[start:end])):
            sample[name] = np.frombuffer(self._fixed, kind, math.prod(shape), end).reshape(shape)
            end += size
        return sample

    def keep(self, number: int, sample: Sample) -> None:
        """Keep a sample if there is room for it."""
        layout = json.dumps([[name, x.dtype.str, x.shape] for name, x in sample.items()]).encode()
        head = np.frombuffer(LENGTH.pack(len(layout)) + layout, np.uint8)
        pieces = [head, *(np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in sample.values())]
        ends = list(itertools.accumulate(map(len, pieces), initial=0))
        with self._lock:
            place, after = self._next, self._next + -(-ends[-1] // ALIGNED) * ALIGNED
            if after > self._end or self._places[number]:
                return
            self._next = after
        for at, piece in zip(ends, pieces, strict=False):
            self._bytes[place + at : place + at + len(piece)] = piece
        self._places[number] = place


@lru_cache(maxsize=1024)
def _layout(text: bytes) -> list[tuple[str, np.dtype, tuple[int, ...], int]]:
    """Return name, type, shape and length in bytes of each entry of a record."""
    kinds = [(name, np.dtype(kind), tuple(shape)) for name, kind, shape in json.loads(text)]
    return [(name, kind, shape, kind.itemsize * math.prod(shape)) for name, kind, shape in kinds]
