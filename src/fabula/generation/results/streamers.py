"""Streamers: what takes a run's tokens while it goes on, and prints them or hands them to a reader as text."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Queue
from typing import Any, Self

from fabula import arrays
from fabula.errors import ArgumentError, CancelledError, GenerationError, NotSupportedError
from fabula.generation.results.pieces import Pieces, pieces_of

__all__ = ["AsyncTextIteratorStreamer", "BaseStreamer", "RowText", "TextIteratorStreamer", "TextStreamer"]


class BaseStreamer:
    """What generate() needs of a streamer: the prompts' ids [R, L] by put() once, then each step's, then end()."""

    def put(self, value: Any) -> None:
        """Take token ids: a tensor, an array or a list."""
        raise NotSupportedError(f"`put` must be defined by a streamer, and {type(self).__name__} does not define it.")

    def end(self) -> None:
        """Take notice that nothing more comes."""
        raise NotSupportedError(f"`end` must be defined by a streamer, and {type(self).__name__} does not define it.")

    def fail(self, error: BaseException) -> None:
        """Take notice that the run ended with `error`; end() may follow."""
        self.end()


class RowText(str):
    """A piece of text that knows its row."""

    row: int = 0  # index among the sequences of the call

    def __new__(cls, text: str, row: int = 0) -> Self:
        """The text, belonging to `row`."""
        piece = super().__new__(cls, text)
        piece.row = row
        return piece


@dataclass
class _Row:
    """One sequence on its way to text."""

    pieces: Pieces
    held: str = ""  # text that waits for the rows before it
    started: bool = False  # its prompt has come
    shown: bool = False  # some of its text has been given
    ended: bool = False


class TextStreamer(BaseStreamer):
    """Prints text as soon as its characters are whole.

    `skip_prompt` leaves the prompt out; `decode_kwargs` go to the tokenizer's decode(). Of several rows the first that
    has not ended is printed as it comes; the others follow, each on a new line. Override `on_finalized_text` to do
    something else with the text; `row` says whose it is.
    """

    takes_rows = True  # put(ids, row=r) and end_row(r) are understood
    in_turn = True  # a row's text waits until the rows before it have ended

    def __init__(self, tokenizer: Any, skip_prompt: bool = False, **decode_kwargs: Any) -> None:
        """Raises ArgumentError where the tokenizer cannot decode."""
        if not callable(getattr(tokenizer, "decode", None)):
            raise ArgumentError(f"`tokenizer` must have decode(), got {tokenizer!r}. Pass the model's tokenizer.")
        self.tokenizer = tokenizer
        self.skip_prompt = skip_prompt
        self.decode_kwargs = decode_kwargs
        self.row = 0  # whose text on_finalized_text gets
        self._rows: dict[int, _Row] = {}
        self._count = 1  # rows of the batch, as its prompts say
        self._failure: BaseException | None = None
        self._cancelled = False

    @property
    def next_tokens_are_prompt(self) -> bool:
        """Whether nothing has come yet."""
        return not self._rows

    def put(self, value: Any, row: int | None = None) -> None:
        """Take ids: first the prompts', then new ones; [R, K], or [R] one a row, or all of `row`.

        Raises CancelledError after cancel(), ArgumentError where ids and rows do not fit.
        """
        if self._cancelled:
            raise CancelledError("The stream was cancelled by its reader.")
        if not self._rows:
            self._failure = None
        for index, ids in self._by_row(value, row):
            self._take(index, ids)

    def _by_row(self, value: Any, row: int | None) -> list[tuple[int, list[int]]]:
        """The ids of each row that gets some."""
        ids = _lists(arrays.listed(value))
        nested = bool(ids) and isinstance(ids[0], list)
        if row is not None:
            return [(row, [one for part in ids for one in part] if nested else ids)]
        if not self._rows and nested:
            self._count = len(ids)
        if not nested and self._count > 1:
            ids, nested = [[one] for one in ids], True
        if not nested:
            return [(0, ids)]
        if len(ids) != self._count:
            raise ArgumentError(f"`value` must hold ids of {self._count} rows, got {len(ids)}. Begin with the prompts.")
        return list(enumerate(ids))

    def _take(self, index: int, ids: list[int]) -> None:
        if index not in self._rows:
            self._rows[index] = _Row(pieces_of(self.tokenizer, **self.decode_kwargs))
        row = self._rows[index]
        is_prompt, row.started = not row.started, True
        if is_prompt and self.skip_prompt:
            return
        row.held += "".join([row.pieces.put(one) for one in ids])
        self._show()

    def end_row(self, row: int) -> None:
        """Take notice that nothing more comes for `row`."""
        ending = self._rows.get(row)
        if ending is not None and not ending.ended:
            ending.held += ending.pieces.end()
            ending.ended = True
            self._show()

    def _show(self) -> None:
        """Give on the text whose turn it is."""
        for index, row in sorted(self._rows.items()):
            text = self._text_of(row)
            if text:
                self.row = index
                self.on_finalized_text(text)
            if self.in_turn and not row.ended:
                return

    def _text_of(self, row: _Row) -> str:
        """The row's text that waits, taken; rows in turn begin on a new line."""
        text, row.held = row.held, ""
        newline = (
            "\n" if text and self.in_turn and not row.shown and any(one.shown for one in self._rows.values()) else ""
        )
        row.shown = row.shown or bool(text)
        return newline + text

    def end(self) -> None:
        """Give on what was held back, and end the stream."""
        if self._failure is None:
            self._close()
        self._failure = None

    def fail(self, error: BaseException) -> None:
        """End the stream with an error, which a reader will raise; a following end() does nothing."""
        if self._failure is None:
            self._failure = error
            self._close()

    def _close(self) -> None:
        """End every row; the last one's rest goes with the end of the stream."""
        *others, last = sorted(self._rows) or [0]
        for index in others:
            self.end_row(index)
        text = ""
        if last in self._rows:
            row = self._rows[last]
            row.held += "" if row.ended else row.pieces.end()
            text = self._text_of(row)
        self.row = last
        self._rows, self._count = {}, 1
        self.on_finalized_text(text, stream_end=True)

    def cancel(self) -> None:
        """Stop the run from the reader's side: its next put() raises CancelledError. The streamer is used up."""
        self._cancelled = True

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Print the text; a newline at the end of the stream."""
        print(text, flush=True, end="\n" if stream_end else "")


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error on its way to the reader."""

    error: BaseException


class TextIteratorStreamer(TextStreamer):
    """Gives the text to a `for` loop in another thread, piece by piece, each with its `row`; raises what ended the run.

    `timeout`: seconds to wait for a piece before queue.Empty is raised; None waits for ever.
    """

    in_turn = False

    def __init__(
        self, tokenizer: Any, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.text_queue: Queue[Any] = Queue()
        self.stop_signal = None
        self.timeout = timeout
        self._read = False  # the reader has seen the end

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Queue the text, and the end of the stream or what it failed with."""
        if text:
            self._send(RowText(text, self.row))
        if stream_end:
            self._send(self.stop_signal if self._failure is None else _Failure(self._failure))

    def cancel(self) -> None:
        """Stop the run and the reader; the streamer is used up."""
        super().cancel()
        self._send(self.stop_signal)

    def close(self) -> None:
        """The same, so that contextlib.closing() ends a run whose reader leaves."""
        self.cancel()

    def _send(self, item: Any) -> None:
        self.text_queue.put(item)

    def __iter__(self) -> Iterator[RowText]:
        self._read = False
        return self

    def __next__(self) -> RowText:
        if self._read:
            raise StopIteration
        item = self._received(self.text_queue.get(timeout=self.timeout))
        if item is None:
            raise StopIteration
        return item

    def _received(self, item: Any) -> RowText | None:
        """The piece, or None at the end. Raises what the run failed with."""
        self._read = item is self.stop_signal or isinstance(item, _Failure)
        if isinstance(item, _Failure):
            raise item.error
        return None if self._read else item


class AsyncTextIteratorStreamer(TextIteratorStreamer):
    """Gives the text to an `async for` loop; generate() runs in another thread. Made inside the running event loop.

    `timeout`: seconds to wait for a piece before TimeoutError is raised; None waits for ever.
    """

    def __init__(
        self, tokenizer: Any, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        """Raises GenerationError where no event loop runs."""
        super().__init__(tokenizer, skip_prompt, timeout, **decode_kwargs)
        self.text_queue: asyncio.Queue[Any] = asyncio.Queue()  # type: ignore[assignment]
        try:
            self.loop = asyncio.get_running_loop()
        except RuntimeError as error:
            message = "An AsyncTextIteratorStreamer must be made inside a running event loop. Make it in a coroutine."
            raise GenerationError(message) from error

    def _send(self, item: Any) -> None:
        """Queue an item from whatever thread; where the reader's loop has gone, the run is cancelled."""
        try:
            self.loop.call_soon_threadsafe(self.text_queue.put_nowait, item)
        except RuntimeError:
            self._cancelled = True

    async def aclose(self) -> None:
        """Cancel the run, so that contextlib.aclosing() ends one whose reader leaves."""
        self.cancel()

    def __aiter__(self) -> Self:
        self._read = False
        return self

    async def __anext__(self) -> RowText:
        if self._read:
            raise StopAsyncIteration
        async with asyncio.timeout(self.timeout):
            item = self._received(await self.text_queue.get())
        if item is None:
            raise StopAsyncIteration
        return item


def _lists(value: Any) -> list[Any]:
    """Lists of ids out of lists, of arrays perhaps."""
    return [list(one) if isinstance(one, tuple) else arrays.listed(one) for one in value]
