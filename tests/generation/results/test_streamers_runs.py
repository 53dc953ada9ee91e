"""Streamers of real runs: rows arrive whole, errors reach the reader, and a reader that leaves ends the run."""

import asyncio
import threading
from contextlib import aclosing, closing

import pytest

from fabula import AsyncTextIteratorStreamer, AutoModelForCausalLM, TextIteratorStreamer
from fabula.errors import ArgumentError, CancelledError

PROMPTS = [[72, 101, 108, 108, 111], [65], [49, 44, 32, 50]]


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder)


def until(left):
    """Settings of a run that cannot come to its end before its reader has left."""

    def wait(ids, scores):
        if ids.shape[1] > 40:
            left.wait(60)
        return scores

    return {"max_new_tokens": 60, "eos_token_id": None, "logits_processor": [wait]}


def texts(model, rows, prompts):
    """What was added to each prompt, as text."""
    return [model.tokenizer.decode(row[len(prompt) :]) for row, prompt in zip(rows, prompts, strict=True)]


async def read(streamer, count):
    """The text of each row."""
    gathered = [""] * count
    async for piece in streamer:
        gathered[piece.row] += piece
    return gathered


class TestAsync:
    @pytest.mark.parametrize("copies", [1, 3])
    def test_rows_of_a_batch_arrive_whole(self, model, copies):
        settings = {"max_new_tokens": 12, "do_sample": True, "seed": 3, "num_return_sequences": copies}

        async def main():
            streamer = AsyncTextIteratorStreamer(model.tokenizer, skip_prompt=True)
            run = asyncio.create_task(asyncio.to_thread(model.generate, PROMPTS, streamer=streamer, **settings))
            return await read(streamer, len(PROMPTS) * copies), await run

        streamed, rows = asyncio.run(main())
        assert streamed == texts(model, rows, [prompt for prompt in PROMPTS for _ in range(copies)])
        assert rows == model.generate(PROMPTS, **settings)

    def test_several_runs_at_once_keep_to_themselves(self, model):
        async def one(prompt):
            streamer = AsyncTextIteratorStreamer(model.tokenizer, skip_prompt=True)
            run = asyncio.create_task(asyncio.to_thread(model.generate, [prompt], streamer=streamer, max_new_tokens=12))
            (text,) = await read(streamer, 1)
            await run
            return text

        async def main():
            return await asyncio.gather(*(one(prompt) for prompt in PROMPTS))

        assert asyncio.run(main()) == texts(model, model.generate(PROMPTS, max_new_tokens=12), PROMPTS)

    @pytest.mark.parametrize(
        ("inputs", "settings", "error"),
        [
            ([], {}, ArgumentError),
            (PROMPTS, {"temperature": -1.0, "do_sample": True}, ArgumentError),
            (PROMPTS[:1], {"logits_processor": [lambda ids, scores: 1 / 0]}, ZeroDivisionError),
        ],
    )
    def test_what_ends_a_run_reaches_the_reader(self, model, inputs, settings, error):
        async def main():
            streamer = AsyncTextIteratorStreamer(model.tokenizer, skip_prompt=True)
            run = asyncio.create_task(asyncio.to_thread(model.generate, inputs, streamer=streamer, **settings))
            with pytest.raises(error):
                await read(streamer, len(inputs))
            with pytest.raises(error):
                await run

        asyncio.run(main())

    def test_a_reader_that_leaves_ends_the_run(self, model):
        left = threading.Event()

        async def main():
            async with aclosing(AsyncTextIteratorStreamer(model.tokenizer, skip_prompt=True)) as streamer:
                work = asyncio.to_thread(model.generate, PROMPTS, streamer=streamer, **until(left))
                run = asyncio.create_task(work)
                async for _ in streamer:
                    break
            left.set()
            with pytest.raises(CancelledError):
                await run

        asyncio.run(main())
        assert len(model.generate([[65]], max_new_tokens=3)[0]) == 4

    def test_a_cancelled_task_ends_the_run_by_leaving(self, model):
        left, runs = threading.Event(), []

        async def reader(started):
            async with aclosing(AsyncTextIteratorStreamer(model.tokenizer, skip_prompt=True)) as streamer:
                work = asyncio.to_thread(model.generate, [[65]], streamer=streamer, **until(left))
                runs.append(asyncio.create_task(work))
                async for _ in streamer:
                    started.set()
                    await asyncio.Event().wait()  # for ever: only cancelling ends it

        async def main():
            started = asyncio.Event()
            task = asyncio.create_task(reader(started))
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            left.set()
            with pytest.raises(CancelledError):
                await runs[0]

        asyncio.run(main())

    def test_a_timeout_leaves_the_run_to_be_read_on(self, model):
        gate = threading.Event()

        def hold(ids, scores):
            gate.wait(60)
            return scores

        async def main():
            streamer = AsyncTextIteratorStreamer(model.tokenizer, skip_prompt=True, timeout=0.01)
            settings = {"logits_processor": [hold], "max_new_tokens": 5}
            run = asyncio.create_task(asyncio.to_thread(model.generate, [[65]], streamer=streamer, **settings))
            with pytest.raises(TimeoutError):
                await anext(streamer)
            gate.set()
            streamer.timeout = None
            text = "".join([piece async for piece in streamer])
            return text, await run

        text, rows = asyncio.run(main())
        assert [text] == texts(model, rows, [[65]])


class TestThreads:
    def run(self, model, inputs, **settings):
        """A thread that generates, and what it ended with."""
        ends = []

        def work():
            try:
                ends.append(model.generate(inputs, **settings))
            except Exception as error:
                ends.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        return thread, ends

    def test_rows_of_a_batch_arrive_whole(self, model):
        streamer = TextIteratorStreamer(model.tokenizer, skip_prompt=True, timeout=60)
        thread, ends = self.run(model, PROMPTS, streamer=streamer, max_new_tokens=12)
        gathered = [""] * 3
        for piece in streamer:
            gathered[piece.row] += piece
        thread.join()
        assert gathered == texts(model, ends[0], PROMPTS)

    def test_a_reader_that_leaves_ends_the_run(self, model):
        left = threading.Event()
        with closing(TextIteratorStreamer(model.tokenizer, skip_prompt=True, timeout=60)) as streamer:
            thread, ends = self.run(model, PROMPTS, streamer=streamer, **until(left))
            next(streamer)
        left.set()
        thread.join()
        assert isinstance(ends[0], CancelledError)
