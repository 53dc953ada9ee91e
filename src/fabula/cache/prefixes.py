"""Finding blocks again by what was computed into them: each full block is known by all tokens up to its end."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from secrets import token_bytes

import numpy as np

MOST = 1 << 15  # blocks that can be found: a million positions


class PrefixIndex:
    """Full blocks by a keyed hash of (the block before, this block's tokens, salt); tokens are compared on a hit.

    It holds no block: one that nobody uses is free, and forgotten here when it is taken. Beside that it knows at most
    `most` blocks; for one more it forgets those that were added or found longest ago.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._key = token_bytes(16)
        self._blocks: dict[bytes, int] = {}
        self._contents: OrderedDict[int, tuple[bytes, bytes]] = OrderedDict()  # block -> (its name, its tokens)

    def __len__(self) -> int:
        """How many blocks are known."""
        return len(self._contents)

    def knows(self, block: int) -> bool:
        """Whether the block can be found."""
        return block in self._contents

    def forget(self, block: int) -> None:
        """Called when a block is taken for something else."""
        content = self._contents.pop(block, None)
        if content is not None:
            del self._blocks[content[0]]

    def clear(self) -> None:
        """Forgets every block."""
        self._blocks.clear()
        self._contents.clear()

    def find(self, tokens: np.ndarray, size: int, salt: bytes) -> list[int]:
        """The longest chain of known blocks of `size` tokens that starts the row and leaves at least one token over."""
        found = []
        for name, piece in self._names(tokens, size, (len(tokens) - 1) // size, salt):
            block = self._blocks.get(name)
            if block is None or self._contents[block][1] != piece:
                break
            found.append(block)
        for block in reversed(found):  # a chain's end goes first: without its beginning it could not be found
            self._contents.move_to_end(block)
        return found

    def add(self, tokens: np.ndarray, size: int, blocks: Sequence[int], salt: bytes) -> None:
        """Makes the row's full blocks findable; a name that is known already keeps its block."""
        for (name, piece), block in zip(self._names(tokens, size, len(tokens) // size, salt), blocks, strict=False):
            if name not in self._blocks and block not in self._contents:
                self._blocks[name] = block
                self._contents[block] = (name, piece)
        for block in reversed(list(blocks)):
            if block in self._contents:
                self._contents.move_to_end(block)
        while len(self._contents) > self.most:
            self.forget(next(iter(self._contents)))

    def _names(self, tokens: np.ndarray, size: int, count: int, salt: bytes) -> Iterable[tuple[bytes, bytes]]:
        name = salt
        for index in range(count):
            piece = tokens[index * size : (index + 1) * size].tobytes()
            name = blake2b(name + piece, key=self._key, digest_size=16).digest()
            yield name, piece
