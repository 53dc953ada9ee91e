"""The table of frameworks, ways to decode and families: what each cell must be, and the models that are asked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.equal.comparison import Tally
from tests.equal.frameworks.doors import DOORS, REFERENCE, Ids, step_by_step
from tests.equal.frameworks.reference import SHOWN, Reference, begun, new_tokens, reference_of
from tests.equal.frameworks.runs import hold_output, hold_tokens
from tests.equal.frameworks.ways import WAYS, call_of, inputs_of
from tests.equal.strategies.tiny import ENCODERS

ALONE = "drawn"


class Table:
    """Models are loaded, and references made, once; a row that differs without an excuse fails."""

    def __init__(self, folders: Mapping[str, Path], tally: Tally) -> None:
        self._folders, self._tally = folders, tally
        self._right = cache(lambda family: REFERENCE.load(folders[family], family in ENCODERS))
        self.model = cache(self._load)  # of a family and a framework
        self.reference = cache(self._ask)  # of a family and a way: what PyTorch gives

    def _load(self, family: str, backend: str) -> Any:
        """TensorFlow runs its steps itself: compiling them with XLA takes many times as long."""
        model = DOORS[backend].load(self._folders[family], family in ENCODERS)
        if backend == "tensorflow":
            model.programs.xla = False
        return model

    def _ask(self, family: str, way: str) -> Reference:
        return reference_of(self._right(family), inputs_of(family, way), call_of(way))

    def hold_steps(self, family: str, way: str, backend: str, model: Any = None) -> None:
        """A call that shows the scores of each step, one step after another."""
        door, ids = DOORS[backend], inputs_of(family, way)
        model = model or self.model(family, backend)
        with step_by_step(model):
            output = door.generate(model, ids, **call_of(way), **SHOWN)
        with self._tally.case() as case:
            hold_output(case, f"{family} {way} {backend}", self.reference(family, way), door, output, begun(model, ids))

    def hold_texts(self, family: str, way: str, backend: str) -> None:
        """A call as anybody makes it: of rows that need nothing but numbers, many steps may be one."""
        ids = inputs_of(family, way)
        self._hold_rows(f"{way} {backend} in one call", self.reference(family, way), family, backend, ids, call_of(way))

    def hold_row_alone(self, family: str, backend: str) -> None:
        """The last row without the others; its seed and stream are those that it has among them."""
        ids, mask = inputs_of(family, ALONE)
        last = len(ids) - 1
        alone, call = (ids[last:], mask[last:]), {**call_of(ALONE), "seed": WAYS[ALONE]["seed"][last:]}
        self._hold_rows(f"{backend} alone", self.reference(family, ALONE).since(last), family, backend, alone, call)

    def hold_padded_on_the_right(self, family: str, backend: str) -> None:
        """The same rows, their spaces behind them."""
        ids = inputs_of(family, "greedy")
        spaces = (ids[1] == 0).sum(1)
        moved = [np.stack([np.roll(*pair) for pair in zip(part, -spaces, strict=True)]) for part in ids]
        right, model = self.reference(family, "greedy"), self.model(family, backend)
        with step_by_step(model):
            what = f"{backend} padded on the right"
            self._hold_rows(what, right, family, backend, (moved[0], moved[1]), call_of("greedy"))

    def _hold_rows(
        self, what: str, right: Reference, family: str, backend: str, ids: Ids, call: Mapping[str, Any]
    ) -> None:
        door, model = DOORS[backend], self.model(family, backend)
        output = door.generate(model, ids, **call)
        rows = new_tokens(door.on_host(output), begun(model, ids))
        with self._tally.case() as case:
            hold_tokens(case, f"{family} {what}", right, rows)
