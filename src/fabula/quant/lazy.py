"""Weights by their names, of which each is read, renamed or converted only when it is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from fabula.quant.formats import StoredTensor


class LazyTensors(Mapping[str, StoredTensor]):
    """Which weights there are is known without making one; a subclass makes them in `__getitem__`."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
