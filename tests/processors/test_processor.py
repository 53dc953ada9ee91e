"""A processor may be written either way, and both ways of calling it work; bad arguments are refused with advice."""

from __future__ import annotations

import numpy as np
import pytest

from fabula import processors as p
from fabula.context import Context
from fabula.errors import ArgumentError, NotSupportedError
from fabula.processors.processor import apply


class Classic(p.LogitsProcessor):
    """As one writes it for transformers: bans the row's last token."""

    def __call__(self, input_ids, scores):
        scores = scores.clone() if hasattr(scores, "clone") else scores.copy()
        for row, tokens in enumerate(input_ids):
            scores[row, tokens[-1]] = -float("inf")
        return scores


class Modern(p.LogitsProcessor):
    """The same over ragged rows."""

    def process(self, scores, context):
        for row, length in enumerate(context.lengths):
            scores = scores * 1
            scores[row, int(context.tokens[row, length - 1])] = -float("inf")
        return scores


def ragged(xp):
    tokens = np.array([[5, 1, 2, 77], [3, 77, 77, 77]], dtype=np.int32)
    lengths = np.array([3, 1], dtype=np.int32)
    context = Context(*(xp.asarray(part, "int32") for part in (tokens, lengths, lengths)), padding=9)
    return xp.zeros((2, 10), "float32"), context


IN_PLACE = pytest.mark.parametrize("xp", ["numpy", "torch"], indirect=True)  # their arrays can be written to


@IN_PLACE
@pytest.mark.parametrize("kind", [Classic, Modern])
def test_either_way_of_writing_works_on_ragged_rows(xp, kind):
    scores, context = ragged(xp)
    got = xp.to_host(kind().process(scores, context))
    assert np.argwhere(np.isneginf(got)).tolist() == [[0, 2], [1, 3]]


@IN_PLACE
@pytest.mark.parametrize("kind", [Classic, Modern])
def test_either_way_of_writing_works_with_the_signature_of_transformers(xp, kind):
    got = kind()(xp.asarray([[1, 4], [1, 6]], "int64"), xp.zeros((2, 10), "float32"))
    assert np.argwhere(np.isneginf(xp.to_host(got))).tolist() == [[0, 4], [1, 6]]


@IN_PLACE
def test_what_is_written_for_transformers_sees_rows_padded_on_the_left(xp):
    given = []
    scores, context = ragged(xp)
    apply(lambda input_ids, scores: given.append(input_ids) or scores, scores, context)
    assert xp.to_host(given[0]).tolist() == [[5, 1, 2], [9, 9, 3]]
    assert xp.to_host(given[0]).dtype == np.int64


def test_overriding_call_in_a_subclass_of_a_processor_takes_effect_everywhere(xp):
    class Doubled(p.TemperatureLogitsWarper):
        def __call__(self, input_ids, scores):
            return super().__call__(input_ids, scores) * 2

    scores, context = ragged(xp)
    scores = scores + 3
    got = Doubled(0.5).process(scores, context)
    assert np.array_equal(xp.to_host(got), np.full((2, 10), 12.0))


def test_a_processor_of_transformers_works_in_our_lists():
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("transformers")
    tokens = torch.tensor([[1, 2]], dtype=torch.int32)
    lengths = torch.tensor([2], dtype=torch.int32)
    processors = p.LogitsProcessorList([theirs.TopKLogitsWarper(2), p.TemperatureLogitsWarper(2.0)])
    got = processors.process(torch.tensor([[1.0, 4.0, 6.0]]), Context(tokens, lengths, lengths))
    assert got.tolist() == [[-float("inf"), 2.0, 3.0]]


def test_a_processor_that_overrides_neither_says_so(xp):
    scores, context = ragged(xp)
    with pytest.raises(NotSupportedError, match="must override"):
        p.LogitsProcessor().process(scores, context)
    with pytest.raises(NotSupportedError, match="must override"):
        p.LogitsProcessor()(xp.asarray([[1]], "int64"), scores)


def test_a_list_passes_further_arguments_to_those_that_ask_for_them():
    def biased(input_ids, scores, bias):
        return scores + bias

    chain = p.LogitsProcessorList([p.TemperatureLogitsWarper(2), biased])
    assert chain(np.array([[1]]), np.array([[2.0]]), bias=5)[0, 0] == 6.0
    with pytest.raises(ArgumentError, match="bias"):
        chain(np.array([[1]]), np.array([[2.0]]))


def test_a_list_passes_further_arguments_to_classes_that_ask_for_them():
    class Shifted(p.LogitsProcessor):
        def __call__(self, input_ids, scores, shift):
            return scores + shift

    ids, scores = np.array([[1, 2]]), np.zeros((1, 4), np.float32)
    assert (p.LogitsProcessorList([Shifted(), p.TopKLogitsWarper(4)])(ids, scores, shift=2.0) == 2.0).all()
    with pytest.raises(ArgumentError, match="`shift` must be passed for Shifted"):
        p.LogitsProcessorList([Shifted()])(ids, scores)


def test_a_given_seen_mask_is_used(xp):
    scores, context = ragged(xp)
    seen = xp.asarray(np.eye(2, 10, dtype=bool), "bool")
    context = Context(context.tokens, context.lengths, context.prompt_lengths, seen=seen)
    got = xp.to_host(p.RepetitionPenaltyLogitsProcessor(2.0).process(scores + 4, context))
    assert np.argwhere(got == 2.0).tolist() == [[0, 0], [1, 1]]


REFUSED = [
    (p.TemperatureLogitsWarper, (0,), "temperature", "do_sample=False"),
    (p.TemperatureLogitsWarper, (-1.0,), "temperature", "-1.0"),
    (p.TemperatureLogitsWarper, (float("nan"),), "temperature", "nan"),
    (p.TemperatureLogitsWarper, ("warm",), "temperature", "warm"),
    (p.TopKLogitsWarper, (0,), "top_k", "got 0"),
    (p.TopKLogitsWarper, (2.5,), "top_k", "2.5"),
    (p.TopPLogitsWarper, (1.5,), "top_p", r"\[0, 1\]"),
    (p.TopPLogitsWarper, (0.5, -9.0, 0), "min_tokens_to_keep", "got 0"),
    (p.MinPLogitsWarper, (-0.1,), "min_p", "-0.1"),
    (p.TopHLogitsWarper, (0,), "top_h", r"\(0, 1\]"),
    (p.TypicalLogitsWarper, (1,), "typical_p", r"\(0, 1\)"),
    (p.EpsilonLogitsWarper, (0,), "epsilon_cutoff", "got 0"),
    (p.EtaLogitsWarper, (1.0,), "eta_cutoff", "got 1.0"),
    (p.RepetitionPenaltyLogitsProcessor, (0.0,), "penalty", "got 0.0"),
    (p.RepetitionPenaltyLogitsProcessor, (1.1, -1), "prompt_ignore_length", "-1"),
    (p.NoRepeatNGramLogitsProcessor, (0,), "ngram_size", "got 0"),
    (p.MinLengthLogitsProcessor, (-1, 2), "min_length", "-1"),
    (p.MinLengthLogitsProcessor, (1, [2.5]), "eos_token_id", "2.5"),
    (p.ForcedEOSTokenLogitsProcessor, (3, -4), "eos_token_id", "-4"),
    (p.SequenceBiasLogitsProcessor, ({},), "sequence_bias", "non-empty"),
    (p.SequenceBiasLogitsProcessor, ({(1,): "much"},), "sequence_bias", "much"),
    (p.SequenceBiasLogitsProcessor, ([[1, 2.0]],), "sequence_bias", "list of token ids"),
    (p.NoBadWordsLogitsProcessor, ([],), "bad_words_ids", "list of lists"),
    (p.NoBadWordsLogitsProcessor, ([[]],), "bad_words_ids", "list of token ids"),
]


@pytest.mark.parametrize(("kind", "arguments", "name", "detail"), REFUSED)
def test_bad_arguments_are_refused_by_name_with_what_was_got(kind, arguments, name, detail):
    with pytest.raises(ArgumentError, match=f"{name}.* must .*{detail}|{name}.*{detail}"):
        kind(*arguments)


@pytest.mark.parametrize("temperature", [2, np.float32(0.5), np.int64(3)])
def test_any_number_is_a_temperature(temperature):
    assert p.TemperatureLogitsWarper(temperature).temperature == float(temperature)


def test_a_bias_on_a_token_outside_the_vocabulary_is_refused():
    with pytest.raises(ArgumentError, match=r"sequence_bias.*12"):
        p.SequenceBiasLogitsProcessor({(12,): 1.0})(np.array([[1]]), np.zeros((1, 10), dtype=np.float32))


def test_a_constraint_that_allows_nothing_is_refused():
    with pytest.raises(ArgumentError, match="prefix_allowed_tokens_fn"):
        p.PrefixConstrainedLogitsProcessor(lambda batch, ids: [], 1)(np.array([[1]]), np.zeros((1, 4), np.float32))
