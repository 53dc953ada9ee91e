"""Rows that outlive their requests as long as somebody holds them; their blocks are taken back when they are needed."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

import numpy as np

from fabula.cache.blocks import BlockPool, Table
from fabula.cache.kept import KeptRow
from fabula.engine.group import Group
from fabula.engine.row import Row


class Keeper:
    """The kept rows of one engine, oldest first. Only the thread that steps may call its methods."""

    def __init__(self, pool: BlockPool) -> None:
        self.pool = pool
        self.released: deque[Table] = deque()  # of rows that nobody holds any more; any thread appends
        self.rows: deque[weakref.ref[KeptRow]] = deque()

    def keep(self, row: Row, tokens: np.ndarray | None = None) -> KeptRow:
        """The row as it is now; with `tokens`, Int["L"], as much of it as begins these."""
        text = row.tokens[: row.length] if tokens is None else tokens
        computed = min(row.computed, shared_length(text, row.tokens[: row.length]))
        text = text.copy()
        if row.past is not None and not row.past.row.is_known:  # what was not known before is not known now
            known = row.past.row.tokens[: row.past.length]
            text[: len(known)] = known
        kept = KeptRow(text, row.table.fork(computed), computed, row.memory, row.vectors)
        kept.foreign = row.past is not None and row.past.row.foreign
        return self.add(kept)

    def keep_like(self, rows: list[Row], tokens: np.ndarray) -> KeptRow:
        """A row of these tokens: what is computed comes from the row that has most of it."""
        shared = [min(row.computed, shared_length(tokens, row.tokens[: row.length])) for row in rows]
        return self.keep(rows[int(np.argmax(shared))], tokens)

    def keep_results(self, group: Group, results: list[np.ndarray]) -> list[KeptRow]:
        """A search's results, each the new tokens of one."""
        return [self.keep_like(group.rows, np.concatenate([group.request.prompt, new])) for new in results]

    def write(self, storage: Any, tokens: np.ndarray, layers: list[tuple[Any, Any]]) -> KeptRow:
        """A row whose keys and values, Float["L heads features"] a layer, came from elsewhere; blocks must be free."""
        table = Table(self.pool)
        table.write(0, len(tokens))
        for layer, (keys, values) in enumerate(layers):
            storage.write_row(layer, table.blocks, keys, values)
        kept = KeptRow(tokens, table, len(tokens))
        kept.foreign = True
        return self.add(kept)

    def add(self, kept: KeptRow) -> KeptRow:
        """Watches over the row, whose blocks come back when nobody holds it any more."""
        weakref.finalize(kept, self.released.append, kept.table).atexit = False
        self.rows.append(weakref.ref(kept))
        return kept

    def drain(self) -> bool:
        """Gives back the blocks of rows that nobody holds; whether there were any."""
        before = len(self.pool.free)
        while self.released:
            self.released.popleft().truncate(0)
        if len(self.rows) > 64 and sum(one() is None for one in self.rows) > len(self.rows) // 2:
            self.rows = deque(one for one in self.rows if one() is not None)
        return len(self.pool.free) > before

    def reclaim(self) -> bool:
        """Takes blocks from the oldest kept row that can be computed again; False where there is none."""
        if self.drain():
            return True
        for held in self.rows:
            kept = held()
            if kept is not None and kept.computed and kept.is_known:
                kept.computed = 0
                kept.table.truncate(0)
                return True
        return False


def shared_length(tokens: np.ndarray, others: np.ndarray) -> int:
    """How many tokens two rows begin with alike."""
    length = min(len(tokens), len(others))
    apart = np.flatnonzero(tokens[:length] != others[:length])
    return int(apart[0]) if len(apart) else length
