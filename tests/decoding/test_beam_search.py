"""Beam search gives what transformers' gives: the same texts, scores, beams and number of steps."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from fabula import processors as p
from fabula.decoding.beam_rows import Ranking
from fabula.decoding.beam_search import BeamSearch
from fabula.errors import NumericalError
from tests.decoding.searching import drive, logits_by, tiny_model

transformers = pytest.importorskip("transformers")

TIE = 1e-4  # where two scores are nearer than this, either may come first


@pytest.fixture(scope="module")
def models():
    return [tiny_model(0, 40, 0.5), tiny_model(1, 12, 0.3)]


def reference(model, prompt, **settings):
    """What transformers generates, with everything about its beams."""
    return model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )


def some_case(seed: int, vocabulary: int) -> dict:
    """A random configuration of beam search, as generate() of transformers takes it."""
    draw = random.Random(seed)
    beams = draw.randint(2, 5)
    eos = draw.sample(range(vocabulary), draw.choice([0, 1, 1, 2, 3]))
    case = {
        "num_beams": beams,
        "num_return_sequences": draw.randint(1, beams),
        "max_new_tokens": draw.randint(1, 10),
        "length_penalty": draw.choice([1.0, 0.0, -0.5, 2.0, 0.7]),
        "early_stopping": draw.choice([True, False, "never"]),
        "eos_token_id": eos or None,
        "repetition_penalty": draw.choice([1.0, 1.3]),
        "no_repeat_ngram_size": draw.choice([0, 2]),
        "min_new_tokens": draw.choice([None, 1]) if eos else None,
        "renormalize_logits": draw.choice([False, True]),
    }
    return {"prompt": [draw.randrange(vocabulary) for _ in range(draw.randint(1, 6))], **case}


def processors_of(case: dict) -> list:
    chain = []
    if case["repetition_penalty"] != 1:
        chain.append(p.RepetitionPenaltyLogitsProcessor(case["repetition_penalty"]))
    if case["no_repeat_ngram_size"]:
        chain.append(p.NoRepeatNGramLogitsProcessor(case["no_repeat_ngram_size"]))
    if case["min_new_tokens"]:
        least, eos = case["min_new_tokens"], case["eos_token_id"]
        chain.append(p.MinNewTokensLengthLogitsProcessor(len(case["prompt"]), least, eos))
    return [*chain, p.LogitNormalization()] if case["renormalize_logits"] else chain


def search_by(case: dict) -> BeamSearch:
    return BeamSearch(
        num_beams=case["num_beams"],
        results=case["num_return_sequences"],
        ranking=Ranking(case["length_penalty"], case["early_stopping"], case["max_new_tokens"]),
        end_tokens=len(case["eos_token_id"] or ()),
    )


def excused(driven) -> bool:
    """Whether the search had a tie: two candidates' scores that rounding may order either way."""
    for move, before in zip(driven.moves, [None, *driven.moves], strict=False):
        running = np.zeros(1) if before is None else before.carry.beams.scores
        totals = np.sort((running[:, None] + move.scores.numpy()[: len(running)]).ravel())[::-1]
        near = totals[: 4 * len(running) + 4]
        if (np.diff(near[near > -1e6]) > -TIE).any():
            return True
    return False


@pytest.mark.parametrize("seed", range(40))
def test_beam_search_equals_transformers(models, seed):
    model = models[seed % 2]
    case = some_case(seed, model.config.vocab_size)
    theirs = reference(model, do_sample=False, **case)
    prompt, width = case["prompt"], case["num_return_sequences"]
    driven = drive(
        search_by(case),
        logits_by(model),
        prompt,
        max_new=case["max_new_tokens"],
        eos=case["eos_token_id"] or (),
        processors=processors_of(case),
    )
    if not _equal(driven, theirs, len(prompt)):
        assert excused(driven), f"differs without a tie: {case}"
        print(f"excused, a tie: {case}")
        return
    assert len(driven.results) == width
    assert len(driven.moves) == len(theirs.scores)
    for move, scores in zip(driven.moves, theirs.scores, strict=True):
        torch.testing.assert_close(move.scores, scores, atol=1e-4, rtol=1e-5)


def _equal(driven, theirs, prompt: int) -> bool:
    for index, one in enumerate(driven.results):
        length = int((theirs.beam_indices[index] >= 0).sum())
        if float(theirs.sequences_scores[index]) < -1e6:
            continue  # a place that nothing filled
        if theirs.sequences[index, prompt : prompt + length].tolist() != one.tokens.tolist():
            return False
        if theirs.beam_indices[index, :length].tolist() != one.rows.tolist():
            return False
        if abs(one.score - float(theirs.sequences_scores[index])) > TIE:
            return False
    return True


@pytest.mark.parametrize("seed", range(8))
def test_any_limit_ends_a_candidate_as_in_transformers(models, seed):
    model = models[0]

    def stops(row: list[int]) -> bool:
        return len(row) > 5 and sum(row[-2:]) % 5 == 0

    class Stops(transformers.StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.tensor([stops(row) for row in input_ids.tolist()])

    case = {**some_case(seed, 40), "max_new_tokens": 12}
    theirs = reference(model, do_sample=False, stopping_criteria=[Stops()], **case)
    driven = drive(
        search_by(case),
        logits_by(model),
        case["prompt"],
        max_new=12,
        eos=case["eos_token_id"] or (),
        processors=processors_of(case),
        stops=stops,
    )
    assert _equal(driven, theirs, len(case["prompt"])) or excused(driven)


@pytest.mark.parametrize("seed", range(20))
def test_settled_tokens_begin_every_result(models, seed):
    case = {**some_case(seed, 40), "max_new_tokens": 15}
    driven = drive(search_by(case), logits_by(models[0]), case["prompt"], max_new=15, eos=case["eos_token_id"] or ())
    settled = driven.settled
    for one in driven.results:
        assert one.tokens[: len(settled)].tolist() == settled


def test_settled_tokens_come_before_the_end(models):
    driven = drive(BeamSearch(2), logits_by(models[0]), [3, 1], max_new=24)
    assert len(driven.settled) > 8


def test_results_and_their_beams_add_up_to_their_score(models):
    case = some_case(4, 40)
    driven = drive(search_by(case), logits_by(models[0]), case["prompt"], max_new=case["max_new_tokens"])
    for one in driven.results:
        steps = [
            float(move.scores[row, token]) for move, row, token in zip(driven.moves, one.rows, one.tokens, strict=False)
        ]
        assert sum(steps) / len(steps) ** case["length_penalty"] == pytest.approx(one.score, abs=1e-4)


def test_a_vocabulary_smaller_than_the_beams_still_fills_them():
    table = torch.log(torch.tensor([0.6, 0.4]))
    driven = drive(BeamSearch(4, results=4), lambda rows: table.expand(len(rows), 2), [0], max_new=3)
    assert driven.results[0].tokens.tolist() == [0, 0, 0]
    assert len(driven.results) == 4
    assert len({tuple(one.tokens.tolist()) for one in driven.results}) == 4


def test_one_allowed_token_a_step_gives_that_text_in_every_place():
    path = [2, 0, 1]

    def only(rows):
        scores = torch.full((len(rows), 3), -torch.inf)
        scores[:, path[rows.shape[1] - 1]] = 0.0
        return scores

    driven = drive(BeamSearch(3, results=3), only, [0], max_new=3)
    assert [one.tokens.tolist() for one in driven.results] == [path] * 3
    assert driven.results[0].score == 0.0


@pytest.mark.parametrize("sampled", [None, 5])
@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_scores_without_a_number_are_refused(value, sampled):
    def broken(rows):
        scores = torch.zeros((len(rows), 5))
        return torch.full_like(scores, value) if rows.shape[1] == 3 else scores

    with pytest.raises(NumericalError, match="finite"):
        drive(BeamSearch(2), broken, [0], max_new=5, seed=sampled)


def test_a_nan_in_one_beam_is_not_hidden_by_the_others():
    def broken(rows):
        scores = torch.arange(6.0).expand(len(rows), 6).clone()
        if len(rows) > 1:
            scores[1] = torch.nan
        return scores

    for seed in (None, 5):
        with pytest.raises(NumericalError, match="NaN"):
            drive(BeamSearch(2), broken, [0], max_new=5, seed=seed)
