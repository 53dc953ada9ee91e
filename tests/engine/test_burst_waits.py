"""Bursts of rows, beams and texts alike: who waits for a place gets it, and a failure is that of its requests alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.engine import test_burst, test_burst_beams, test_burst_texts
from tests.engine.burst_model import BurstModel
from tests.engine.test_engine import engine_of, idle


@dataclass(frozen=True)
class Kind:
    """A kind of burst."""

    burst: str  # the model's method
    request: Callable[..., Any]  # (prompt's length, new=, streams=) -> Request
    rows: int  # that a request takes
    texts: int  # that it gets
    first: int  # tokens of the first burst, while a third request waits

    def __str__(self) -> str:
        return self.burst


KINDS = (
    Kind("burst", lambda length, **wishes: test_burst.request([1] * length, **wishes), 1, 1, 7),
    Kind("burst_beams", test_burst_beams.request, 3, 2, 6),
    Kind("burst_texts", test_burst_texts.request, 4, 1, 8),
)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_who_waits_for_a_place_gets_it_when_one_ends(kind):
    model = BurstModel()
    requests = [kind.request(4, new=30), kind.request(5, new=8), kind.request(6, new=8)]
    engine = engine_of(model, max_rows=2 * kind.rows)
    engine.run(requests)
    idle(engine)
    assert model.bursts[0] == [kind.first] * 2, "the first two go on until one of them ends"
    assert all(one.sink.reasons == ["length"] * kind.texts for one in requests)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_burst_that_raises_fails_its_requests_and_no_later_one(kind):
    def broken(*_):
        raise RuntimeError("broken")

    model, one, later = BurstModel(), kind.request(4), kind.request(4, streams=True)
    setattr(model, kind.burst, broken)
    engine = engine_of(model)
    engine.run([one])
    assert isinstance(one.sink.error, RuntimeError)
    engine.run([later])
    assert later.sink.reasons == ["length"] * kind.texts
    idle(engine)
