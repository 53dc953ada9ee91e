"""Many turns of contrastive search as one loop: candidates are computed, the best is settled, others are proposed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fabula import arrays
from fabula.context import Context
from fabula.decoding.closed.contrastive import ClosedTexts, ContrastiveForm
from fabula.decoding.closed.loop import appended
from fabula.decoding.closed.pairs import pairs_of
from fabula.decoding.closed.record import Recorded, noted
from fabula.decoding.contrastive import directions
from fabula.decoding.sample import best_tokens
from fabula.processors.columns import Process, process_of

__all__ = ["Forward", "FoundTexts", "Share", "decode_texts"]

# (tokens Int["M"], their positions Int["M"], the model's state)
# -> ((logits Float["M V"], final hidden states Float["M D"]), the model's next state)
Forward = Callable[[Any, Any, Any], tuple[tuple[Any, Any], Any]]
# (the model's state, rows Int["M"], positions Int["M"]) -> that in which each row has at its position what the row
# that is named for it has there; before it they have the same
Share = Callable[[Any, Any, Any], Any]


class FoundTexts(NamedTuple):
    """What became of G texts."""

    tokens: Any  # Int["G L"]
    lengths: Any  # Int["G"]
    over: Any  # Bool["G"]: which have ended
    candidates: Any  # Int["G W"]: those behind the others
    chances: Any  # Float32["G W"]: theirs; -1: there is none
    read: Any  # Float32["G T D"]: the directions of new tokens, of which there were at most T
    kept: Any  # a Recorded of T turns, whose rows are the texts; () where nothing is kept


class Turn(NamedTuple):
    """G texts between two turns. What has stopped stays as it is, and is computed once more as it was."""

    tokens: Any  # Int["G L"]
    lengths: Any  # Int["G"]
    last: Any  # Int["G*W"]: what the model computes next: candidates, or what was settled last where a text has stopped
    position: Any  # Int["G"]: where
    candidates: Any  # Int["G W"]
    chances: Any  # Float32["G W"]
    read: Any  # Float32["G*P D"]
    over: Any  # Bool["G"]
    stopped: Any  # Bool["G"]
    model: Any  # the model's state
    kept: Any


class Judged(NamedTuple):
    """What G texts are settled to go on with."""

    best: Any  # Int["G"]: which of the candidates
    origins: Any  # Int["G"]: and which of all texts' candidates
    tokens: Any  # Int["G"]
    directions: Any  # Float32["G D"]
    sound: Any  # Bool["G"]: whether it is worth a finite number


class Proposed(NamedTuple):
    """What may come behind what was settled."""

    candidates: Any  # Int["G W"]
    chances: Any  # Float32["G W"]
    sound: Any  # Bool["G"]: whether there is one, and no NaN
    scores: Any  # Float32["G V"]: what they were chosen by


def decode_texts(
    forward: Forward,
    share: Share,
    state: Any,
    form: ContrastiveForm,
    texts: ClosedTexts,
    turns: int,
    kept: Recorded | tuple[()] = (),
    loop: Callable[..., Any] | None = None,
) -> tuple[FoundTexts, Any]:
    """What the texts are once all have ended or used their room, of at most so many turns; and the model's state.

    All candidates of a text have its keys and values then. A text also stops before a turn in which nothing can be
    settled or proposed, or no number is there to choose by: that one is the host's. The same code runs eagerly and
    inside a compiled loop; a backend may bring a `loop` of its own in place of the framework's `while_loop`. Where the
    form's record wants something, `kept` is what `blank` makes.
    """
    rows = texts.rows
    xp = arrays.of(rows.tokens)
    process = process_of(form.chain.columns, rows.numbers)
    pairs = pairs_of(xp, form.chain.each, rows.position)

    def goes_on(turn: Turn) -> Any:
        some = xp.any(turn.stopped & (rows.room > 0), axis=0)
        return ~xp.all(turn.stopped, axis=0) & ~(some & rows.hurried[0])

    def step(turn: Turn) -> Turn:
        behind = pairs.positions(xp.repeat(turn.position, form.width))
        (logits, hidden), model = forward(pairs.spread(turn.last), behind, turn.model)
        judged = _judged(xp, form, texts, turn, pairs.own(hidden))
        grows = judged.sound & ~turn.stopped
        lengths = turn.lengths + xp.astype(grows, "int32")
        tokens = appended(xp, turn.tokens, lengths, grows, judged.tokens)
        own, negative = (_logits(xp, part, judged) for part in (pairs.own(logits), pairs.negative(logits)))
        context = Context(tokens, lengths, rows.prompt_lengths, unconditional=negative)
        proposed = _proposed(xp, form, texts, process, own, context)
        over = xp.any(judged.tokens[:, None] == rows.ends) | (rows.hidden + lengths >= texts.longest)
        counts = grows & (over | proposed.sound)
        lengths = xp.where(counts, lengths, turn.lengths)
        stays = over | ~counts | (lengths - rows.lengths >= rows.room)
        return Turn(
            tokens=tokens,
            lengths=lengths,
            last=_last(xp, turn, judged, proposed, counts, stays),
            position=turn.position + xp.astype(~stays, "int32"),
            candidates=xp.where(counts[:, None], proposed.candidates, turn.candidates),
            chances=xp.where(counts[:, None], proposed.chances, turn.chances),
            read=_read(xp, turn, judged.directions, counts),
            over=turn.over | (counts & over),
            stopped=turn.stopped | stays,
            model=share(model, pairs.members(_kept_from(xp, form, turn, judged, counts)), behind),
            kept=noted(xp, form.chain, turn.kept, own, proposed.scores, judged.tokens),
        )

    end = (loop or xp.while_loop)(goes_on, step, _begin(xp, form, texts, state, kept))
    new = _new(xp, texts, end.read, turns)
    return FoundTexts(end.tokens, end.lengths, end.over, end.candidates, end.chances, new, end.kept), end.model


def _judged(xp: Any, form: ContrastiveForm, texts: ClosedTexts, turn: Turn, hidden: Any) -> Judged:
    """The candidates that are worth most, as the search weighs them; hidden Float["M D"]."""
    count, positions, features = texts.read.shape
    own = xp.reshape(directions(hidden), (count, form.width, features))
    alike = xp.matmul(own, xp.matrix_transpose(xp.reshape(turn.read, (count, positions, features))))
    before = xp.arange(positions, like=turn.position)[None, :] < turn.position[:, None]
    penalties = xp.max(xp.where(before[:, None, :], alike, -float("inf")))
    worth = texts.rest[:, None] * turn.chances - texts.alpha[:, None] * penalties
    worth = xp.where(turn.chances >= 0, worth, -float("inf"))
    best = best_tokens(xp, worth)
    origins = xp.arange(count, like=best) * form.width + best
    found = xp.take(xp.reshape(own, (-1, features)), origins)
    sound = xp.take_along_axis(worth, best[:, None])[:, 0] > -float("inf")
    return Judged(best, origins, xp.take(turn.last, origins), found, sound)


def _logits(xp: Any, logits: Any | None, judged: Judged) -> Any | None:
    """Float32["G V"]: after what was settled, of Float["G*W V"]."""
    return None if logits is None else xp.astype(xp.take(logits, judged.origins), "float32")


def _proposed(
    xp: Any, form: ContrastiveForm, texts: ClosedTexts, process: Process, logits: Any, context: Context
) -> Proposed:
    """The likeliest successors after logits Float32["G V"], of each text as many as its search reads."""
    scores = process(logits, context)
    values, columns = xp.top_k(scores, min(form.width, scores.shape[-1]))
    total = xp.logsumexp(scores, keepdims=True)
    chances = xp.exp(values - xp.where(total > -float("inf"), total, 0.0))
    places = xp.arange(values.shape[-1], like=columns)[None, :]
    chances = xp.where((values > -float("inf")) & (places < texts.width[:, None]), chances, -1.0)
    best = xp.take_along_axis(scores, best_tokens(xp, scores)[:, None])[:, 0]
    columns = _widened(xp, xp.astype(columns, "int32"), form.width, 0)
    return Proposed(columns, _widened(xp, chances, form.width, -1), best > -float("inf"), scores)


def _widened(xp: Any, values: Any, width: int, filler: int) -> Any:
    """["G W"]: values with a filler behind, where the vocabulary has fewer tokens."""
    more = width - values.shape[-1]
    return values if not more else xp.concat([values, xp.zeros_like(xp.repeat(values[:, :1], more, 1)) + filler])


def _last(xp: Any, turn: Turn, judged: Judged, proposed: Proposed, counts: Any, stays: Any) -> Any:
    """Int["M"]: what the model computes next."""
    before = xp.reshape(turn.last, proposed.candidates.shape)
    settled = xp.where(counts[:, None], judged.tokens[:, None], before)
    return xp.reshape(xp.where(stays[:, None], settled, proposed.candidates), (-1,))


def _read(xp: Any, turn: Turn, found: Any, counts: Any) -> Any:
    """Float32["G*P D"]: with the directions Float32["G D"] of what was settled, where that counts."""
    texts = turn.position.shape[0]
    places = xp.arange(texts, like=turn.position) * (turn.read.shape[0] // texts) + turn.position
    return xp.set_rows(turn.read, places, xp.where(counts[:, None], found, xp.take(turn.read, places)))


def _kept_from(xp: Any, form: ContrastiveForm, turn: Turn, judged: Judged, counts: Any) -> Any:
    """Int["G*W"]: whose keys and values each candidate takes over; its own where nothing was settled."""
    own = xp.arange(turn.last.shape[0], like=turn.last)
    return xp.where(xp.repeat(counts, form.width), xp.repeat(judged.origins, form.width), own)


def _new(xp: Any, texts: ClosedTexts, read: Any, turns: int) -> Any:
    """Float32["G T D"]: the directions of so many positions behind each text, of Float32["G*P D"]."""
    count, positions, features = texts.read.shape
    first = texts.rows.hidden + texts.rows.lengths
    places = xp.minimum(first[:, None] + xp.arange(turns, like=first)[None, :], positions - 1)
    places = places + (xp.arange(count, like=first) * positions)[:, None]
    return xp.reshape(xp.take(read, xp.reshape(places, (-1,))), (count, turns, features))


def _begin(xp: Any, form: ContrastiveForm, texts: ClosedTexts, state: Any, kept: Any) -> Turn:
    """The texts before the first turn."""
    rows = texts.rows
    return Turn(
        tokens=rows.tokens,
        lengths=rows.lengths,
        last=rows.last[:: form.chain.each],
        position=rows.position[:: form.each],
        candidates=xp.reshape(rows.last[:: form.chain.each], (-1, form.width)),
        chances=texts.chances,
        read=xp.reshape(texts.read, (-1, texts.read.shape[-1])),
        over=xp.zeros(rows.room.shape, "bool", like=rows.room),
        stopped=rows.room <= 0,
        model=state,
        kept=kept,
    )
