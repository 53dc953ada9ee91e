"""Many turns of beam search as one loop: it says what each turn chose from, by which the host makes the same moves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from fabula import arrays
from fabula.arrays.random import row_key
from fabula.context import Context
from fabula.decoding.beam_candidates import PURPOSE_BEAMS, best_candidates, noisy_candidates
from fabula.decoding.closed import ClosedRows
from fabula.decoding.closed_beams import BeamForm, ClosedBeams, Found
from fabula.decoding.closed_loop import Forward, appended
from fabula.decoding.sample import keyed_noise
from fabula.processors.columns import process_of

__all__ = ["Reorder", "decode_beams"]

Reorder = Callable[[Any, Any], Any]  # (the model's state, parents Int["R"]) -> that of the rows' children


class Turn(NamedTuple):
    """G groups between two moves. What has ended stays as it is, and is computed once more as it was."""

    tokens: Any  # Int["R L"]
    lengths: Any  # Int["R"]
    last: Any  # Int["R"]: what the model computes next
    position: Any  # Int["R"]: where
    scores: Any  # Float32["G W"]
    pool: Any  # Float32["G W"]
    ended: Any  # Bool["G"]
    found: Found
    model: Any  # the model's state


def decode_beams(
    forward: Forward, reorder: Reorder, state: Any, form: BeamForm, beams: ClosedBeams
) -> tuple[Found, Any]:
    """What the turns chose from until all groups have ended or used their room, and the model's state after the moves.

    A group ends before the turn that ends its search, or that has too few candidates to go on, or no number: that turn
    is the host's. The same code runs eagerly and inside a compiled loop.
    """
    rows, width = beams.rows, form.beams
    xp = arrays.of(rows.tokens)
    process = process_of(form.chain.columns, rows.numbers)
    room, ends = rows.room[::width], rows.ends[::width]
    noise_at = _noise(xp, form, rows)

    def goes_on(turn: Turn) -> Any:
        some = xp.any(turn.ended & (room > 0), axis=0)
        return ~xp.all(turn.ended, axis=0) & ~(some & rows.hurried[0])

    def candidates_of(turn: Turn, logits: Any) -> tuple[Any, Any, Any]:
        context = Context(turn.tokens, turn.lengths, rows.prompt_lengths)
        scores = process(xp.log_softmax(xp.astype(logits, "float32")), context)
        scores = xp.reshape(scores, (*turn.scores.shape, scores.shape[-1]))
        if noise_at is None:
            return best_candidates(xp, scores, turn.scores, form.kept)
        return noisy_candidates(xp, scores, turn.scores, form.kept, noise_at(turn.position + 1))

    def step(turn: Turn) -> Turn:
        logits, model = forward(turn.last, turn.position, turn.model)
        values, parents, tokens = candidates_of(turn, logits)
        stops = xp.any(tokens[:, :, None] == ends[:, None, :])
        next_ones = _judged(xp, beams, turn, values, stops)
        moves, places = next_ones.moves, next_ones.places
        found = _recorded(xp, turn.found, (values, parents, tokens), form.kept, moves)
        stays = ~moves | (found.turns >= room)
        each_moves, each_stays = (xp.repeat(part, width) for part in (moves, stays))
        origins = _origins(xp, xp.take_along_axis(parents, places), moves)
        chosen = xp.reshape(xp.astype(xp.take_along_axis(tokens, places), "int32"), (-1,))
        lengths = turn.lengths + xp.astype(each_moves, "int32")
        return Turn(
            tokens=appended(xp, xp.take(turn.tokens, origins), lengths, each_moves, chosen),
            lengths=lengths,
            last=xp.where(each_stays, xp.take(turn.last, origins), chosen),
            position=turn.position + xp.astype(~each_stays, "int32"),
            scores=next_ones.scores,
            pool=next_ones.pool,
            ended=turn.ended | stays,
            found=found,
            model=reorder(model, origins),
        )

    end = xp.while_loop(goes_on, step, _begin(xp, form, beams, state))
    return end.found, end.model


class Judged(NamedTuple):
    """What becomes of G groups' candidates."""

    moves: Any  # Bool["G"]: whether the group goes on
    places: Any  # Int["G W"]: those of the candidates that are its next beams, then
    scores: Any  # Float32["G W"]: their scores, falling
    pool: Any  # Float32["G W"]: with the scores of those that ended


def _judged(xp: Any, beams: ClosedBeams, turn: Turn, values: Any, stops: Any) -> Judged:
    """As BeamSearch judges: values Float32["G K"] of candidates, and whether they end, Bool["G K"]."""
    width, last = turn.scores.shape[1], beams.divisors.shape[1] - 1
    now = xp.minimum(turn.found.turns, last)[:, None]
    ended = values[:, :width] / xp.take_along_axis(beams.divisors, now)
    pool, _ = xp.top_k(xp.concat([turn.pool, xp.where(stops[:, :width], ended, -float("inf"))]), width)
    scores, places = xp.top_k(xp.where(stops, -float("inf"), values), width)
    bound, worst = scores[:, 0] / xp.take_along_axis(beams.bounds, now)[:, 0], pool[:, -1]
    closed = (worst > -float("inf")) & (beams.hasty | ~(bound > worst))
    moves = (scores[:, -1] > -float("inf")) & ~closed & ~turn.ended
    return Judged(moves, places, scores, pool)


def _recorded(xp: Any, found: Found, candidates: tuple[Any, Any, Any], kept: int, moves: Any) -> Found:
    """With a turn's candidates ["G k"], k <= K; what stands behind a group's last turn means nothing."""
    columns = found.turns[:, None] * kept + xp.arange(candidates[0].shape[1], like=found.turns)[None, :]
    values, beams, tokens = candidates
    return Found(
        xp.scatter_set(found.values, columns, values),
        xp.scatter_set(found.beams, columns, xp.astype(beams, "int32")),
        xp.scatter_set(found.tokens, columns, xp.astype(tokens, "int32")),
        found.turns + xp.astype(moves, "int32"),
    )


def _origins(xp: Any, parents: Any, moves: Any) -> Any:
    """Int["R"]: the row that each row continues, from parents Int["G W"]; its own where the group does not move."""
    groups, width = parents.shape
    own = xp.arange(width, like=parents)[None, :]
    origins = xp.where(moves[:, None], xp.astype(parents, "int32"), own)
    return xp.reshape(origins + width * xp.arange(groups, like=parents)[:, None], (-1,))


def _noise(xp: Any, form: BeamForm, rows: ClosedRows) -> Callable[[Any], Callable[[Any], Any]] | None:
    """From positions Int["R"] to the noise of tokens, as `drawn_candidates` has it; None where no group draws."""
    if not form.chain.draws:
        return None
    beams = xp.arange(rows.lengths.shape[0], like=rows.lengths) % form.beams
    keys = row_key(xp, (rows.seed_low, rows.seed_high), rows.stream, PURPOSE_BEAMS + beams)
    return lambda position: partial(keyed_noise, xp, keys, position)


def _begin(xp: Any, form: BeamForm, beams: ClosedBeams, state: Any) -> Turn:
    """The groups before the first turn."""
    rows, (groups, turns) = beams.rows, beams.divisors.shape
    shape = (groups, (turns + 1) * form.kept)  # a group that used all its turns is computed once more
    room = rows.room[:: form.beams]
    whole = xp.zeros(shape, "int32", like=room)
    values = xp.full(shape, -float("inf"), "float32", like=room)
    return Turn(
        tokens=rows.tokens,
        lengths=rows.lengths,
        last=rows.last,
        position=rows.position,
        scores=beams.scores,
        pool=beams.pool,
        ended=room <= 0,
        found=Found(values, whole, whole, xp.zeros_like(room)),
        model=state,
    )
