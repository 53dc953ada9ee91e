"""In a batch of ragged rows with processors of their own, each row's scores are those of transformers for it alone."""

from __future__ import annotations

import numpy as np
import pytest

from fabula import arrays
from fabula import processors as ours
from fabula.context import Context
from fabula.processors.rows import stack

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("transformers").generation.logits_process

INFINITY = float("inf")
SHORT = 12  # tokens occur among the first few ids, so that they repeat


def allowed(batch, tokens):
    return [1, 2, 3, *range(10, 40), int(tokens[-1])]


class Louder:
    """A processor of a caller's, written for transformers."""

    def __init__(self, size):
        self.size = size

    def __call__(self, input_ids, scores):
        return scores + arrays.of(scores).where(input_ids[:, -1:] % 2 == 1, self.size, 0.0)


# in transformers' order: name, the arguments of a row of `length` tokens whose prompt is `encoder`, by a random number
TABLE = [
    (
        "SequenceBiasLogitsProcessor",
        lambda u, length, encoder: [{(3,): -1.5, (2, 3): 4 * u, (1, 5): 2.0}],
    ),
    ("SequenceBiasLogitsProcessor", lambda u, length, encoder: [[[[1], 1.0], [[4, 4], u], [[1] * 9, 1.0]]]),
    ("EncoderRepetitionPenaltyLogitsProcessor", lambda u, length, encoder: [0.5 + u, encoder]),
    ("RepetitionPenaltyLogitsProcessor", lambda u, length, encoder: [0.8 + u]),
    ("RepetitionPenaltyLogitsProcessor", lambda u, length, encoder: [1.8 - u, int(4 * u)]),
    ("NoRepeatNGramLogitsProcessor", lambda u, length, encoder: [1 + int(3 * u)]),
    ("EncoderNoRepeatNGramLogitsProcessor", lambda u, length, encoder: [1 + int(2 * u), encoder]),
    ("NoBadWordsLogitsProcessor", lambda u, length, encoder: [[[3], [2, int(9 * u)], [5, 6, 7]], [3]]),
    ("MinLengthLogitsProcessor", lambda u, length, encoder: [int(30 * u), [3, 49]]),
    ("MinNewTokensLengthLogitsProcessor", lambda u, length, encoder: [int(9 * u), 4, 3]),
    ("PrefixConstrainedLogitsProcessor", lambda u, length, encoder: [allowed, 1]),
    ("ForcedBOSTokenLogitsProcessor", lambda u, length, encoder: [int(40 * u)]),
    ("ForcedEOSTokenLogitsProcessor", lambda u, length, encoder: [length + 1 + (u > 0.3), [3, 4]]),
    ("InfNanRemoveLogitsProcessor", lambda u, length, encoder: []),
    ("ExponentialDecayLengthPenalty", lambda u, length, encoder: [(int(4 * u), 1 + u), [3, 7], 2]),
    ("SuppressTokensLogitsProcessor", lambda u, length, encoder: [[0, int(40 * u)]]),
    ("SuppressTokensAtBeginLogitsProcessor", lambda u, length, encoder: [[0, 9], length + (u > 0.5)]),
    (Louder, lambda u, length, encoder: [u]),
    ("TemperatureLogitsWarper", lambda u, length, encoder: [0.3 + u]),
    ("TopHLogitsWarper", lambda u, length, encoder: [0.2 + 0.8 * u]),
    ("TopKLogitsWarper", lambda u, length, encoder: [1 + int(60 * u)]),
    ("TopPLogitsWarper", lambda u, length, encoder: [0.999 * u]),
    ("MinPLogitsWarper", lambda u, length, encoder: [u / 3]),
    ("TypicalLogitsWarper", lambda u, length, encoder: [0.05 + 0.9 * u]),
    ("EpsilonLogitsWarper", lambda u, length, encoder: [0.001 + u / 50]),
    ("EtaLogitsWarper", lambda u, length, encoder: [0.001 + u / 50]),
    ("LogitNormalization", lambda u, length, encoder: []),
]


def both(kind, arguments):
    """The same processor twice: ours, and the reference."""
    if not isinstance(kind, str):
        return kind(*arguments), kind(*arguments)
    reference = [torch.tensor(part) if isinstance(part, np.ndarray) else part for part in arguments]
    return getattr(ours, kind)(*arguments), getattr(theirs, kind)(*reference)


def ragged(xp, tokens):
    """The context of rows, rubbish beyond them."""
    matrix = np.full((len(tokens), max(map(len, tokens)) + 3), 48, np.int32)
    for row, ids in zip(matrix, tokens, strict=True):
        row[: len(ids)] = ids
    lengths = np.array([len(ids) for ids in tokens], np.int32)
    return Context(*(xp.asarray(part, "int32") for part in (matrix, lengths, np.maximum(lengths - 2, 1))))


def recipes_for(generator, tokens, chosen):
    """For each row a list of processors and the same of the reference; `chosen` says which lines of the table."""
    mine, reference = [], []
    for row, ids in enumerate(tokens):
        pairs = [
            both(kind, arguments(generator.random(), len(ids), ids[None, : max(1, len(ids) // 2)]))
            for kind, arguments in (TABLE[line] for line in chosen(row))
        ]
        mine.append(ours.LogitsProcessorList([pair[0] for pair in pairs]))
        reference.append(theirs.LogitsProcessorList([pair[1] for pair in pairs]))
    return mine, reference


def assert_rows_equal(xp, generator, vocabulary, chosen, rows=5):
    tokens = [generator.integers(0, SHORT, length) for length in generator.integers(1, 15, rows)]
    scores = generator.normal(0, 3, (rows, vocabulary)).astype(np.float32)
    mine, reference = recipes_for(generator, tokens, chosen)
    got = xp.to_host(stack(mine)(xp.asarray(scores.copy(), "float32"), ragged(xp, tokens)))
    for row, ids in enumerate(tokens):
        expected = reference[row](torch.tensor(ids[None]), torch.tensor(scores[row : row + 1]))[0].numpy()
        if np.isnan(expected).any():
            continue  # everything was forbidden before
        assert np.array_equal(np.isneginf(got[row]), np.isneginf(expected)), (row, mine[row])
        finite = np.isfinite(expected)
        np.testing.assert_allclose(got[row][finite], expected[finite], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("vocabulary", [50, 3000])
@pytest.mark.parametrize(
    "line", range(len(TABLE)), ids=[f"{i}-{getattr(t[0], '__name__', t[0])}" for i, t in enumerate(TABLE)]
)
def test_every_row_of_one_kind_equals_transformers(xp, line, vocabulary):
    for seed in range(3):
        assert_rows_equal(xp, np.random.default_rng(seed), vocabulary, lambda row: [line])


@pytest.mark.parametrize("vocabulary", [50, 3000])
@pytest.mark.parametrize("seed", range(25))
def test_every_row_of_a_mixed_batch_equals_transformers(xp, seed, vocabulary):
    generator = np.random.default_rng(seed)

    def some(row):
        return sorted(generator.choice(len(TABLE), generator.integers(0, 7), replace=False))

    assert_rows_equal(xp, generator, vocabulary, some, rows=6)


def test_the_table_holds_every_public_processor():
    beside = {
        "LogitsProcessor",
        "LogitsProcessorList",
        "ClassifierFreeGuidanceLogitsProcessor",  # test_guidance.py
        "UnbatchedClassifierFreeGuidanceLogitsProcessor",
        "HammingDiversityLogitsProcessor",  # no longer in transformers
    }
    assert {kind for kind, _ in TABLE if isinstance(kind, str)} | beside >= set(ours.__all__)


AUDIO = {"AlternatingCodebooks", "BarkEos", "Dia", "Whisper"}
ELSEWHERE = {"WatermarkLogitsProcessor", "SynthIDTextWatermarkLogitsProcessor"}  # fabula.watermark


def test_no_processor_of_transformers_is_missing():
    named = {
        name
        for name, value in vars(theirs).items()
        if isinstance(value, type) and issubclass(value, theirs.LogitsProcessor) and not name.startswith(tuple(AUDIO))
    }
    assert named - ELSEWHERE <= set(ours.__all__)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
@pytest.mark.parametrize(
    "line", [i for i, (kind, _) in enumerate(TABLE) if kind not in (Louder, "InfNanRemoveLogitsProcessor")]
)
def test_scores_keep_their_type(line, dtype):
    generator = np.random.default_rng(line)
    ids = generator.integers(0, SHORT, 9)
    kind, arguments = TABLE[line]
    mine, reference = both(kind, arguments(generator.random(), len(ids), ids[None, :4]))
    scores = torch.tensor(generator.normal(0, 3, (1, 50)), dtype=getattr(torch, dtype))
    expected, got = (processor(torch.tensor(ids[None]), scores) for processor in (reference, mine))
    assert got.dtype == expected.dtype == scores.dtype
    loose = {"float16": 2e-3, "bfloat16": 2e-2}.get(dtype, 1e-5)
    if dtype in ("float32", "float64"):
        assert torch.equal(torch.isneginf(got), torch.isneginf(expected))
    both_finite = torch.isfinite(got) & torch.isfinite(expected)
    torch.testing.assert_close(got[both_finite], expected[both_finite], rtol=loose, atol=loose)
