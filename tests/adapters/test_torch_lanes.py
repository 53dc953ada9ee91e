"""Whatever becomes of rows between two steps, a module's cache gives the logits of each row alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fabula.adapters.torch import adapt
from fabula.adapters.torch_calls import Way
from fabula.adapters.torch_lanes import Lanes, Wanted
from fabula.adapters.torch_ways import choose_way
from tests.adapters.modules import VOCABULARY, Attending, BothWays, Plain, Stateful, made

ALONE = Way("none", "none")


@torch.no_grad()
def check(module: Any, way: Way, lanes: Lanes, rows: list[np.ndarray], first: list[int]) -> None:
    """The outputs of a step, row by row, against those of each row alone and anew."""
    call = adapt(module).call
    wanted = [Wanted(row.astype(np.int32), begin) for row, begin in zip(rows, first, strict=True)]
    for row, output in zip(wanted, lanes.compute(call, way, wanted), strict=True):
        alone = Lanes().compute(call, ALONE, [row])[0].logits
        assert output.logits.shape == alone.shape
        torch.testing.assert_close(output.logits, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("kind", "way"),
    [
        (Attending, Way("own", "left")),
        (Attending, Way("own", "none")),
        (Attending, Way("none", "left")),
        (Stateful, Way("own", "none")),
        (Plain, Way("none", "right")),
        (BothWays, Way("none", "none")),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else f"{value.cache}-{value.padding}",
)
def test_rows_that_are_forked_swapped_drafted_and_taken_back(kind: type[Any], way: Way, seed: int):
    module, random, lanes = made(kind), np.random.default_rng(seed), Lanes()
    rows = [random.integers(0, VOCABULARY, size) for size in random.integers(1, 9, 3)]
    for _ in range(12):
        drafted = [int(count) for count in random.integers(0, 3, len(rows))]
        if kind is BothWays:  # only its last column does not depend on what follows
            drafted = [0] * len(rows)
        tokens = [np.append(row, random.integers(0, VOCABULARY, k)) for row, k in zip(rows, drafted, strict=True)]
        check(module, way, lanes, tokens, [len(row) - 1 for row in rows])
        kept = [int(random.integers(0, count + 1)) for count in drafted]
        rows = [row[: len(row) - count + k] for row, count, k in zip(tokens, drafted, kept, strict=True)]
        parents = random.integers(0, len(rows), random.integers(1, 5)) if random.random() < 0.4 else range(len(rows))
        rows = [np.append(rows[parent], random.integers(0, VOCABULARY)) for parent in parents]
        if random.random() < 0.2:
            rows.append(random.integers(0, VOCABULARY, 1 + random.integers(0, 20)))
        if random.random() < 0.1:
            rows[0] = rows[0][: 1 + len(rows[0]) // 2]


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        (Attending, Way("own", "left")),
        (Stateful, Way("own", "none")),
        (Plain, Way("none", "right")),
        (BothWays, Way("none", "none")),
    ],
)
def test_the_way_that_is_chosen_is_the_first_that_is_exact(kind: type[Any], way: Way):
    with torch.no_grad():
        assert choose_way(adapt(made(kind)).call, VOCABULARY) == way


def test_a_module_whose_mask_does_nothing_is_not_padded_on_the_left():
    class Deaf(Attending):
        def forward(self, input_ids, attention_mask, position_ids, past_key_values=None, use_cache=False):  # type: ignore[no-untyped-def]
            return super().forward(input_ids, torch.ones_like(attention_mask), position_ids, past_key_values, use_cache)

    with torch.no_grad():
        assert choose_way(adapt(made(Deaf)).call, VOCABULARY) == Way("own", "none")


def test_a_module_whose_cache_lies_is_computed_anew():
    class Forgetful(Attending):
        def forward(self, input_ids, attention_mask, position_ids, past_key_values=None, use_cache=False):  # type: ignore[no-untyped-def]
            output = super().forward(input_ids, attention_mask, position_ids, past_key_values, use_cache)
            if output.past_key_values is not None:
                output.past_key_values = tuple((k, torch.zeros_like(v)) for k, v in output.past_key_values)
            return output

    with torch.no_grad():
        assert choose_way(adapt(made(Forgetful)).call, VOCABULARY) == Way("none", "right")


def test_a_step_that_fails_leaves_nothing_kept():
    module, lanes = made(Attending), Lanes()
    with torch.no_grad():
        rows = [Wanted(np.array([1, 2, 3], np.int32), 2)]
        lanes.compute(adapt(module).call, Way("own", "left"), rows)
        assert len(lanes.lanes) == 1
        module.places = torch.nn.Embedding(1, 32)
        with pytest.raises(IndexError):
            lanes.compute(adapt(module).call, Way("own", "left"), [Wanted(np.array([1, 2, 3, 4], np.int32), 3)])
    assert lanes.lanes == []
