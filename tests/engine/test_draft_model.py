"""A drafting model guesses for many rows at once; whatever it guesses, texts stay what they are."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.decoding.draft_length import DraftLength
from fabula.decoding.strategy import Draftable
from fabula.engine.draft_model import DraftLimits, ModelDrafter
from fabula.engine.early_exit import EarlyExit
from fabula.errors import ArgumentError, OutOfMemoryError
from fabula.processors import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
)
from fabula.testing.hash_model import HashModel
from tests.decoding.loop import run_drafted, run_strategy
from tests.ops.native_cases import small_model

PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6, 5], list(range(40)), [2]]
CHAIN = [RepetitionPenaltyLogitsProcessor(1.2), TemperatureLogitsWarper(0.8), TopKLogitsWarper(20)]


class Near(HashModel):
    """A hash model that is near another one, as a drafting model is near its target."""

    def __init__(self, noise):
        super().__init__()
        self.noise = noise

    def next_logits(self, tokens):
        logits = super().next_logits(tokens)
        return logits + self.noise * np.random.default_rng([*tokens, 1]).standard_normal(len(logits), np.float32)


def asked(key, tokens, most=9, **given):
    return Draftable(key, np.array(tokens, np.int32), len(tokens), most, 7, key, **given)


def always(number, **limits):
    return DraftLimits(DraftLength(number), confidence=None, **limits)


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("noise", [0.0, 0.5, 30.0])
@pytest.mark.parametrize("step_tokens", [5, 512])
def test_texts_are_those_without_drafts(sampled, noise, step_tokens):
    chain = CHAIN if sampled else CHAIN[:1]
    expected, _ = run_strategy(HashModel(), PROMPTS, 25, processors=chain, sampled=sampled, seed=7)
    drafter = ModelDrafter(Near(noise), always(4), step_tokens=step_tokens)
    rows, passes, stood = run_drafted(HashModel(), PROMPTS, 25, drafter, processors=chain, sampled=sampled, seed=7)
    assert rows == expected
    if noise == 0:
        assert passes == 4 * 5, "every draft stands: five tokens a pass"
    assert passes + stood == 100


def test_a_draft_is_what_the_model_would_say_whatever_company_it_is_drafted_in():
    chain = LogitsProcessorList(CHAIN)
    rows = [asked(key, prompt, processors=chain, sampled=key % 2 == 0) for key, prompt in enumerate(PROMPTS)]
    together = ModelDrafter(HashModel(), always(6)).propose(rows)
    for row, draft in zip(rows, together, strict=True):
        alone = ModelDrafter(HashModel(), always(6), step_tokens=3).propose([row])[0]
        assert np.array_equal(draft, alone) and len(draft) == 6


def test_what_was_computed_is_not_computed_again():
    model = HashModel()
    drafter = ModelDrafter(model, always(4))
    tokens = [3, 1, 4, 1, 5]
    (draft,) = drafter.propose([asked(0, tokens)])
    assert model.computed == 5 + 3
    drafter.judged(0, 4, 4)
    drafter.propose([asked(0, [*tokens, *draft, 8])])
    assert model.computed == 8 + 2 + 3, "the last draft and the target's own token were missing"
    drafter.judged(0, 4, 1)
    drafter.propose([asked(0, [*tokens, *draft[:2], 9])])
    assert model.computed == 13 + 1 + 3, "after a rejection the common beginning stays"


def test_blocks_are_given_back_when_rows_end():
    drafter = ModelDrafter(HashModel(), always(4))
    for key in range(50):
        drafter.propose([asked(key, range(40)), asked(1000 + key, [1, 2])])
        drafter.forget(key)
        drafter.forget(1000 + key)
    pool = drafter._cache.pool
    pool.check([])
    assert pool.blocks < 20
    drafter.forget(77)


def test_drafts_stop_at_end_tokens_doubt_and_what_can_be_used():
    model, prompt = HashModel(), [3, 1, 4]
    (whole,) = ModelDrafter(model, always(9)).propose([asked(0, prompt)])
    (ended,) = ModelDrafter(model, always(9, eos=frozenset({int(whole[3])}))).propose([asked(0, prompt)])
    assert ended.tolist() == whole[: whole.tolist().index(whole[3]) + 1].tolist()
    (short,) = ModelDrafter(model, always(9)).propose([asked(0, prompt, most=2)])
    assert short.tolist() == whole[:2].tolist()
    (none,) = ModelDrafter(model, always(9)).propose([asked(0, prompt, most=0)])
    assert none.tolist() == []
    (unsure,) = ModelDrafter(model, DraftLimits(DraftLength(9), confidence=0.9)).propose([asked(0, prompt)])
    assert unsure.tolist() == whole[:1].tolist(), "a token below the threshold is the draft's last"
    (near,) = ModelDrafter(model, always(9, context=5)).propose([asked(0, prompt)])
    assert near.tolist() == whole[:2].tolist()


def test_ids_that_only_one_of_the_models_knows_are_not_drafted():
    model, prompt = HashModel(60), [3, 1, 4]
    only = LogitsProcessorList([SuppressTokensLogitsProcessor(range(50))])
    (draft,) = ModelDrafter(model, always(5, vocabulary=50)).propose([asked(0, prompt, processors=only)])
    assert draft.tolist() == []
    (other,) = ModelDrafter(model, always(5, own_vocabulary=60)).propose([asked(0, [70, 1])])
    assert other.tolist() == []


def test_a_row_that_begins_with_nothing_that_may_be_seen_gets_no_draft():
    drafter = ModelDrafter(HashModel(), always(3))
    nothing, three = drafter.propose([asked(0, []), asked(1, [5, 6])])
    assert not len(nothing) and len(three) == 3
    assert len(drafter.propose([asked(0, [7]), asked(1, [5, 6])])[0]) == 3


def test_lengths_follow_the_schedule():
    counted = {"constant": [], "heuristic": [], "heuristic_transient": []}
    for schedule, lengths in counted.items():
        learnt = []
        limits = DraftLimits(DraftLength(3, schedule), confidence=None)
        drafter = ModelDrafter(HashModel(), limits, learnt=learnt.append)
        for kept in (3, 5, 2, 0):
            (draft,) = drafter.propose([asked(0, [1, 2], most=50)])
            lengths.append(len(draft))
            drafter.judged(0, len(draft), kept)
        drafter.forget(0)
        assert learnt == ([5] if schedule == "heuristic" else [])
    assert counted["constant"] == [3, 3, 3, 3]
    assert counted["heuristic"] == counted["heuristic_transient"] == [3, 5, 7, 6]


def test_the_heuristic_never_goes_below_one_and_skips_what_was_not_drafted():
    length = DraftLength(1, "heuristic")
    assert length.after(1, 1, 0) == 1
    assert length.after(4, 0, 0) == 4


@pytest.mark.parametrize("given", [{"number": 0}, {"schedule": "daily"}])
def test_lengths_that_make_no_sense_are_refused(given):
    with pytest.raises(ArgumentError, match="num_assistant_tokens"):
        DraftLength(**given)


def test_without_memory_there_are_shorter_drafts_and_no_error():
    class Small(HashModel):
        def new_cache(self, blocks):
            storage = super().new_cache(blocks)

            def refuse(blocks):
                raise OutOfMemoryError("no more")

            storage.grow = refuse
            return storage

    drafter = ModelDrafter(Small(), always(5))
    long, short = drafter.propose([asked(0, range(33)), asked(1, [1, 2], most=3)])
    assert (len(long), len(short)) == (5, 3)
    assert [len(draft) for draft in drafter.propose([asked(2, list(range(45)) * 3), asked(0, range(34))])] == [0, 0]
    drafter.forget(0), drafter.forget(1), drafter.forget(2)
    drafter._cache.pool.check([])


def test_early_exit_drafts_with_the_first_layers_only():
    model = small_model("llama")
    drafter = ModelDrafter(EarlyExit(model, 1), always(3))
    (draft,) = drafter.propose([asked(0, [3, 1, 4, 1, 5])])
    (whole,) = ModelDrafter(model, always(3)).propose([asked(0, [3, 1, 4, 1, 5])])
    (same,) = ModelDrafter(EarlyExit(model, 2), always(3)).propose([asked(0, [3, 1, 4, 1, 5])])
    assert same.tolist() == whole.tolist() != draft.tolist()
    expected, _ = run_strategy(model, [[3, 1, 4, 1, 5]], 12)
    rows, _, _ = run_drafted(model, [[3, 1, 4, 1, 5]], 12, drafter)
    assert rows == expected
