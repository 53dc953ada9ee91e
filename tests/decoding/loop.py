"""The plainest loop that drives strategies, searches and drafters: every step computes every row anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fabula import arrays
from fabula.cache.blocks import BLOCK, blocks_for
from fabula.context import Context
from fabula.decoding.sample import SAMPLE
from fabula.decoding.strategy import Draftable, Draw, Tapped, Turn, Underway
from fabula.ops.protocol import Batch
from fabula.processors import LogitsProcessorList
from fabula.processors.rows import stack
from fabula.taps import NO_TAPS

Rows = list[list[int]]


def forward(model: Any, rows: Rows, scored: Sequence[int], taps: Any = NO_TAPS) -> Any:
    """The Forward of whole rows, of which the last `scored` positions each are scored."""
    needed = [blocks_for(len(row)) for row in rows]
    ends = np.cumsum([len(row) for row in rows])
    tables, taken = np.zeros((len(rows), max(needed)), np.int32), 0
    for place, count in enumerate(needed):
        tables[place, :count] = np.arange(taken, taken + count)
        taken += count
    wanted = [np.arange(end - count, end) for end, count in zip(ends, scored, strict=True)]
    assert BLOCK * taken >= ends[-1]
    batch = Batch(
        np.concatenate([np.array(row, np.int32) for row in rows]),
        np.array([0, *ends], np.int32),
        np.zeros(len(rows), np.int32),
        tables,
        np.concatenate(wanted).astype(np.int32),
    )
    return model.step(batch, model.new_cache(taken), taps)


def turn_of(
    rows: Rows, lengths: Sequence[int], logits: Any, tapped: Tapped, sampled: bool, seed: int, streams: Sequence[int],
    processors: Sequence[Any],
) -> Turn:  # fmt: skip
    """The turn of rows with prompts of these lengths."""
    xp = arrays.of(logits)
    tokens = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = row
    parts = (tokens, [len(row) for row in rows], lengths)
    context = Context(*(xp.asarray(np.asarray(part), "int32", like=logits) for part in parts))
    draw = Draw.of([seed] * len(rows), streams, [len(row) for row in rows], [sampled] * len(rows))
    return Turn(logits, stack([processors] * len(rows)), lambda: context, draw, tapped)


def run_strategy(
    model: Any, prompts: Rows, count: int, *, strategy: Any = SAMPLE, processors: Sequence[Any] = (),
    sampled: bool = False, seed: int = 0,
) -> tuple[Rows, list[np.ndarray]]:  # fmt: skip
    """The rows with `count` tokens more, and each step's scores."""
    rows, scores = [list(prompt) for prompt in prompts], []
    for _ in range(count):
        found = forward(model, rows, [1] * len(rows), strategy.taps)
        tapped = Tapped(layer_logits=found.layer_logits)
        lengths = [len(prompt) for prompt in prompts]
        turn = turn_of(rows, lengths, found.logits, tapped, sampled, seed, range(len(rows)), processors)
        choice = strategy.choose(turn)
        xp = arrays.of(found.logits)
        scores.append(xp.to_host(choice.scores).copy())
        for row, token in zip(rows, xp.to_host(choice.tokens).tolist(), strict=True):
            row.append(token)
    return rows, scores


def run_search(
    model: Any, prompt: list[int], search: Any, ends: Callable[[list[int]], str | None], processors: Sequence[Any] = ()
) -> tuple[Any, list[int], list[np.ndarray]]:
    """The hypotheses, the tokens settled on the way, and the scores. `ends`: why a row is complete, or None."""
    rows, carry, settled, scores = [list(prompt)], None, [], []
    while True:
        first = carry is None
        counts = [len(prompt)] if first else [1] * len(rows)
        found = forward(model, rows, counts, search.taps)
        last = np.cumsum(counts) - 1
        hidden = [found.hidden[end - count : end] for end, count in zip(np.cumsum(counts), counts, strict=True)]
        streams, tapped = [0] * len(rows), Tapped(hidden, found.hidden[last])
        turn = turn_of(rows, [len(prompt)] * len(rows), found.logits[last], tapped, False, 0, streams, processors)
        underway = Underway(carry, lambda row, token, rows=rows: ends([*rows[row], token]))
        (move,) = search.advance(turn, [underway])
        settled += move.settled
        if move.scores is not None:
            scores.append(arrays.of(move.scores).to_host(move.scores).copy())
        if move.finished is not None:
            return move.finished, settled, scores
        assert len(move.tokens) <= search.width
        carry = move.carry
        rows = [[*rows[parent], int(token)] for parent, token in zip(move.parents, move.tokens, strict=True)]


def run_drafted(
    model: Any, prompts: Rows, count: int, drafter: Any, *, processors: Sequence[Any] = (), sampled: bool = False,
    seed: int = 0,
) -> tuple[Rows, int, int]:  # fmt: skip
    """The rows with `count` tokens more, how many passes it took (a row each), and how many drafts stood."""
    rows, passes, stood = [list(prompt) for prompt in prompts], 0, 0
    chain = LogitsProcessorList(processors)
    while any(len(row) < len(prompt) + count for row, prompt in zip(rows, prompts, strict=True)):
        live = [place for place, row in enumerate(rows) if len(row) < len(prompts[place]) + count]
        asked = [
            Draftable(place, np.array(rows[place], np.int32), len(prompts[place]),
                      len(prompts[place]) + count - len(rows[place]) - 1, seed, place, chain, sampled)
            for place in live
        ]  # fmt: skip
        drafts = [draft.tolist() for draft in drafter.propose(asked)]
        assert all(len(draft) <= row.most for draft, row in zip(drafts, asked, strict=True))
        found = forward(
            model, [[*rows[p], *d] for p, d in zip(live, drafts, strict=True)], [len(d) + 1 for d in drafts]
        )
        virtual = [[*rows[p], *d[:k]] for p, d in zip(live, drafts, strict=True) for k in range(len(d) + 1)]
        streams = [p for p, d in zip(live, drafts, strict=True) for _ in range(len(d) + 1)]
        lengths = [len(prompts[p]) for p in streams]
        turn = turn_of(virtual, lengths, found.logits, Tapped(), sampled, seed, streams, chain)
        chosen = iter(arrays.of(found.logits).to_host(SAMPLE.choose(turn).tokens).tolist())
        for place, draft in zip(live, drafts, strict=True):
            own = [next(chosen) for _ in range(len(draft) + 1)]
            kept = next((k for k, token in enumerate(draft) if token != own[k]), len(draft))
            rows[place] += own[: kept + 1]
            drafter.judged(place, len(draft), kept)
            passes, stood = passes + 1, stood + kept
            if len(rows[place]) == len(prompts[place]) + count:
                drafter.forget(place)
    return rows, passes, stood
