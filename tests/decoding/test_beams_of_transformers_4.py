"""Diverse and constrained beam search give what transformers 4.55 gives: the modes that left transformers 5."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fabula import processors as p
from fabula.decoding.beam_rows import Ranking
from fabula.decoding.constrained_beams import ConstrainedBeamSearch
from fabula.decoding.constraints import constraints_of
from fabula.decoding.diverse_beams import DiverseBeamSearch
from tests.decoding.beam_tables import table_logits
from tests.decoding.searching import drive

REFERENCES = json.loads((Path(__file__).parent / "beams_of_transformers_4.json").read_text(encoding="utf-8"))


def driven(case, search):
    settings, eos = case["settings"], case["settings"].get("eos_token_id", ())
    chain = []
    if "repetition_penalty" in settings:
        chain.append(p.RepetitionPenaltyLogitsProcessor(settings["repetition_penalty"]))
    if "no_repeat_ngram_size" in settings:
        chain.append(p.NoRepeatNGramLogitsProcessor(settings["no_repeat_ngram_size"]))
    if "min_new_tokens" in settings:
        chain.append(p.MinNewTokensLengthLogitsProcessor(len(case["prompt"]), settings["min_new_tokens"], eos))
    logits = table_logits(case["table"], case["vocabulary"])
    return drive(search, logits, case["prompt"], max_new=settings["max_new_tokens"], eos=eos, processors=chain)


def ranking_of(settings):
    return Ranking(settings["length_penalty"], settings["early_stopping"], settings["max_new_tokens"])


def check(case, done):
    """Same texts, scores and number of steps; the scores of the steps add up along the beams."""
    eos = case["settings"].get("eos_token_id")
    assert len(done.moves) == case["steps"]
    for one, theirs, score in zip(done.results, case["sequences"], case["scores"], strict=True):
        text = one.tokens.tolist()
        if one.reason == "stop":
            text[-1] = eos[0]  # there every text ends with the first end token, whichever ended it
        assert theirs == text + [case["padding"]] * (len(theirs) - len(text))
        assert one.score == pytest.approx(score, abs=1e-4)
        steps = zip(done.moves, one.rows, one.tokens, strict=False)
        total = sum(float(move.scores[row, token]) for move, row, token in steps)
        assert total / len(text) ** case["settings"]["length_penalty"] == pytest.approx(one.score, abs=1e-3)
    settled = done.settled
    assert all(one.tokens[: len(settled)].tolist() == settled for one in done.results)


@pytest.mark.parametrize("case", REFERENCES["groups"], ids=range(len(REFERENCES["groups"])))
def test_diverse_beam_search_equals_transformers_4(case):
    settings = case["settings"]
    search = DiverseBeamSearch(
        num_beams=settings["num_beams"],
        num_beam_groups=settings["num_beam_groups"],
        diversity_penalty=settings["diversity_penalty"],
        results=settings["num_return_sequences"],
        ranking=ranking_of(settings),
        end_tokens=len(settings.get("eos_token_id", ())),
        padding=case["padding"],
    )
    check(case, driven(case, search))


@pytest.mark.parametrize("case", REFERENCES["forced"], ids=range(len(REFERENCES["forced"])))
def test_constrained_beam_search_equals_transformers_4(case):
    settings = case["settings"]
    search = ConstrainedBeamSearch(
        num_beams=settings["num_beams"],
        constraints=constraints_of(None, settings["force_words_ids"]),
        results=settings["num_return_sequences"],
        ranking=ranking_of(settings),
        end_tokens=len(settings.get("eos_token_id", ())),
    )
    check(case, driven(case, search))


def constrained(*phrases):
    return ConstrainedBeamSearch(3, constraints_of(None, list(phrases)))


def test_a_text_that_ends_before_its_phrase_is_no_result():
    logits = table_logits(0, 16)
    done = drive(constrained([11, 4]), logits, [3], max_new=12, eos=[1, 2])
    assert "11 4" in " ".join(map(str, done.results[0].tokens))


def test_a_token_that_the_processors_rule_out_is_not_forced():
    banned = p.SuppressTokensLogitsProcessor([11])
    done = drive(constrained([11]), table_logits(0, 16), [3], max_new=6, processors=[banned])
    assert all(11 not in one.tokens for one in done.results)
    assert done.results[0].score > -1e3


def test_a_phrase_in_the_prompt_counts():
    met = drive(constrained([7, 3]), table_logits(0, 16), [7, 3], max_new=6)
    free = drive(ConstrainedBeamSearch(3, ()), table_logits(0, 16), [7, 3], max_new=6)
    unmet = drive(constrained([3, 7]), table_logits(0, 16), [7, 3], max_new=6)
    assert met.results[0].tokens.tolist() == free.results[0].tokens.tolist()
    assert met.results[0].tokens.tolist() != unmet.results[0].tokens.tolist()


def test_when_every_candidate_ends_there_is_still_a_result():
    done = drive(constrained([11]), table_logits(0, 16), [3], max_new=6, eos=list(range(16)))
    assert len(done.results) == 1
    assert done.results[0].reason == "stop"


def test_groups_without_a_penalty_are_alike_and_with_one_are_not():
    alike = drive(DiverseBeamSearch(2, 2, 0.0, results=2), table_logits(1, 16), [3], max_new=5)
    apart = drive(DiverseBeamSearch(2, 2, 9.0, results=2), table_logits(1, 16), [3], max_new=5)
    assert alike.results[0].tokens.tolist() == alike.results[1].tokens.tolist()
    assert not (apart.results[0].tokens == apart.results[1].tokens).any()
