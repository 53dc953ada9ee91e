"""Beam searches in PyTorch's bursts give what their turns give one by one, and nothing in one waits for the device."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula.arrays import torch as functions  # noqa: E402  # needs torch
from fabula.decoding.beam_rows import Beams, Ranking  # noqa: E402
from fabula.decoding.beam_search import BeamSearch, Carry  # noqa: E402
from fabula.decoding.closed.beam_loop import decode_beams  # noqa: E402
from fabula.decoding.closed.beams import ClosedGroup, close_beams  # noqa: E402
from fabula.decoding.closed.rows import ClosedRow  # noqa: E402
from fabula.decoding.constrained_beams import ConstrainedBeamSearch, ConstrainedCarry  # noqa: E402
from fabula.decoding.constraint_list import ConstraintListState  # noqa: E402
from fabula.decoding.constraints import PhrasalConstraint  # noqa: E402
from fabula.decoding.diverse_beams import DiverseBeamSearch, DiverseCarry, Group  # noqa: E402
from fabula.decoding.recipe import Limits, Recipe  # noqa: E402
from fabula.engine.engine import Engine  # noqa: E402
from fabula.models.bursts import torch as torch_burst  # noqa: E402  # need torch
from fabula.models.bursts import torch_beams  # noqa: E402  # need torch
from fabula.models.torch import TorchCausalLM  # noqa: E402  # needs torch
from fabula.ops.protocol import Batch  # noqa: E402
from tests.engine.test_burst_beams import request  # noqa: E402
from tests.models.bursts.cases import (  # noqa: E402
    ASK,
    BEAMS,
    DIVERSE_BEAMS,
    DRAWN_BEAMS,
    FORCED_BEAMS,
    NEGATIVE,
    prompts,
)
from tests.models.bursts.torch_bursts import (  # noqa: E402
    Unwaited,
    both,
    every_processor,
    hold_later_calls,
    never_looking,
    unwaited_asarray,
)
from tests.models.configurations import read_parts  # noqa: E402

NAMES = ("llama", "gpt2", "mistral-window-of-blocks", "gemma3-pattern")
ENDS = {"eos_token_id": list(range(0, 101, 9)), "max_new_tokens": 60, "do_sample": False, "num_beams": 4}
CALLS = {
    "best": BEAMS,
    "drawn": DRAWN_BEAMS,
    "diverse": DIVERSE_BEAMS,
    "forced": FORCED_BEAMS,
    "guided": {**DRAWN_BEAMS, **NEGATIVE},
    "guided-diverse": {**DIVERSE_BEAMS, **NEGATIVE},
    "ends": {**ENDS, "num_return_sequences": 3, "length_penalty": 2.0, "no_repeat_ngram_size": 2},
    "ends-first": {**ENDS, "early_stopping": True, "length_penalty": -0.5},
    "ends-last": {**ENDS, "early_stopping": "never", "length_penalty": 0.7, "min_new_tokens": 5},
}

CONSTRAINTS = (PhrasalConstraint([5, 6]),)


def found(model, **call):
    """What a search finds for three prompts of different lengths, and the beams that it came by."""
    ids, mask = (torch.as_tensor(part).to(model.device) for part in prompts())
    result = model.generate(ids, attention_mask=mask, return_dict_in_generate=True, **{**ASK, **call})
    return result.sequences.tolist(), result.beam_indices.tolist()


def compare(model, reference, **call):
    """Asserts that both find the same."""
    assert found(model, **call) == found(reference, **call)
    assert model.bursts


@pytest.mark.parametrize(
    ("name", "call"),
    [*((name, "best") for name in NAMES), *(("gemma3-pattern", call) for call in CALLS if call != "best")],
)
def test_searches_are_those_of_single_turns(writing, name, call):
    model, reference = both(writing(name))
    compare(model, reference, **CALLS[call])
    assert max(count for burst in model.bursts for count, _ in burst) > 1
    if call == "ends-first":
        assert any(over for burst in model.bursts for _, over in burst), "a search ended in a burst"


@pytest.mark.parametrize("groups", [1, 2])
def test_scores_are_those_of_single_turns(writing, groups):
    scores = []
    model, reference = both(writing("gpt2"))
    for each in (model, reference):
        requests = [request(length, 40, eos=(3, 7, 50, 60, 70), ranking=(0.7,), groups=groups) for length in (3, 40)]
        Engine(each, max_positions=4096).run(requests)
        scores.append([[score for score, _ in one.sink.scores] for one in requests])
    np.testing.assert_allclose(*scores, rtol=0, atol=1e-5)
    assert model.bursts


def test_time_ends_a_burst_and_changes_no_search(writing, monkeypatch):
    monkeypatch.setattr(torch_burst, "LONG", 0.0)
    model, reference = both(writing("llama"))
    compare(model, reference, **CALLS["ends"])
    assert all(count <= 1 for burst in model.bursts for count, _ in burst) and len(model.bursts) > 5


def test_what_a_burst_left_in_the_cache_serves_later_calls(writing):
    hold_later_calls(*both(writing("gemma3-pattern")), **BEAMS)


def test_what_an_earlier_owner_left_in_a_block_is_not_seen(writing, monkeypatch):
    monkeypatch.setattr(torch_burst, "LONG", 60.0)
    model, reference = both(writing("mistral-window-of-blocks"))
    results = []
    for each in (model, reference):
        engine, requests = Engine(each, max_positions=4096), [request(3, new=130), request(40, new=20)]
        for stored in (*engine.storage.keys, *engine.storage.values):
            stored.fill_(torch.inf)
        engine.run(requests)
        results.append([(one.sink.tokens, [rows for _, rows in one.sink.scores]) for one in requests])
    assert results[0] == results[1]
    assert model.bursts[0] == [(64, False), (18, False)]


@pytest.mark.parametrize("kind", ["quantized", "offloaded"])
def test_other_caches_go_on_in_bursts_too(writing, kind):
    model, reference = both(writing("llama"))
    call = {**BEAMS, "cache_implementation": kind}
    compare(model, reference, **call)


@pytest.mark.parametrize("call", ["best", "drawn", "diverse", "forced"])
def test_no_turn_of_a_burst_asks_for_a_number(writing, monkeypatch, call):
    """Nobody looks at the beams, so that some stay as they are for many turns after their end."""

    def unwaited(*arguments):
        with Unwaited():
            return decode_beams(*arguments)

    monkeypatch.setattr(torch_beams, "decode_beams", unwaited)
    monkeypatch.setattr(torch_burst, "noted", lambda flag: lambda: True)
    monkeypatch.setattr(torch_burst, "LONG", 60.0)
    model, reference = both(writing("gemma3-pattern"))
    more = {**CALLS[call], "eos_token_id": list(range(0, 101, 20)), "early_stopping": True}
    compare(model, reference, **more)


def test_a_cpu_makes_single_turns(writing):
    assert TorchCausalLM.from_tensors(*read_parts(writing("gpt2").directory)).burst_beams is None
    assert TorchCausalLM.from_tensors(*read_parts(writing("gpt2").directory), device="meta").burst_beams is not None


@pytest.mark.parametrize("way", ["best", "drawn", "diverse", "forced"])
def test_a_device_that_has_no_numbers_runs_a_burst(writing, monkeypatch, way):
    """Tensors of the device "meta" have shapes and no content: whatever looks at one raises."""
    model = TorchCausalLM.from_tensors(*read_parts(writing("gemma3-pattern").directory), device="meta")
    form, host = close_beams([closed_group(first, way) for first in (5, 40)], 20)
    ones = np.ones(4, np.int32)
    tables = np.array([[0, 0], [1, 1], [2, 3], [4, 5]], np.int32)
    batch = Batch(ones, np.arange(5), np.array([5, 5, 40, 40], np.int32), tables, ones)
    frame = torch_beams.beam_frame_of(model.family, model.weights(), batch, model.new_cache(6), host.rows.room)
    there = torch_beams.beams_there(host, model.inputs_like)
    frame.forward(there.rows.last, there.rows.lengths - 1, frame.begin())  # what a model makes once, for all turns
    monkeypatch.setattr(functions, "asarray", unwaited_asarray)
    with torch.no_grad(), Unwaited():
        made, past = decode_beams(frame.forward, torch_beams.reordered, frame.begin(), form, there, never_looking)
    frame.settle(past, 3)
    assert made.turns.shape == (2,) and made.turns.device.type == "meta" and past.turns == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("call", CALLS)
def test_a_gpu_finds_what_a_cpu_does_and_is_never_waited_for(writing, monkeypatch, call):
    def unwaited(*arguments):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return decode_beams(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(torch_beams, "decode_beams", unwaited)
    model, reference = both(writing("gemma3-pattern"))
    compare(model.cuda(), reference, **CALLS[call])


def closed_group(first, way):
    """Two beams behind the first turn, of which every processor makes something."""
    ranking, size = Ranking(0.7, "never", 30), 1 if way == "diverse" else 2
    search = DiverseBeamSearch(2, 2, 0.5, 2, ranking, 1) if way == "diverse" else BeamSearch(2, 2, ranking, 1)
    search = ConstrainedBeamSearch(2, CONSTRAINTS, 2, ranking, 1) if way == "forced" else search
    recipe = Recipe(list(every_processor(1)), Limits(60, frozenset({2})), way == "drawn", strategy=search)
    rows = [ClosedRow(np.arange(first + 1, dtype=np.int32), first, 0, 20, 7, 0, recipe)] * 2
    one = np.arange(3, 3 + size, dtype=np.int32)[:, None]
    beams = Beams(np.zeros(size, np.float32), one, one, Beams.start(size).pool)
    groups = tuple(Group(beams, np.array([place]), one[:, 0]) for place in range(2))
    if way == "forced":
        return ClosedGroup(rows, ConstrainedCarry(beams, (ConstraintListState(CONSTRAINTS),) * 2))
    return ClosedGroup(rows, DiverseCarry(groups) if way == "diverse" else Carry(beams))
