"""Blocks have as many holders as tables list them, and nobody writes into a block that somebody else reads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabula.cache.blocks import BLOCK, BlockPool, Table
from fabula.errors import OutOfMemoryError


def test_a_table_takes_a_block_for_every_started_run_of_positions():
    pool = BlockPool(4)
    table = Table(pool)
    assert table.missing(0, BLOCK + 1) == 2
    table.write(0, BLOCK + 1)
    assert len(table.blocks) == 2
    pool.check([table])


def test_a_fork_shares_and_the_first_to_write_copies_the_tail_only():
    pool = BlockPool(8)
    table = Table(pool)
    table.write(0, BLOCK + 5)
    fork = table.fork(BLOCK + 5)
    assert fork.blocks == table.blocks
    copy = fork.write(BLOCK + 5, BLOCK + 6)
    assert copy == (table.blocks[1], fork.blocks[1])
    assert fork.blocks[0] == table.blocks[0] and fork.blocks[1] != table.blocks[1]
    assert table.write(BLOCK + 5, BLOCK + 6) is None
    pool.check([table, fork])


def test_truncate_frees_the_blocks_behind_the_length():
    pool = BlockPool(8)
    table = Table(pool)
    table.write(0, 5 * BLOCK)
    table.truncate(2 * BLOCK)
    assert len(table.blocks) == 2 and len(pool.free) == 6
    pool.check([table])


@pytest.mark.parametrize("window", [None, BLOCK])
def test_a_table_that_adopts_a_prefix_keeps_its_own_blocks_behind_it(window):
    pool = BlockPool(16, window)
    tables = [Table(pool), Table(pool)]
    for table in tables:
        table.write(0, 4 * BLOCK)
        table.give_up(2 * BLOCK + 1)
    first, second = ([*table.blocks] for table in tables)
    prefixes = [table.fork(2 * BLOCK) for table in reversed(tables)]  # each gets the other's
    for table, prefix in zip(tables, prefixes, strict=True):
        table.adopt(prefix)
    pool.check(tables)
    assert [table.blocks for table in tables] == [second[:2] + first[2:], first[:2] + second[2:]]
    assert [table.behind for table in tables] == ([0, 0] if window is None else [1, 1])
    for table in tables:
        table.truncate(0)
    assert len(pool.free) == 16


def test_an_exhausted_pool_says_so():
    pool = BlockPool(1)
    Table(pool).write(0, BLOCK)
    with pytest.raises(OutOfMemoryError, match="all 1 cache blocks"):
        Table(pool).write(0, 1)


def test_a_freed_prefix_is_found_until_its_block_is_taken():
    pool = BlockPool(3)
    tokens = np.arange(2 * BLOCK + 1, dtype=np.int32)
    table = Table(pool)
    table.write(0, 2 * BLOCK)
    pool.prefixes.add(tokens[: 2 * BLOCK], BLOCK, table.blocks, b"")
    blocks = list(table.blocks)
    table.truncate(0)
    assert pool.prefixes.find(tokens, BLOCK, b"") == blocks
    assert pool.prefixes.find(tokens[: 2 * BLOCK], BLOCK, b"") == blocks[:1], "a hit leaves a token to compute"
    assert pool.prefixes.find(tokens, BLOCK, b"other salt") == []
    other = Table(pool)
    other.write(0, 2 * BLOCK)
    assert len(pool.prefixes.find(tokens, BLOCK, b"")) <= 1
    pool.check([other])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("wftd"), st.integers(0, 9), st.integers(1, 70)), max_size=40))
def test_any_sequence_of_operations_keeps_the_count(operations):
    pool = BlockPool(64)
    tables, lengths = [Table(pool)], [0]
    for kind, which, amount in operations:
        index = which % len(tables)
        if kind == "w" and tables[index].missing(lengths[index], lengths[index] + amount) <= len(pool.free):
            tables[index].write(lengths[index], lengths[index] + amount)
            lengths[index] += amount
        elif kind == "f" and len(tables) < 6:
            tables.append(tables[index].fork(lengths[index]))
            lengths.append(lengths[index])
        elif kind == "t":
            lengths[index] = max(0, lengths[index] - amount)
            tables[index].truncate(lengths[index])
        pool.check(tables)
