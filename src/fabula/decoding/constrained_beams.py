"""Constrained beam search: beams of which some are pushed to what the text must contain (Post and Vilar 2018).

At each turn the best continuations stand beside those that bring a constraint forward. All are put into banks by how
much of the constraints they have met, and the next beams are taken from the banks in turn, the fullest first: so that
likely texts and those that have met much live side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.decoding.beam_candidates import Candidates, candidates_to_keep, found, log_scores, shares
from fabula.decoding.beam_rows import BY_MEAN, Beams, Pool, Ranking, settled_tokens
from fabula.decoding.beam_turns import Judged, Told, judge, reasons_of, replay_of_beams
from fabula.decoding.constraint_list import ConstraintListState
from fabula.decoding.constraint_tries import are_tries, edges_of
from fabula.decoding.constraints import Constraint
from fabula.decoding.strategy import Ends, Move, Turn, Underway
from fabula.errors import ArgumentError
from fabula.taps import NO_TAPS, Taps

__all__ = ["BANK", "ConstrainedBeamSearch", "ConstrainedCarry"]

BANK = 100  # what a bank is worth in the order of candidates, in log-probability

# (beams Int["P"], tokens Int["P"]) -> Float32["P"]: what their texts with these tokens score
Sums: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class ConstrainedCarry:
    """What the search keeps between turns."""

    beams: Beams
    states: tuple[ConstraintListState, ...]  # W: how far each beam is
    shown: int = 0


@dataclass(frozen=True, slots=True)
class Pushed:
    """The candidates for the next beams, and how far each of them is."""

    candidates: Candidates
    states: tuple[ConstraintListState, ...]


@dataclass(frozen=True, slots=True)
class ConstrainedBeamSearch:
    """Beam search for texts that meet every constraint; what the prompt meets counts.

    A text that ends before it meets all is no result. Where a limit ends the search and fewer running beams than
    `results` meet all, every running beam is a result, and the best are given: as in transformers 4.49 to 4.56, but
    that a token which the processors rule out, or which ends the text, is never forced (there at a score of -inf).
    """

    num_beams: int
    constraints: tuple[Constraint, ...]
    results: int = 1  # at most num_beams
    ranking: Ranking = BY_MEAN
    end_tokens: int = 0  # how many tokens end a text
    taps: Taps = NO_TAPS
    whole_prompt: bool = False

    @property
    def width(self) -> int:
        return self.num_beams

    @property
    def kept(self) -> int:
        """How many candidates are looked at, beside those that bring a constraint forward."""
        return candidates_to_keep(self.num_beams, self.end_tokens)

    def advance(self, turn: Turn, underway: Sequence[Underway]) -> list[Move]:
        """The next beams of each. Raises NumericalError where all beams of one have no finite score, or one has NaN.

        Raises ArgumentError where a phrase has a token that is none of the model's.
        """
        scores = log_scores(turn)
        if underway[0].carry is None:
            self._check(int(scores.shape[-1]))
        carries = [one.carry or self._start(turn.context, place) for place, one in enumerate(underway)]
        running = [carry.beams.scores for carry in carries]
        every = found(scores, running, self.kept, turn.draw)
        shared = shares(scores, len(underway), self.num_beams)
        return [self._move(*each) for each in zip(underway, carries, every, shared, strict=True)]

    def _check(self, vocabulary: int) -> None:
        tokens = [edge.token for one in self.constraints if are_tries([one]) for edge in edges_of([one])]
        if max(tokens, default=0) >= vocabulary:
            raise ArgumentError(
                f"`force_words_ids` and `constraints` must hold tokens below {vocabulary}, the size of the vocabulary, "
                f"got {max(tokens)}. Take them from the model's own tokenizer."
            )

    def replay(self, carry: ConstrainedCarry, ends: Ends, turns: Sequence[Told]) -> Move:
        """What turns that a loop made make of one sequence, as `replay_of_beams` has it."""
        places = {edge.token: place for place, edge in enumerate(edges_of(self.constraints))}

        def move_of(carry: ConstrainedCarry, told: Told) -> Move:
            assert told.forced is not None
            sums = partial(_sums_told, told.forced, places)
            return self._move(Underway(carry, ends), carry, told.candidates[0], told.scores, sums)

        return replay_of_beams(carry, turns, move_of)

    def _move(
        self, one: Underway, carry: ConstrainedCarry, candidates: Candidates, scores: Any, sums: Sums | None = None
    ) -> Move:
        """The next beams of one sequence, or its results; `sums` are those of the scores, if they are not known."""
        parents = np.zeros(self.num_beams, np.int32) if one.carry is None else np.arange(self.num_beams, dtype=np.int32)
        beams, states = carry.beams, carry.states
        reasons = reasons_of(candidates, parents, one.ends)
        stops = [reason == "stop" for reason in reasons]
        complete = [stop and _after(states, candidates, place).completed for place, stop in enumerate(stops)]
        judged = judge(beams, candidates, reasons, self.ranking, complete)
        sums = sums or partial(_sums, beams.scores, scores, parents)
        pushed = self._pushed(judged, carry, sums, parents, one.ends)
        if pushed is None or judged.over or judged.limit:
            pool = judged.pool if pushed is None or judged.over else self._at_limit(beams, judged, pushed)
            pool = pool if pool.kept else pool.add(beams.ended(candidates, reasons, self.ranking))
            nothing = np.zeros(0, np.int32)
            return Move(None, nothing, nothing, finished=pool.results(self.results), scores=scores)
        running = pushed.candidates
        beams = beams.go_on(running, judged.pool)
        settled = settled_tokens([beams], [beams.pool], carry.shown)
        return Move(
            carry=ConstrainedCarry(beams, pushed.states, carry.shown + len(settled)),
            parents=parents[running.rows],
            tokens=running.tokens,
            settled=settled,
            scores=scores,
        )

    def _start(self, context: Context, row: int) -> ConstrainedCarry:
        xp = arrays.of(context.tokens)
        prompt = xp.to_host(context.tokens)[row, : int(xp.to_host(context.lengths)[row])]
        state = ConstraintListState([constraint.copy() for constraint in self.constraints])
        state.reset(prompt.tolist())
        return ConstrainedCarry(Beams.start(self.num_beams), (state,) * self.num_beams)

    def _pushed(
        self, judged: Judged, carry: ConstrainedCarry, sums: Sums, parents: np.ndarray, ends: Ends
    ) -> Pushed | None:
        """The next beams, from the best continuations and from those that bring a constraint forward."""
        running = judged.running
        if running is None:
            return None
        states = [_after(carry.states, running, place) for place in range(len(running))]
        rows, tokens = _steps_forward(carry, running)
        values = sums(rows, tokens)
        ahead = Candidates(values, rows, tokens)
        stops = [reason == "stop" for reason in reasons_of(ahead, parents, ends)]
        ahead = ahead.at(np.flatnonzero((values > -np.inf) & ~np.array(stops, bool)))
        states += [_after(carry.states, ahead, place) for place in range(len(ahead))]
        every = running.join(ahead)
        places = _bank_order(every.values, [state.get_bank() for state in states])[: self.num_beams]
        return Pushed(every.at(places), tuple(states[place] for place in places))

    def _at_limit(self, beams: Beams, judged: Judged, pushed: Pushed) -> Pool:
        """The results when a limit ends the running beams: those that meet all, or, if these are too few, all."""
        complete = [state.completed for state in pushed.states]
        enough = sum(complete) >= self.results
        reasons = [judged.limit if met or not enough else None for met in complete]
        return judged.pool.add(beams.ended(pushed.candidates, reasons, self.ranking))


def _after(states: Sequence[ConstraintListState], candidates: Candidates, place: int) -> ConstraintListState:
    """How far the candidate at a place is."""
    state = states[candidates.rows[place]].copy()
    state.add(int(candidates.tokens[place]))
    return state


def _steps_forward(carry: ConstrainedCarry, running: Candidates) -> tuple[np.ndarray, np.ndarray]:
    """Beams Int["P"] and tokens Int["P"] that bring a constraint forward, and make no text that is there already."""
    texts = [tuple(text) for text in carry.beams.tokens.tolist()]
    known = {(texts[row], int(token)) for row, token in zip(running.rows, running.tokens, strict=True)}
    rows, tokens = [], []
    for row, state in enumerate(carry.states):
        for token in state.advance() or ():
            if (texts[row], token) not in known:
                known.add((texts[row], token))
                rows.append(row)
                tokens.append(token)
    return np.array(rows, np.int32), np.array(tokens, np.int32)


def _sums(running: np.ndarray, scores: Any, parents: np.ndarray, beams: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """As Sums has it, from the beams' scores Float32["W"] and those of the turn's rows, Float["R V"]."""
    return running[beams] + _values_at(scores, parents[beams], tokens)


def _sums_told(told: np.ndarray, places: dict[int, int], beams: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The same from what is known Float32["W E"]; places: where each token's are."""
    return told[beams, [places[token] for token in tokens.tolist()]]


def _values_at(scores: Any, rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Float32["P"]: the scores Float["R V"] at rows Int["P"] and tokens Int["P"]; only so many go to the host."""
    if not len(rows):
        return np.zeros(0, np.float32)
    order = np.argsort(rows, kind="stable")
    counts = np.bincount(rows, minlength=scores.shape[0])
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = np.zeros((scores.shape[0], counts.max()), np.int32)
    columns[rows[order], places] = tokens[order]
    xp = arrays.of(scores)
    found_there = xp.to_host(xp.take_along_axis(scores, xp.asarray(columns, "int32", like=scores)))
    values = np.empty(len(rows), np.float32)
    values[order] = found_there[rows[order], places]
    return values


def _bank_order(values: np.ndarray, banks: Sequence[int]) -> np.ndarray:
    """Int["N"]: the best of each bank, the fullest bank first, then the second best of each, and so on."""
    bank = np.array(banks)
    order = np.argsort(-(bank.astype(np.float32) * BANK + values), kind="stable")
    starts = np.concatenate([[True], bank[order][1:] != bank[order][:-1]])
    firsts = np.flatnonzero(starts)
    rank = np.arange(len(order)) - np.repeat(firsts, np.diff(np.append(firsts, len(order))))
    return order[np.argsort(rank, kind="stable")]
