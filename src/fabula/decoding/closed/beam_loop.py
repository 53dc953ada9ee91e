"""Many turns of beam search as one loop: it says what each turn chose from, by which the host makes the same moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fabula import arrays
from fabula.decoding.closed.beam_found import Found
from fabula.decoding.closed.beam_turn import Part, Turn, subgroup_of
from fabula.decoding.closed.beams import BeamForm, ClosedBeams
from fabula.decoding.closed.constraints import Progress
from fabula.decoding.closed.loop import Forward, appended
from fabula.decoding.closed.pairs import pairs_of

__all__ = ["Reorder", "decode_beams"]

Reorder = Callable[[Any, Any], Any]  # (the model's state, parents Int["M"]) -> that of the rows' children


def decode_beams(
    forward: Forward,
    reorder: Reorder,
    state: Any,
    form: BeamForm,
    beams: ClosedBeams,
    loop: Callable[..., Any] | None = None,
    vocabulary: int = 0,
) -> tuple[Found, Any]:
    """What the turns chose from until all groups have ended or used their room, and the model's state after the moves.

    A group ends with the turn that ends its search, in which nothing moves, or before one that has too few candidates
    to go on, or no number: that one is the host's. The same code runs eagerly and inside a compiled loop; a backend
    may bring a `loop` of its own in place of the framework's `while_loop`. Where scores or logits are recorded, they
    are of `vocabulary` tokens.
    """
    rows, width = beams.rows, form.beams
    xp = arrays.of(rows.tokens)
    room, pairs = rows.room[::width], pairs_of(xp, form.chain.each, rows.position)
    subgroups = [subgroup_of(xp, form, beams, number) for number in range(form.subgroups)]

    def goes_on(turn: Turn) -> Any:
        some = xp.any(turn.ended & (room > 0), axis=0)
        return ~xp.all(turn.ended, axis=0) & ~(some & rows.hurried[0])

    def step(turn: Turn) -> Turn:
        found, model = forward(pairs.spread(turn.last), pairs.positions(turn.position), turn.model)
        logits, negative = pairs.own(found), pairs.negative(found)
        scores, parts = xp.log_softmax(xp.astype(logits, "float32")), list[Part]()
        for subgroup in subgroups:
            parts.append(subgroup.advance(turn, scores, negative, parts))
        over = _beside(xp, [part.over for part in parts])
        judged = _judged(xp, form, turn, parts, over)
        told = _recorded(xp, form, turn.found, parts, judged, over)
        told = _kept(xp, form, turn.found, told, logits, [part.processed for part in parts])
        stays = ~judged.moves | (told.turns >= room)
        each_moves, each_stays = (xp.repeat(part, width) for part in (judged.moves, stays))
        chosen = xp.reshape(xp.concat([part.chosen for part in parts]), (-1,))
        lengths = turn.lengths + xp.astype(each_moves, "int32")
        return Turn(
            tokens=appended(xp, xp.take(turn.tokens, judged.origins), lengths, each_moves, chosen),
            lengths=lengths,
            last=xp.where(each_stays, xp.take(turn.last, judged.origins), chosen),
            position=turn.position + xp.astype(~each_stays, "int32"),
            scores=xp.concat([part.scores for part in parts]),
            pool=xp.concat([part.pool for part in parts]),
            over=over,
            ended=turn.ended | stays,
            found=told,
            model=reorder(model, pairs.members(judged.origins)),
            progress=parts[0].progress,
        )

    end = (loop or xp.while_loop)(goes_on, step, _begin(xp, form, beams, state, vocabulary))
    return end.found, end.model


class Judged(NamedTuple):
    """What becomes of G groups."""

    moves: Any  # Bool["G"]: whether the group goes on
    counts: Any  # Bool["G"]: whether the turn counts: the group goes on, or its search has ended now
    origins: Any  # Int["R"]: the row that each row continues; its own where the group does not move


def _judged(xp: Any, form: BeamForm, turn: Turn, parts: Sequence[Part], over: Any) -> Judged:
    """A group moves as long as one of its subgroups does; over Bool["G N"]."""
    sound = xp.all(_beside(xp, [part.sound for part in parts])) & ~turn.ended
    moves = sound & ~xp.all(over)
    groups = xp.arange(moves.shape[0], like=moves)[:, None] * form.beams
    parents = xp.concat([part.origins + number * form.size for number, part in enumerate(parts)])
    own = xp.arange(form.beams, like=moves)[None, :]
    return Judged(moves, sound, xp.reshape(groups + xp.where(moves[:, None], parents, own), (-1,)))


def _beside(xp: Any, flags: Sequence[Any]) -> Any:
    """["G N"] of N flags ["G"]."""
    return xp.concat([flag[:, None] for flag in flags])


def _recorded(xp: Any, form: BeamForm, found: Found, parts: Sequence[Part], judged: Judged, over: Any) -> Found:
    """With a turn's candidates, of each subgroup k <= K; what stands behind a group's last turn means nothing."""
    places = xp.arange(parts[0].values.shape[1], like=found.turns)
    every = xp.concat([places + number * form.kept for number in range(form.subgroups)])
    columns = found.turns[:, None] * (form.kept * form.subgroups) + every[None, :]
    return found._replace(
        values=xp.scatter_set(found.values, columns, xp.concat([part.values for part in parts])),
        beams=xp.scatter_set(found.beams, columns, xp.concat([part.beams for part in parts])),
        tokens=xp.scatter_set(found.tokens, columns, xp.concat([part.tokens for part in parts])),
        turns=found.turns + xp.astype(judged.counts, "int32"),
        over=xp.where(judged.counts[:, None], over, found.over),
        forced=_forced(xp, form, found, parts[0].forced),
    )


def _forced(xp: Any, form: BeamForm, found: Found, sums: Any) -> Any:
    """With a turn's sums Float32["G W E"]."""
    if not form.edges:
        return ()
    each = form.beams * form.edges
    columns = found.turns[:, None] * each + xp.arange(each, like=found.turns)[None, :]
    return xp.scatter_set(found.forced, columns, xp.reshape(sums, (-1, each)))


def _kept(xp: Any, form: BeamForm, before: Found, found: Found, logits: Any, processed: Sequence[Any]) -> Found:
    """With a turn's logits Float["R V"] and scores Float32["G S V"] of each subgroup, as far as they are recorded.

    Groups that have not ended have made as many turns as any.
    """
    record, place = form.chain.record, xp.max(before.turns, axis=0)[None]
    if record.scores:
        scores = xp.reshape(xp.concat(list(processed), axis=1), logits.shape)
        found = found._replace(scores=xp.set_rows(found.scores, place, scores[None]))
    if record.logits:
        found = found._replace(logits=xp.set_rows(found.logits, place, xp.astype(logits, "float32")[None]))
    return found


def _begin(xp: Any, form: BeamForm, beams: ClosedBeams, state: Any, vocabulary: int) -> Turn:
    """The groups before the first turn."""
    rows, (groups, turns) = beams.rows, beams.divisors.shape
    shape = (groups, (turns + 1) * form.kept * form.subgroups)  # what used all its turns is computed once more
    room = rows.room[:: form.beams]
    whole = xp.zeros(shape, "int32", like=room)
    values = xp.full(shape, -float("inf"), "float32", like=room)
    forced = (groups, (turns + 1) * form.beams * form.edges)
    kept, record = (turns + 1, groups * form.beams, vocabulary), form.chain.record
    return Turn(
        tokens=rows.tokens,
        lengths=rows.lengths,
        last=rows.last[:: form.chain.each],
        position=rows.position[:: form.chain.each],
        scores=beams.scores,
        pool=beams.pool,
        over=beams.over,
        ended=room <= 0,
        found=Found(
            values=values,
            beams=whole,
            tokens=whole,
            turns=xp.zeros_like(room),
            over=beams.over,
            forced=xp.zeros(forced, "float32", like=room) if form.edges else (),
            scores=xp.zeros(kept, "float32", like=room) if record.scores else (),
            logits=xp.zeros(kept, "float32", like=room) if record.logits else (),
        ),
        model=state,
        progress=Progress(beams.constraints.nodes, beams.constraints.queues) if beams.constraints else (),
    )
