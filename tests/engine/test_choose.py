"""The backend's sampler and the array functions choose the same tokens for the same rows."""

import numpy as np
import pytest

from fabula.cache.blocks import BlockPool
from fabula.decoding.plain_rows import plain_numbers
from fabula.decoding.recipe import Limits, Recipe, Record
from fabula.engine.choose import Chooser
from fabula.engine.group import Group
from fabula.engine.request import Request
from fabula.errors import NumericalError
from fabula.kernels.compiled import ThreadPool
from fabula.kernels.library import load_library
from fabula.kernels.sampling import sample_tokens
from fabula.ops.protocol import Forward
from fabula.processors import (
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

CHAINS = [
    ([], False),
    ([], True),
    ([RepetitionPenaltyLogitsProcessor(1.4)], False),
    ([TemperatureLogitsWarper(0.7), TopKLogitsWarper(50)], True),
    ([TopKLogitsWarper(7), TopPLogitsWarper(0.8)], True),
    ([RepetitionPenaltyLogitsProcessor(1.2), TemperatureLogitsWarper(1.3), TopPLogitsWarper(0.95)], True),
    ([MinPLogitsWarper(0.05)], True),
]


@pytest.fixture(scope="module")
def sampler():
    library = load_library()
    if library is None:
        pytest.skip("the kernels are not built")
    pool = ThreadPool(library, 2)
    return lambda logits, rows: sample_tokens(pool, logits, rows)


def rows_of(chains, count=24, vocabulary=2000):
    pool, random, rows = BlockPool(1), np.random.default_rng(5), []
    for index in range(count):
        processors, sampled = chains[index % len(chains)]
        prompt = random.integers(0, vocabulary, 1 + 3 * index, np.int32)
        recipe = Recipe(LogitsProcessorList(processors), Limits(500), sampled)
        rows.append(Group(Request(prompt, recipe, sink=None, seed=index * 2**40, stream=index), 0, pool))
    return rows, random.standard_normal((count, vocabulary)).astype(np.float32) * 3


def tokens_of(chooser, groups, logits):
    """The token of each group's row, whose logits lie in their order."""
    spans = {id(group.rows[0]): (place, place + 1) for place, group in enumerate(groups)}

    def fail(request, error):
        raise error

    return [steps[0].token for _, steps, _ in chooser.choose(groups, Forward(logits), spans, None, fail)]


@pytest.mark.parametrize("chain", [*([one] for one in CHAINS), CHAINS], ids=range(len(CHAINS) + 1))
def test_the_sampler_chooses_what_the_array_functions_choose(sampler, chain):
    rows, logits = rows_of(chain)
    assert tokens_of(Chooser(sampler), rows, logits) == tokens_of(Chooser(), rows, logits)


def test_scores_that_are_not_finite_are_left_to_the_array_functions(sampler):
    rows, logits = rows_of([([], False)], 2)
    logits[0, 5] = np.inf
    assert tokens_of(Chooser(sampler), rows, logits)[0] == 5
    logits[1] = np.nan
    with pytest.raises(NumericalError):
        tokens_of(Chooser(sampler), rows, logits)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(LogitsProcessorList([NoRepeatNGramLogitsProcessor(2)]), Limits(9)),
        Recipe(LogitsProcessorList([TopKLogitsWarper(5), TemperatureLogitsWarper(0.5)]), Limits(9), True),
        Recipe(LogitsProcessorList([TopKLogitsWarper(5), TopKLogitsWarper(4)]), Limits(9), True),
        Recipe(LogitsProcessorList([TopPLogitsWarper(0.5, min_tokens_to_keep=3)]), Limits(9), True),
        Recipe(LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.2, prompt_ignore_length=2)]), Limits(9)),
        Recipe(LogitsProcessorList([]), Limits(9), record=Record(scores=True)),
    ],
    ids=range(6),
)
def test_other_processors_other_orders_and_recorded_scores_are_not_plain(recipe):
    assert plain_numbers(recipe) is None
