"""Batches as a pure function of (seed, step, process): data order and augmentation never depend on what ran before."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..runtime import console, distributed
from ..runtime.cores import usable_cores
from ..runtime.memory import available_memory
from .reader import Reader, Sample
from .sample_cache import SampleCache

CPU = torch.device("cpu")
CACHE_SHARE = 0.4  # of the memory that is free at the start, for the decoded images of all processes of a machine
UNKNOWN = 4e9  # bytes of free memory where the system does not say
MOST_WORKERS = 8  # threads that decode
AHEAD = 3  # steps that are prepared while one runs


@dataclass
class Domain:
    """The files of one domain, decoded to samples of `size` px: once, while they fit into `cache`.

    There the first file has the number `first`. Several threads may ask for samples at once.
    """

    reader: Reader
    paths: Sequence[Path]
    size: int
    cache: SampleCache | None = None
    first: int = 0
    broken: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def sample(self, index: int) -> Sample:
        """Return the sample of a file, or of the next one that can be decoded."""
        for offset in range(len(self.paths)):
            at = (index + offset) % len(self.paths)
            if at in self.broken:
                continue
            kept = self.cache.get(self.first + at) if self.cache is not None else None
            if kept is not None:
                return {**kept, **self.reader.looked_up(self.paths[at])}
            try:
                sample = self.reader.read(self.paths[at], self.size)
            except InputError as error:
                self._give_up(at, error)
                continue
            if self.cache is not None:
                found = self.reader.looked_up(self.paths[at])
                self.cache.keep(self.first + at, {name: sample[name] for name in sample if name not in found})
            return sample
        raise InputError(f"no image of domain {self.reader.name} can be decoded", "check the files")

    def _give_up(self, at: int, error: InputError) -> None:
        with self.lock:
            if at not in self.broken:
                self.broken.add(at)
                console.warn(f"{error.message}; the next image takes its place")


@lru_cache(maxsize=16)
def _order(seed: int, domain: int, epoch: int, count: int) -> np.ndarray:
    """Return the order of one pass over a domain."""
    return np.random.default_rng([seed, domain, epoch]).permutation(count)


@dataclass
class Batches:
    """The batches of a run: `batches(step)` gives one mapping per accumulated batch.

    A step takes `batch * accumulate * processes` images of each domain; every domain is shuffled by itself, and shows
    all its images before it repeats one. An image is cropped to `size` from `load_size` and mirrored at random.
    `active` names the domains that a step looks at (None: all); the others are neither decoded nor in its batches.
    """

    domains: Sequence[Domain]
    seed: int
    batch: int
    size: int
    flip: bool = True
    accumulate: int = 1
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    active: Callable[[int], Collection[str] | None] = lambda step: None

    @classmethod
    def of(
        cls,
        paths: Mapping[str, Sequence[Path]],
        load_size: int,
        readers: Mapping[str, Reader] | None = None,
        **options: Any,
    ) -> Batches:
        """Make batches of the files at `paths`, by domain, read as plain images where `readers` has no other way."""
        free = available_memory()
        starts = [0, *itertools.accumulate(len(found) for found in paths.values())]
        cache = SampleCache(starts[-1], CACHE_SHARE * (UNKNOWN if free is None else free))
        known = {name: (readers or {}).get(name) or Reader(name) for name in paths}
        domains = [
            Domain(known[name], found, load_size, cache, first)
            for first, (name, found) in zip(starts, paths.items(), strict=False)
        ]
        return cls(domains, **options)

    @property
    def epoch_steps(self) -> int:
        """How many steps pass over the larger domain once."""
        whole = self.batch * self.accumulate * distributed.size()
        return -(-max(len(domain.paths) for domain in self.domains) // whole)

    def __call__(self, step: int) -> list[dict[str, Tensor]]:
        """Return the batches of `step` by entry: images [N, 3, size, size] in [-1, 1], label maps [N, size, size]."""
        out = []
        active = self.active(step)
        numbers = [n for n, domain in enumerate(self.domains) if active is None or domain.reader.name in active]
        for micro in range(self.accumulate):
            first = ((step * self.accumulate + micro) * distributed.size() + distributed.rank()) * self.batch
            positions = range(first, first + self.batch)
            batch: dict[str, Tensor] = {}
            for number in numbers:
                samples = [self.sample(number, position) for position in positions]
                batch |= {name: self._tensor(np.stack([sample[name] for sample in samples])) for name in samples[0]}
            out.append(batch)
        return out

    def sample(self, number: int, position: int) -> Sample:
        """Return the sample at a position of a domain's endless order, cropped to `size` px and mirrored."""
        domain = self.domains[number]
        epoch, place = divmod(position, len(domain.paths))
        sample = domain.sample(int(_order(self.seed, number, epoch, len(domain.paths))[place]))
        rng = np.random.default_rng([self.seed, number, position])

        def another() -> Sample:
            return domain.sample(int(rng.integers(len(domain.paths))))

        return domain.reader.present(sample, rng, self.size, self.flip, another)

    def _tensor(self, entries: np.ndarray) -> Tensor:
        x = torch.from_numpy(np.ascontiguousarray(entries))
        if self.device.type == "cuda":  # from pinned memory the copy runs beside the step
            x = x.pin_memory()
        x = x.to(self.device, non_blocking=True)
        if x.ndim == 4:
            return x.permute(0, 3, 1, 2).to(self.dtype).div_(127.5).sub_(1)  # stays channels-last
        return x.to(self.dtype) if x.is_floating_point() else x.long()

    def stream(self, start: int, stop: int, workers: int = 1) -> Iterator[list[dict[str, Tensor]]]:
        """Yield the batches of steps `start` to `stop` in order, prepared by threads while the previous step runs.

        However many `workers` there are, the batches are those of `self(step)`.
        """
        ahead = AHEAD + workers - 1
        with ThreadPoolExecutor(workers) as pool:
            waiting = deque(pool.submit(copy_context().run, self, s) for s in range(start, min(start + ahead, stop)))
            for step in range(start, stop):
                batch = waiting.popleft().result()
                if step + ahead < stop:
                    waiting.append(pool.submit(copy_context().run, self, step + ahead))
                yield batch


def free_workers(device: torch.device) -> int:
    """Return how many threads may decode beside training: the cores that this process's share leaves free."""
    cores = usable_cores() // distributed.local_size()
    busy = torch.get_num_threads() if device.type == "cpu" else 1
    return max(1, min(MOST_WORKERS, cores - busy))
