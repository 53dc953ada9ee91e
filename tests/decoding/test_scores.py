"""Transition scores equal those of transformers, up to and including the end of each sequence."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fabula.decoding.scores import compute_transition_scores
from fabula.errors import ArgumentError

torch = pytest.importorskip("torch")
GenerationMixin = pytest.importorskip("transformers").generation.GenerationMixin

VOCABULARY, STEPS = 17, 6


def expected_of(sequences, scores, beam_indices, normalize):
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=VOCABULARY))
    beams = None if beam_indices is None else torch.tensor(beam_indices)
    steps = tuple(torch.tensor(step) for step in scores)
    model = SimpleNamespace(config=config)
    return GenerationMixin.compute_transition_scores(model, torch.tensor(sequences), steps, beams, normalize).numpy()


def run(xp, sequences, scores, beam_indices, normalize, **more):
    beams = None if beam_indices is None else xp.asarray(beam_indices, "int64")
    steps = tuple(xp.asarray(step, "float32") for step in scores)
    return xp.to_host(compute_transition_scores(xp.asarray(sequences, "int64"), steps, beams, normalize, **more))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("beams", [True, False])
def test_they_equal_those_of_transformers(xp, normalize, beams):
    generator = np.random.default_rng(0)
    rows = 6 if beams else 3
    scores = generator.normal(size=(STEPS, rows, VOCABULARY)).astype(np.float32)
    sequences = generator.integers(0, VOCABULARY, (3, 4 + STEPS))
    beam_indices = None
    if beams:
        beam_indices = generator.integers(0, rows, (3, STEPS))
        beam_indices[0, 3:] = -1
        beam_indices[1:, 5:] = -1
    expected = expected_of(sequences, scores, beam_indices, normalize)
    np.testing.assert_allclose(run(xp, sequences, scores, beam_indices, normalize), expected, rtol=1e-5, atol=1e-6)


def test_after_the_end_they_are_0_where_ends_are_given(xp):
    scores = np.random.default_rng(0).normal(size=(4, 1, VOCABULARY)).astype(np.float32)
    sequences = np.array([[1, 5, 2, 9, 9]])
    got = run(xp, sequences, scores, None, False, ends=xp.asarray([2, 3], "int32"))
    np.testing.assert_allclose(got, [[scores[0, 0, 5], scores[1, 0, 2], 0, 0]])


def test_no_scores_are_an_error_that_says_how_to_get_them():
    with pytest.raises(ArgumentError, match="output_scores=True"):
        compute_transition_scores(np.array([[1]]), ())
