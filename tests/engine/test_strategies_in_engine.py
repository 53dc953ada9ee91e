"""Contrastive search, layer contrast and drafts share the engine with plain rows, and change nobody's text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabula.cache.blocks import BLOCK
from fabula.decoding.contrastive import ContrastiveSearch
from fabula.decoding.draft_length import DraftLength
from fabula.decoding.layer_contrast import LayerContrast
from fabula.decoding.prompt_lookup import PromptLookup
from fabula.decoding.recipe import Limits, Recipe
from fabula.engine.draft_model import DraftLimits, ModelDrafter
from fabula.engine.engine import Engine
from fabula.engine.request import Request
from fabula.ops.protocol import NO_TAPS
from fabula.processors import LogitsProcessorList, RepetitionPenaltyLogitsProcessor, TopKLogitsWarper
from fabula.testing.hash_model import HashModel
from tests.decoding.loop import run_search, run_strategy
from tests.engine.test_draft_model import Near
from tests.engine.test_engine import Collected, idle

STRATEGIES = {
    "plain": {},
    "contrastive": {"strategy": ContrastiveSearch(4, 0.6)},
    "layers": {"strategy": LayerContrast((1, 3))},
}


class Tapped(HashModel):
    """A hash model with hidden states and earlier layers, which depend on all that the cache holds of a row too."""

    def step(self, batch, cache, taps=NO_TAPS):
        forward = super().step(batch, cache)
        texts = [text for row in range(len(batch.tables)) for text in self.texts(batch, cache, row)]
        hidden = self.vectors(texts, 0, 6) if taps.final_hidden else None
        early = {layer: self.vectors(texts, layer, self.vocabulary) for layer in taps.layer_logits}
        return replace(forward, hidden=hidden, layer_logits=early or None)

    def texts(self, batch, cache, row):
        """What the cache holds of a row, up to each of its scored positions."""
        start, end = batch.starts[row], batch.starts[row + 1]
        stored = cache.tokens[batch.tables[row]].reshape(-1)
        for scored in batch.scored[(batch.scored >= start) & (batch.scored < end)]:
            yield stored[: batch.first[row] + scored - start + 1].tolist()

    def vectors(self, texts, kind, size):
        """Float["S size"]: random vectors of these texts."""
        rows = [np.random.default_rng([kind, 7, *text]).standard_normal(size, np.float32) for text in texts]
        return np.array(rows, np.float32).reshape(-1, size)


class Found(Collected):
    """A sink that takes a search's results too."""

    def found(self, row, hypothesis):
        self.hypothesis = hypothesis


def request(prompt, new, *, sampled=False, eos=(), seed=3, stream=0, rows=1, **given):
    chain = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.1), *([TopKLogitsWarper(20)] if sampled else [])])
    recipe = Recipe(chain, Limits(len(prompt) + new, frozenset(eos)), sampled, **given)
    return Request(np.array(prompt, np.int32), recipe, Found(rows), seed, stream, rows)


def engine_of(model, **options):
    return Engine(model, **{"max_positions": 4096, **options})


def prompt_of(length, seed):
    return np.random.default_rng(seed).integers(0, 50, length).tolist()


@pytest.mark.parametrize("length", [1, 31, 33, 70])
def test_contrastive_search_is_that_of_the_plain_loop(length):
    prompt, new = prompt_of(length, 1), 40
    one = request(prompt, new, **STRATEGIES["contrastive"])
    engine = engine_of(Tapped(), step_tokens=17)
    engine.run([one])
    chain = [RepetitionPenaltyLogitsProcessor(1.1)]
    ends = lambda row: "length" if len(row) == length + new else None  # noqa: E731
    assert one.sink.tokens == [run_search(Tapped(), prompt, ContrastiveSearch(4, 0.6), ends, chain)[1]]
    assert one.sink.reasons == ["length"]
    idle(engine)


@pytest.mark.parametrize("sampled", [False, True])
def test_layer_contrast_is_that_of_the_plain_loop(sampled):
    prompts = [prompt_of(n, n) for n in (1, 40, 9)]
    requests = [request(p, 12, sampled=sampled, stream=i, **STRATEGIES["layers"]) for i, p in enumerate(prompts)]
    engine_of(Tapped()).run(requests)
    chain = requests[0].recipe.processors
    rows, _ = run_strategy(
        Tapped(), prompts, 12, strategy=LayerContrast((1, 3)), processors=chain, sampled=sampled, seed=3
    )
    assert [r.sink.tokens[0] for r in requests] == [row[len(p) :] for row, p in zip(rows, prompts, strict=True)]


@settings(max_examples=25, deadline=None)
@given(
    jobs=st.lists(
        st.tuples(
            st.sampled_from(list(STRATEGIES)), st.integers(1, 60), st.integers(1, 25), st.booleans(), st.integers(0, 2)
        ),
        min_size=1,
        max_size=4,
    ),
    step_tokens=st.sampled_from([7, 64, 512]),
    max_rows=st.integers(4, 9),
    blocks=st.integers(28, 60),
)
def test_company_chunks_preemption_and_drafts_change_no_text(jobs, step_tokens, max_rows, blocks):
    def build(drafted):
        drafters = [None, PromptLookup(5), ModelDrafter(Near(0.4), DraftLimits(DraftLength(4), confidence=None))]
        return [
            request(
                prompt_of(length, place) + [1, 2, 3] * 3,
                new,
                sampled=sampled and mode != "contrastive",
                eos=[3],
                stream=place,
                rows=2 if sampled and mode != "contrastive" else 1,
                drafter=drafters[draft] if drafted and mode != "contrastive" else None,
                **STRATEGIES[mode],
            )
            for place, (mode, length, new, sampled, draft) in enumerate(jobs)
        ]

    alone, together = build(False), build(True)
    for one in alone:
        engine_of(Tapped()).run([one])
        assert one.sink.error is None
    engine = engine_of(Tapped(), step_tokens=step_tokens, max_rows=max_rows, max_positions=blocks * BLOCK)
    engine.run(together)
    assert [r.sink.error for r in together] == [None] * len(together)
    assert [r.sink.tokens for r in together] == [r.sink.tokens for r in alone]
    assert [r.sink.reasons for r in together] == [r.sink.reasons for r in alone]
    idle(engine)
    for drafter in {id(r.recipe.drafter): r.recipe.drafter for r in together}.values():
        if isinstance(drafter, ModelDrafter):
            drafter._cache.pool.check([])


def test_drafts_that_stand_save_passes():
    prompt, new = [1, 2, 3], 40
    plain, drafted = HashModel(), HashModel()
    first = request(prompt, new)
    engine_of(plain).run([first])
    second = request(prompt, new, drafter=ModelDrafter(HashModel(), DraftLimits(DraftLength(7), confidence=None)))
    engine_of(drafted).run([second])
    assert second.sink.tokens == first.sink.tokens
    assert plain.steps == 40 and drafted.steps <= 7


def test_a_drafter_that_raises_fails_its_own_requests_only():
    class Broken(PromptLookup):
        def propose(self, rows):
            raise ValueError("no")

    broken, whole = request([1, 2], 9, drafter=Broken(3)), request([1, 2], 9, drafter=PromptLookup(3))
    engine = engine_of(HashModel())
    engine.run([broken, whole])
    assert isinstance(broken.sink.error, ValueError)
    assert len(whole.sink.tokens[0]) == 9
    idle(engine)
