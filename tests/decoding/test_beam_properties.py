"""Whatever a beam search is asked for: it ends in time, gives as many results as asked, best first, and each once."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fabula.decoding.beam_rows import Ranking
from fabula.decoding.beam_search import BeamSearch
from fabula.decoding.constrained_beams import ConstrainedBeamSearch
from fabula.decoding.constraints import constraints_of
from fabula.decoding.diverse_beams import DiverseBeamSearch
from tests.decoding.searching import drive

MANY = settings(deadline=None, max_examples=60)
VOCABULARY = 9
RANKINGS = st.builds(
    Ranking,
    length_penalty=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 3.0]),
    early_stopping=st.sampled_from([True, False, "never"]),
    most_new=st.just(7),
)
PHRASES = st.lists(st.lists(st.integers(0, VOCABULARY - 2), min_size=1, max_size=3), min_size=1, max_size=2)


def logits_by(seed: int):
    """Logits that depend on the whole row."""

    def logits_of(rows: np.ndarray) -> np.ndarray:
        generators = [np.random.default_rng([seed, *row]) for row in rows.tolist()]
        return np.stack([generator.standard_normal(VOCABULARY) * 2 for generator in generators]).astype(np.float32)

    return logits_of


@st.composite
def searches(draw):
    beams, ranking = draw(st.integers(1, 3)), draw(RANKINGS)
    results, ends = draw(st.integers(1, beams)), draw(st.integers(0, 2))
    kind = draw(st.sampled_from(["beams", "groups", "words"]))
    if kind == "beams":
        return BeamSearch(beams, results, ranking, ends)
    if kind == "words":
        return ConstrainedBeamSearch(beams, constraints_of(None, draw(PHRASES)), results, ranking, ends)
    return DiverseBeamSearch(beams * 2, 2, draw(st.sampled_from([0.5, 4.0])), results, ranking, ends)


@MANY
@given(searches(), st.integers(0, 99), st.integers(1, 7), st.booleans())
def test_a_search_ends_in_time_with_what_was_asked_for(search, seed, most, stops):
    eos = tuple(range(search.end_tokens))

    def ends(row: list[int]) -> bool:
        return stops and sum(row) % 7 == 3

    def done():
        sampled = seed if isinstance(search, BeamSearch) and seed % 2 else None
        return drive(search, logits_by(seed), [seed % VOCABULARY], max_new=most, eos=eos, seed=sampled, stops=ends)

    driven = done()
    assert len(driven.results) == search.results
    scores = [one.score for one in driven.results]
    assert scores == sorted(scores, reverse=True)
    for one in driven.results:
        row = [seed % VOCABULARY, *one.tokens.tolist()]
        assert 1 <= len(one.tokens) == len(one.rows) <= most
        assert (one.reason == "length") <= (len(one.tokens) == most)
        assert (one.reason == "stop") == (row[-1] in eos or ends(row))
        assert not any(token in eos for token in row[1:-1])
        assert row[1 : 1 + len(driven.settled)] == driven.settled
    real = [tuple(one.tokens) for one in driven.results if one.score > -1e6]
    if not isinstance(search, DiverseBeamSearch):
        assert len(set(real)) == len(real)
    again = [one.tokens.tolist() for one in done().results]
    assert again == [one.tokens.tolist() for one in driven.results]


@MANY
@given(PHRASES, st.integers(0, 99))
def test_a_text_that_ends_before_its_limit_has_all_phrases(phrases, seed):
    search, end = ConstrainedBeamSearch(4, constraints_of(None, phrases), 4, end_tokens=1), VOCABULARY - 1
    for one in drive(search, logits_by(seed), [0], max_new=16, eos=(end,)).results:
        text = [0, *one.tokens.tolist()]
        for phrase in phrases if one.reason == "stop" else ():
            assert any(text[start : start + len(phrase)] == phrase for start in range(len(text)))
