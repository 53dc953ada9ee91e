"""Streamers show every character once, as soon as it is whole, and always end."""

import asyncio
import queue
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabula.errors import ArgumentError, CancelledError, GenerationError, NotSupportedError
from fabula.generation.results.streamers import (
    AsyncTextIteratorStreamer,
    BaseStreamer,
    TextIteratorStreamer,
    TextStreamer,
)
from tests.generation.byte_tokenizer import Bytes

PROMPT = "prompt:"
MANY = settings(deadline=None, max_examples=50)


TOKENIZER = Bytes()


class Recorder(TextStreamer):
    """Keeps what it is given."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.given = []

    def on_finalized_text(self, text, stream_end=False):
        self.given.append((self.row, text, stream_end))

    @property
    def text(self):
        return "".join(text for _, text, _ in self.given)


def feed(streamer, text, prompt=PROMPT):
    streamer.put([TOKENIZER.encode(prompt)])
    for token in TOKENIZER.encode(text):
        streamer.put([token])


class TestTextStreamer:
    def test_prints_prompt_and_text_and_a_newline(self, capsys):
        streamer = TextStreamer(TOKENIZER)
        feed(streamer, "héllo")
        streamer.end()
        assert capsys.readouterr().out == PROMPT + "héllo\n"

    def test_skips_the_prompt_when_asked_to(self, capsys):
        streamer = TextStreamer(TOKENIZER, skip_prompt=True)
        for _ in range(2):
            feed(streamer, "one")
            streamer.end()
        assert capsys.readouterr().out == "one\none\n"

    def test_gives_each_character_when_it_is_whole(self):
        streamer = Recorder(TOKENIZER, skip_prompt=True)
        feed(streamer, "aé你\n")
        assert [text for _, text, _ in streamer.given] == ["a", "é", "你", "\n"]

    def test_gives_what_is_left_with_the_end(self):
        streamer = Recorder(TOKENIZER, skip_prompt=True)
        feed(streamer, "a")
        streamer.put([0xE4])
        streamer.end()
        assert streamer.given == [(0, "a", False), (0, "\ufffd", True)]

    def test_passes_decode_arguments_on(self):
        streamer = Recorder(TOKENIZER, skip_prompt=True, skip_special_tokens=True)
        feed(streamer, "a")
        streamer.put([256])
        streamer.end()
        assert streamer.text == "a"

    def test_ends_without_having_begun(self):
        streamer = Recorder(TOKENIZER)
        streamer.end()
        assert streamer.given == [(0, "", True)]

    def test_takes_tensors_arrays_lists_and_blocks(self):
        torch = pytest.importorskip("torch")

        def rows_of_arrays(ids):
            return [np.array(one) for one in ids]

        for of in (torch.tensor, np.array, list, rows_of_arrays):
            streamer = Recorder(TOKENIZER)
            streamer.put(of([[65, 66]]))
            streamer.put(of([67]))
            streamer.put(of([[68, 69]]))
            assert streamer.text == "ABCDE"

    def test_ends_once_after_a_failure(self):
        streamer = Recorder(TOKENIZER, skip_prompt=True)
        feed(streamer, "a")
        streamer.fail(ValueError("x"))
        streamer.fail(ValueError("y"))
        streamer.end()
        assert streamer.given == [(0, "a", False), (0, "", True)]
        feed(streamer, "b")
        streamer.end()
        assert streamer.given[2:] == [(0, "b", False), (0, "", True)]

    def test_cancelled_ends_the_run(self):
        streamer = Recorder(TOKENIZER)
        feed(streamer, "a")
        streamer.cancel()
        with pytest.raises(CancelledError):
            streamer.put([65])

    def test_refuses_a_tokenizer_that_cannot_decode(self):
        with pytest.raises(ArgumentError, match="`tokenizer` must have decode"):
            TextStreamer("gpt2")


class TestManyRows:
    def test_are_printed_one_after_another(self, capsys):
        streamer = TextStreamer(TOKENIZER, skip_prompt=True)
        streamer.put([[80], [81], [82]])
        for step in zip(b"abc", b"def", b"ghi", strict=True):
            streamer.put(np.array(step))
        assert capsys.readouterr().out == "abc"
        streamer.end()
        assert capsys.readouterr().out == "\ndef\nghi\n"

    def test_come_live_when_those_before_have_ended(self):
        streamer = Recorder(TOKENIZER, skip_prompt=True)
        for row in range(2):
            streamer.put([80], row=row)
        streamer.put([97], row=0)
        streamer.put([98], row=1)
        assert streamer.given == [(0, "a", False)]
        streamer.end_row(0)
        assert streamer.given[1:] == [(1, "\nb", False)]
        streamer.put([99], row=1)
        streamer.end_row(1)
        streamer.end()
        assert streamer.given[2:] == [(1, "c", False), (1, "", True)]

    def test_show_their_prompts_first(self):
        streamer = Recorder(TOKENIZER)
        streamer.put([[80], [81]])
        streamer.put([97, 98])
        streamer.end()
        assert streamer.text == "Pa\nQb"

    def test_must_be_as_many_as_prompts(self):
        streamer = Recorder(TOKENIZER)
        streamer.put([[80], [81]])
        with pytest.raises(ArgumentError, match="`value` must hold ids of 2 rows, got 3"):
            streamer.put([1, 2, 3])

    def test_say_whose_text_it_is_in_an_iterator(self):
        streamer = TextIteratorStreamer(TOKENIZER, skip_prompt=True)
        streamer.put([[80], [81]])
        streamer.put([97, 98])
        streamer.put([99, 0xE4])
        streamer.end()
        assert [(piece.row, piece) for piece in streamer] == [(0, "a"), (1, "b"), (0, "c"), (1, "\ufffd")]


class TestIterator:
    def run(self, streamer, text, error=None):
        def work():
            feed(streamer, text)
            if error is not None:
                streamer.fail(error)
            streamer.end()

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    def test_gives_all_text_and_stops_for_good(self):
        streamer = TextIteratorStreamer(TOKENIZER, timeout=10)
        thread = self.run(streamer, "héllo")
        assert "".join(streamer) == PROMPT + "héllo"
        thread.join()
        with pytest.raises(StopIteration):
            next(streamer)

    def test_serves_another_run(self):
        streamer = TextIteratorStreamer(TOKENIZER, skip_prompt=True, timeout=10)
        for text in ("one", "two"):
            thread = self.run(streamer, text)
            assert "".join(streamer) == text
            thread.join()

    def test_raises_what_the_run_failed_with_after_its_text(self):
        streamer = TextIteratorStreamer(TOKENIZER, skip_prompt=True, timeout=10)
        thread = self.run(streamer, "abc", GenerationError("broken"))
        pieces = []
        with pytest.raises(GenerationError, match="broken"):
            pieces.extend(streamer)
        assert list(streamer_text(streamer)) == []
        thread.join()
        thread = self.run(streamer, "again")
        assert "".join(streamer) == "again"
        thread.join()

    def test_waits_no_longer_than_its_timeout(self):
        with pytest.raises(queue.Empty):
            next(TextIteratorStreamer(TOKENIZER, timeout=0.01))

    def test_cancelled_ends_reader_and_run(self):
        streamer = TextIteratorStreamer(TOKENIZER, skip_prompt=True)
        feed(streamer, "ab")
        streamer.cancel()
        assert "".join(streamer) == "ab"
        with pytest.raises(CancelledError):
            streamer.put([65])

    def test_lets_a_subclass_change_the_text(self):
        class Loud(TextIteratorStreamer):
            def on_finalized_text(self, text, stream_end=False):
                super().on_finalized_text(text.upper(), stream_end)

        streamer = Loud(TOKENIZER)
        feed(streamer, "abc")
        streamer.end()
        assert "".join(streamer) == (PROMPT + "abc").upper()


def streamer_text(streamer):
    """What is waiting in the queue."""
    while not streamer.text_queue.empty():
        yield streamer.text_queue.get()


class TestAsyncIterator:
    def read(self, work, **options):
        async def main():
            streamer = AsyncTextIteratorStreamer(TOKENIZER, skip_prompt=True, **options)
            thread = threading.Thread(target=work, args=(streamer,))
            thread.start()
            try:
                return "".join([piece async for piece in streamer])
            finally:
                thread.join()

        return asyncio.run(main())

    def test_gives_all_text(self):
        def work(streamer):
            feed(streamer, "héllo")
            streamer.end()

        assert self.read(work) == "héllo"

    def test_raises_what_the_run_failed_with(self):
        def work(streamer):
            feed(streamer, "a")
            streamer.fail(GenerationError("broken"))
            streamer.end()

        with pytest.raises(GenerationError, match="broken"):
            self.read(work)

    def test_waits_no_longer_than_its_timeout(self):
        with pytest.raises(TimeoutError):
            self.read(lambda streamer: None, timeout=0.01)

    def test_is_cancelled_when_its_loop_has_gone(self):
        async def main():
            return AsyncTextIteratorStreamer(TOKENIZER)

        streamer = asyncio.run(main())
        streamer.put([[65]])
        with pytest.raises(CancelledError):
            streamer.put([66])
        streamer.end()

    def test_must_be_made_inside_a_loop(self):
        with pytest.raises(GenerationError, match="running event loop"):
            AsyncTextIteratorStreamer(TOKENIZER)


class TestProtocol:
    def test_a_users_own_streamer_ends_when_the_run_fails(self):
        class Own(BaseStreamer):
            ended = False

            def put(self, value):
                pass

            def end(self):
                self.ended = True

        own = Own()
        own.fail(ValueError("x"))
        assert own.ended

    def test_put_and_end_must_be_defined(self):
        with pytest.raises(NotSupportedError, match="`put` must be defined"):
            BaseStreamer().put([1])
        with pytest.raises(NotSupportedError, match="`end` must be defined"):
            BaseStreamer().end()

    @MANY
    @given(st.text(max_size=20))
    def test_the_text_is_that_of_transformers(self, text):
        transformers = pytest.importorskip("transformers")
        torch = pytest.importorskip("torch")
        ours = TextIteratorStreamer(TOKENIZER, skip_prompt=True)
        theirs = transformers.TextIteratorStreamer(TOKENIZER, skip_prompt=True)
        for streamer in (ours, theirs):
            streamer.put(torch.tensor([TOKENIZER.encode(PROMPT)]))
            for token in TOKENIZER.encode(text):
                streamer.put(torch.tensor([token]))
            streamer.end()
        assert "".join(ours) == "".join(theirs) == text
