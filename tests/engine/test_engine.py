"""Whatever shares the engine with a row, and however its work is cut up, the row's text is the row's text alone."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabula.decoding.recipe import Limits, Recipe
from fabula.engine.engine import Engine
from fabula.engine.request import Request
from fabula.errors import CancelledError, NumericalError, OutOfMemoryError
from fabula.processors.processor import LogitsProcessorList
from fabula.processors.temperature import TemperatureLogitsWarper
from fabula.processors.truncation import TopKLogitsWarper
from fabula.testing.hash_model import HashModel


class Collected:
    """A sink that keeps everything."""

    def __init__(self, rows=1):
        self.tokens = [[] for _ in range(rows)]
        self.reasons = [None] * rows
        self.error = None

    def put(self, row, step):
        self.tokens[row].append(step.token)

    def end(self, row, reason):
        assert self.reasons[row] is None
        self.reasons[row] = reason

    def fail(self, error):
        assert self.error is None
        self.error = error


def request(prompt, new=10, rows=1, eos=(), sampled=False, seed=0, stream=0, **limits):
    processors = LogitsProcessorList([TemperatureLogitsWarper(0.7), TopKLogitsWarper(20)] if sampled else [])
    recipe = Recipe(processors, Limits(len(prompt) + new, frozenset(eos), **limits), sampled)
    return Request(np.array(prompt, np.int32), recipe, Collected(rows), seed, stream, rows)


def greedy(model, prompt, new, eos=()):
    tokens = list(prompt)
    for _ in range(new):
        tokens.append(int(model.next_logits(tokens).argmax()))
        if tokens[-1] in eos:
            break
    return tokens[len(prompt) :]


def engine_of(model, **options):
    return Engine(model, **{"max_positions": 4096, **options})


def idle(engine):
    engine.pool.check([])
    assert not engine.tickets and not engine.scheduler.running and not engine.scheduler.waiting


PROMPTS = [[1], [2, 3, 4], list(range(40)), list(range(7, 49)) * 3, [5] * 33]


def test_a_greedy_row_takes_the_best_token_each_time():
    model = HashModel()
    requests = [request(prompt) for prompt in PROMPTS]
    engine = engine_of(model)
    engine.run(requests)
    assert [r.sink.tokens[0] for r in requests] == [greedy(model, prompt, 10) for prompt in PROMPTS]
    assert all(r.sink.reasons == ["length"] for r in requests)
    idle(engine)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 150), st.integers(1, 60), st.integers(1, 3)), min_size=1, max_size=6),
    step_tokens=st.sampled_from([1, 3, 17, 64, 512]),
    max_rows=st.integers(1, 8),
    blocks=st.integers(7, 40),
    sampled=st.booleans(),
)
def test_chunks_batches_and_preemption_change_no_text(lengths, step_tokens, max_rows, blocks, sampled):
    model = HashModel()
    prompts = [np.random.default_rng(i).integers(0, 50, length).tolist() for i, (length, _, _) in enumerate(lengths)]
    alone = [
        request(p, new, rows, [3], sampled, 9, i)
        for i, (p, (_, new, rows)) in enumerate(zip(prompts, lengths, strict=True))
    ]
    together = [
        request(p, new, rows, [3], sampled, 9, i)
        for i, (p, (_, new, rows)) in enumerate(zip(prompts, lengths, strict=True))
    ]
    for one in alone:
        engine_of(model).run([one])
    engine = engine_of(model, step_tokens=step_tokens, max_rows=max_rows, max_positions=blocks * 32)
    engine.run(together)
    assert [r.sink.tokens for r in together] == [r.sink.tokens for r in alone]
    idle(engine)


def test_n_rows_compute_the_prompt_once():
    model = HashModel()
    engine_of(model).run([request(list(range(45)) * 4, new=5, rows=4, sampled=True)])
    assert model.computed <= 180 + 4 * 5 + 3


def test_a_prompt_seen_before_is_not_computed_again():
    model = HashModel()
    engine = engine_of(model)
    prompt = list(range(50)) * 3
    first, second = request(prompt), request(prompt)
    engine.run([first])
    before = model.computed
    engine.run([second])
    assert second.sink.tokens == first.sink.tokens
    assert model.computed - before < 40


def test_an_end_token_stays_and_ends_the_row():
    model = HashModel()
    eos = greedy(model, [1, 2], 10)[3]
    r = request([1, 2], eos=[eos])
    engine_of(model).run([r])
    assert r.sink.tokens[0] == greedy(model, [1, 2], 10, [eos]) and r.sink.reasons == ["stop"]


def test_a_row_that_does_not_fit_alone_fails_and_the_engine_lives():
    engine = engine_of(HashModel(), max_positions=64)
    large, small = request([1] * 100), request([1, 2])
    engine.run([large, small])
    assert isinstance(large.sink.error, OutOfMemoryError)
    assert len(small.sink.tokens[0]) == 10
    idle(engine)


def test_a_cache_that_cannot_grow_costs_time_and_no_text():
    model = HashModel()
    new_cache = model.new_cache

    def stuck(blocks):
        storage = new_cache(blocks)

        def grow(wanted):
            raise OutOfMemoryError("no memory is left")

        storage.grow = grow
        return storage

    prompts = [list(range(i, i + 45)) for i in range(6)]
    alone = [request(prompt, 60, 3, sampled=True, stream=3 * i) for i, prompt in enumerate(prompts)]
    for one in alone:
        engine_of(model).run([one])
    model.new_cache = stuck
    together = [request(prompt, 60, 3, sampled=True, stream=3 * i) for i, prompt in enumerate(prompts)]
    engine = engine_of(model)
    engine.run(together)
    assert [r.sink.tokens for r in together] == [r.sink.tokens for r in alone]
    assert engine.pool.blocks == 16
    idle(engine)


def test_scores_without_a_finite_number_are_an_error_and_not_a_token():
    model = HashModel()
    model.next_logits = lambda tokens: np.full(50, np.nan, np.float32)
    r = request([1, 2])
    engine = engine_of(model)
    engine.run([r])
    assert isinstance(r.sink.error, NumericalError)
    idle(engine)


def test_a_sink_that_raises_ends_its_own_request_only():
    engine = engine_of(HashModel())
    bad, good = request([1, 2]), request([3, 4])
    bad.sink.put = lambda row, step: 1 / 0
    engine.run([bad, good])
    assert isinstance(bad.sink.error, ZeroDivisionError) and len(good.sink.tokens[0]) == 10
    idle(engine)


def test_a_model_that_raises_fails_the_step_and_not_the_engine():
    model = HashModel()
    engine = engine_of(model)
    step, model.step = model.step, lambda *arguments: 1 / 0
    broken = request([1])
    engine.run([broken])
    assert isinstance(broken.sink.error, ZeroDivisionError)
    model.step = step
    working = request([1])
    engine.run([working])
    assert len(working.sink.tokens[0]) == 10
    idle(engine)


def test_several_threads_share_the_steps():
    model = HashModel()
    engine = engine_of(model)
    requests = [request([i, i + 1], new=30) for i in range(8)]
    threads = [threading.Thread(target=engine.run, args=([r],)) for r in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [r.sink.tokens[0] for r in requests] == [greedy(model, [i, i + 1], 30) for i in range(8)]
    idle(engine)


def test_a_cancelled_request_gives_its_blocks_back():
    engine = engine_of(HashModel())
    r = request([1, 2], new=500)
    ticket = engine.submit(r)
    for _ in range(5):
        engine.step()
    ticket.cancelled = True
    engine.step()
    assert isinstance(r.sink.error, CancelledError) and len(r.sink.tokens[0]) == 5
    idle(engine)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_rows_stream_is_what_makes_its_text(seed):
    model = HashModel()
    one = request([1, 2], rows=3, sampled=True, seed=seed, stream=5)
    engine_of(model).run([one])
    others = [request([1, 2], sampled=True, seed=seed, stream=5 + k) for k in range(3)]
    engine_of(model).run(others)
    assert one.sink.tokens == [r.sink.tokens[0] for r in others]
    assert len({tuple(tokens) for tokens in one.sink.tokens}) == 3
