"""generate() on a tiny model: what goes in decides what comes out, rows do not depend on their batch, limits hold."""

import os
import signal
import threading
import time
from functools import partial

import numpy as np
import pytest

from fabula import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BaseStreamer,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
    set_seed,
)
from fabula.errors import ArgumentError, ContextLengthError, NotSupportedError, UnknownArgumentError
from tests.padding import padded

torch = pytest.importorskip("torch")
PROMPTS = [[72, 101, 108, 108, 111], [65], [49, 44, 32, 50, 44, 32, 51, 44, 32]]
EOS = 256
rectangle = partial(padded, fill=258, convert=torch.as_tensor)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def test_tensors_give_tensors_arrays_give_arrays_and_lists_give_lists(model):
    ids = torch.tensor(PROMPTS[:1])
    out = model.generate(ids, max_new_tokens=4)
    assert isinstance(out, torch.Tensor) and out.dtype == torch.int64 and out.shape[1] <= 9
    array = model.generate(ids.numpy(), max_new_tokens=4)
    assert isinstance(array, np.ndarray) and (array == out.numpy()).all()
    lists = model.generate(PROMPTS, max_new_tokens=4)
    assert isinstance(lists, list) and lists[0] == out[0].tolist()


@pytest.mark.parametrize(
    "settings",
    [
        {"max_new_tokens": 30},
        {"max_length": 25},
        {"max_new_tokens": 30, "min_new_tokens": 30},
        {"max_new_tokens": 30, "repetition_penalty": 1.3},
        {"max_new_tokens": 30, "eos_token_id": [256, 10, 32, 101]},
        {"max_new_tokens": 30, "eos_token_id": [10, 32, 101], "min_length": 20},
        {"max_new_tokens": 30, "no_repeat_ngram_size": 2},
        {"max_new_tokens": 30, "bad_words_ids": [[32], [101, 10]], "suppress_tokens": [5, 6, 7]},
        {"max_new_tokens": 12, "sequence_bias": [[[65], 8.0], [[66, 65], -3.0]]},
        {"max_new_tokens": 12, "forced_eos_token_id": 256, "begin_suppress_tokens": list(range(100))},
        {"max_new_tokens": 30, "encoder_repetition_penalty": 1.2, "encoder_no_repeat_ngram_size": 3},
        {"max_new_tokens": 30, "exponential_decay_length_penalty": (5, 1.4), "eos_token_id": [10, 256]},
    ],
    ids=str,
)
def test_greedy_tokens_equal_those_of_transformers(model, reference, settings):
    ids, mask = rectangle(PROMPTS, "left")
    expected = reference.generate(input_ids=ids, attention_mask=mask, do_sample=False, **settings)
    assert model.generate(input_ids=ids, attention_mask=mask, do_sample=False, **settings).tolist() == expected.tolist()


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_row_gives_what_the_row_alone_gives(model, side):
    ids, mask = rectangle(PROMPTS, side)
    out = model.generate(ids, attention_mask=mask, max_new_tokens=12, eos_token_id=None)
    assert (out[:, : ids.shape[1]] == ids).all()
    for row, prompt in zip(out, PROMPTS, strict=True):
        alone = model.generate([prompt], max_new_tokens=12, eos_token_id=None)[0]
        assert row[ids.shape[1] :].tolist() == alone[len(prompt) :]


def test_a_mask_is_inferred_where_pads_can_be_told_from_text(model):
    ids, mask = rectangle(PROMPTS, "left")
    assert (model.generate(ids, max_new_tokens=8) == model.generate(ids, attention_mask=mask, max_new_tokens=8)).all()


def test_a_mask_that_cannot_be_inferred_is_warned_of(model):
    ids, _ = rectangle(PROMPTS, "left", fill=EOS)
    with pytest.warns(UserWarning, match="cannot be inferred"):
        model.generate(ids, pad_token_id=EOS, max_new_tokens=2)


def test_nothing_set_is_twenty_new_tokens(model):
    out = model.generate(PROMPTS[:1], eos_token_id=None)
    assert len(out[0]) == len(PROMPTS[0]) + 20


def test_no_prompt_starts_from_the_beginning_of_sequence(model):
    assert model.generate(max_new_tokens=3)[0, 0] == 257


def test_a_seeded_row_does_not_depend_on_its_batch(model):
    settings = dict(do_sample=True, max_new_tokens=12, temperature=1.5, top_k=0)
    together = model.generate(PROMPTS, seed=[7, 8, 9], **settings)
    alone = [model.generate([p], seed=s, **settings)[0] for p, s in zip(PROMPTS, [7, 8, 9], strict=True)]
    assert together == alone
    reversed_ = model.generate(PROMPTS[::-1], seed=[9, 8, 7], **settings)
    assert reversed_ == alone[::-1]


def test_one_seed_gives_prompt_i_the_streams_from_i_times_n(model):
    settings = dict(do_sample=True, max_new_tokens=10, seed=5, top_k=0)
    rows = model.generate([PROMPTS[0]] * 2, num_return_sequences=2, **settings)
    assert rows == model.generate([PROMPTS[0]], num_return_sequences=4, **settings)
    assert len({tuple(row) for row in rows}) == 4


def test_without_a_seed_the_draw_follows_the_doors_own_generator(model):
    ids = torch.tensor(PROMPTS[:1])
    draws = []
    for start in (lambda: torch.manual_seed(3), lambda: torch.manual_seed(3), lambda: set_seed(4)):
        start()
        draws.append(model.generate(ids, do_sample=True, max_new_tokens=15).tolist())
    draws.append(model.generate(ids, do_sample=True, max_new_tokens=15).tolist())
    assert draws[0] == draws[1] and len({str(d) for d in draws}) == 3
    np.random.seed(1)
    first = model.generate(PROMPTS, do_sample=True, max_new_tokens=15)
    np.random.seed(1)
    assert model.generate(PROMPTS, do_sample=True, max_new_tokens=15) == first


def test_temperature_zero_is_greedy(model):
    greedy = model.generate(PROMPTS, max_new_tokens=8)
    assert model.generate(PROMPTS, do_sample=True, temperature=0, max_new_tokens=8) == greedy


def test_a_stop_string_ends_the_row_that_wrote_it(model, tokenizer):
    free = model.generate(PROMPTS, max_new_tokens=30, eos_token_id=None)
    text = tokenizer.decode(free[0][len(PROMPTS[0]) :])
    stop = text[4:7]
    rows = model.generate(PROMPTS, max_new_tokens=30, eos_token_id=None, stop_strings=[stop])
    ended = tokenizer.decode(rows[0][len(PROMPTS[0]) :])
    assert stop in ended and stop not in ended[:-1] and text.startswith(ended)


def test_max_time_ends_a_row_after_the_step_that_passed_it(model):
    out = model.generate(PROMPTS[:1], max_new_tokens=400, max_time=1e-9, eos_token_id=None)
    assert len(out[0]) == len(PROMPTS[0]) + 1


def test_a_dict_says_why_each_row_ended_and_keeps_scores(model, reference):
    ids, mask = rectangle(PROMPTS, "left")
    settings = dict(
        max_new_tokens=5, eos_token_id=None, return_dict_in_generate=True, output_scores=True, output_logits=True
    )
    out = model.generate(ids, attention_mask=mask, repetition_penalty=1.2, **settings)
    expected = reference.generate(ids, attention_mask=mask, repetition_penalty=1.2, **settings)
    assert out.finish_reasons == ["length"] * 3
    for ours, theirs in ((out.scores, expected.scores), (out.logits, expected.logits)):
        assert len(ours) == 5
        torch.testing.assert_close(torch.stack(ours), torch.stack(theirs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("normalize", [False, True])
def test_transition_scores_equal_those_of_transformers(model, reference, normalize):
    ids = torch.tensor(PROMPTS[:1])
    settings = dict(max_new_tokens=8, return_dict_in_generate=True, output_scores=True, repetition_penalty=1.1)
    ours, theirs = model.generate(ids, **settings), reference.generate(ids, **settings)
    torch.testing.assert_close(
        model.compute_transition_scores(ours.sequences, ours.scores, normalize_logits=normalize),
        reference.compute_transition_scores(theirs.sequences, theirs.scores, normalize_logits=normalize),
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_text_that_goes_on_behind_an_end_token_keeps_its_transition_scores(model, reference):
    """The call knew no end token, or another one, so that the model's own is a token like any."""
    settings = dict(max_new_tokens=5, return_dict_in_generate=True, output_scores=True, eos_token_id=None)
    ours = model.generate(torch.tensor(PROMPTS[:1]), **settings)
    sequences = ours.sequences.clone()
    sequences[0, -3], sequences[0, -2:] = model.generation_config.eos_token_id, 40
    got = model.compute_transition_scores(sequences, ours.scores)
    torch.testing.assert_close(got, reference.compute_transition_scores(sequences, ours.scores))


def test_a_streamer_gets_the_prompt_each_token_and_the_end(model):
    class Heard:
        def __init__(self):
            self.values, self.ended = [], 0

        def put(self, value):
            self.values.append(np.asarray(value).tolist())

        def end(self):
            self.ended += 1

    heard = Heard()
    out = model.generate(torch.tensor(PROMPTS[:1]), streamer=heard, max_new_tokens=6, eos_token_id=None)
    assert heard.values[0] == PROMPTS[:1] and heard.ended == 1
    assert [token for value in heard.values[1:] for token in value] == out[0, len(PROMPTS[0]) :].tolist()


def test_streamed_pieces_add_up_and_an_error_reaches_the_reader(model, tokenizer):
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=30)
    ids = torch.tensor(PROMPTS[:1])
    thread = threading.Thread(target=model.generate, args=(ids,), kwargs=dict(streamer=streamer, max_new_tokens=12))
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text == tokenizer.decode(model.generate(ids, max_new_tokens=12)[0, len(PROMPTS[0]) :])
    failing = TextIteratorStreamer(tokenizer, timeout=30)
    failing.put = lambda value: 1 / 0
    with pytest.raises(ZeroDivisionError):
        model.generate(ids, streamer=failing, max_new_tokens=3)
    with pytest.raises(ZeroDivisionError):
        list(failing)


def test_rows_of_a_batch_stream_side_by_side(model, tokenizer):
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=30)
    rows = model.generate(PROMPTS, streamer=streamer, max_new_tokens=12, do_sample=True, seed=1, num_return_sequences=2)
    texts = [""] * 6
    for piece in streamer:
        texts[piece.row] += piece
    assert texts == [tokenizer.decode(row[len(PROMPTS[i // 2]) :]) for i, row in enumerate(rows)]


class Steps(BaseStreamer):
    """Keeps what it is given, as a streamer does that was written for transformers."""

    def __init__(self):
        self.given, self.ended = [], 0

    def put(self, value):
        self.given.append(value.tolist())

    def end(self):
        self.ended += 1


@pytest.mark.parametrize("sequences", [1, 2])
def test_a_streamer_that_knows_no_rows_gets_steps_as_in_transformers(model, reference, sequences):
    ids, mask = rectangle(PROMPTS)
    settings = {"max_new_tokens": 12, "pad_token_id": 0, "num_return_sequences": sequences}
    free = model.generate(ids, attention_mask=mask, **settings, do_sample=sequences > 1, seed=1)
    ends = free[:, ids.shape[1] + 3].tolist()  # where some of them end
    ours, theirs = Steps(), Steps()
    found = model.generate(
        ids, attention_mask=mask, **settings, do_sample=sequences > 1, seed=1, eos_token_id=ends, streamer=ours
    )
    new = found[:, ids.shape[1] :].T.tolist()
    assert ours.given == [np.repeat(ids.numpy(), sequences, 0).tolist(), *new] and ours.ended == 1
    if sequences == 1:
        reference.generate(ids, attention_mask=mask, **settings, do_sample=False, eos_token_id=ends, streamer=theirs)
        assert ours.given == theirs.given


def test_a_streamer_without_rows_hears_of_an_error_once(model):
    streamer = Steps()
    streamer.put = lambda value: 1 / 0
    with pytest.raises(ZeroDivisionError):
        model.generate(PROMPTS, streamer=streamer, max_new_tokens=3)
    assert streamer.ended == 1


def test_the_callers_own_processor_and_criterion_see_its_framework(model, reference):
    class Favour:
        def __call__(self, input_ids, scores):
            assert isinstance(input_ids, torch.Tensor) and isinstance(scores, torch.Tensor)
            scores = scores.clone()
            scores[:, 65] += 3.0
            return scores

    class Until(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.tensor([(row[-3:] == 65).all() for row in input_ids])

    ids = torch.tensor(PROMPTS[:1])
    own = dict(logits_processor=LogitsProcessorList([Favour()]), stopping_criteria=StoppingCriteriaList([Until()]))
    transformers = pytest.importorskip("transformers")
    theirs = dict(
        logits_processor=transformers.LogitsProcessorList([Favour()]),
        stopping_criteria=transformers.StoppingCriteriaList([Until()]),
    )
    expected = reference.generate(ids, max_new_tokens=40, **theirs)
    assert model.generate(ids, max_new_tokens=40, **own).tolist() == expected.tolist()


def test_a_function_says_which_tokens_may_come(model, reference):
    def allowed(batch, ids):
        assert isinstance(ids, torch.Tensor)
        return [70 + batch, 80 + int(ids[-1]) % 10, 90]

    ids, mask = rectangle(PROMPTS, "left")
    settings = dict(attention_mask=mask, max_new_tokens=10, prefix_allowed_tokens_fn=allowed)
    assert model.generate(ids, **settings).tolist() == reference.generate(ids, **settings).tolist()


def test_threads_get_what_they_would_get_alone(model):
    expected = [model.generate([prompt], max_new_tokens=20)[0] for prompt in PROMPTS]
    found = [None] * 12

    def work(i):
        found[i] = model.generate([PROMPTS[i % 3]], max_new_tokens=20)[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [expected[i % 3] for i in range(12)]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_generates(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, backend="native")
    expected = model.generate(PROMPTS, max_new_tokens=10)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, str(model.generate(PROMPTS, max_new_tokens=10)).encode())
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 1 << 16).decode() == str(expected)
    assert os.waitpid(child, 0)[1] == 0


def test_control_c_ends_the_call_and_frees_its_rows(model):
    def interrupt():
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(2000):
            model.generate(PROMPTS, max_new_tokens=400, eos_token_id=None)
    model.engine.step()
    model.engine.pool.check([])
    assert model.generate(PROMPTS, max_new_tokens=2)


def test_the_models_own_config_holds_where_the_call_says_nothing(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config = GenerationConfig(max_new_tokens=3, eos_token_id=None)
    assert len(model.generate([[1]])[0]) == 4
    assert len(model.generate([[1]], GenerationConfig(max_new_tokens=5))[0]) == 6
    assert len(model.generate([[1]], GenerationConfig(max_new_tokens=5), max_new_tokens=7)[0]) == 8


@pytest.mark.parametrize(
    ("inputs", "settings", "error", "words"),
    [
        ([[]], {}, ArgumentError, "one or more"),
        ([], {}, ArgumentError, "at least one"),
        ([1, 2], {}, ArgumentError, "list of prompts"),
        ([[1, 2.5]], {}, ArgumentError, "integer"),
        ([[-1]], {}, ArgumentError, "-1"),
        ([[259]], {}, ArgumentError, "259"),
        ([[2**40]], {}, ArgumentError, "vocabulary"),
        ([[1] * 512], {}, ContextLengthError, "512"),
        (np.zeros((2, 3, 4), np.int64), {}, ArgumentError, "2 dimensions"),
        (np.zeros((1, 3)), {}, ArgumentError, "integers"),
        (np.zeros((1, 0), np.int64), {}, ArgumentError, "at least one"),
        (np.zeros((1, 3), np.int64), {"attention_mask": np.ones((1, 2))}, ArgumentError, "shape"),
        (np.zeros((1, 3), np.int64), {"attention_mask": np.zeros((1, 3))}, ArgumentError, "row 0"),
        (np.zeros((1, 3), np.int64), {"attention_mask": np.full((1, 3), 7)}, ArgumentError, "0 .* 1"),
        ([[1]], {"temprature": 0.5}, UnknownArgumentError, "temperature"),
        ([[1]], {"max_new_tokens": 0}, ArgumentError, "max_new_tokens"),
        ([[1]], {"do_sample": True, "temperature": -1}, ArgumentError, "temperature"),
        ([[1]], {"do_sample": True, "top_p": 1.5}, ArgumentError, "top_p"),
        ([[1]], {"do_sample": True, "seed": 1.5}, ArgumentError, "seed"),
        ([[1]], {"do_sample": True, "seed": [1, 2]}, ArgumentError, "one seed a prompt"),
        ([[1]], {"num_return_sequences": 2}, ArgumentError, "num_return_sequences"),
        ([[1, 2, 3]], {"max_length": 3}, ArgumentError, "max_length"),
        ([[1]], {"negative_prompt_ids": [[1]]}, ArgumentError, "guidance_scale"),
        ([[1, 2]], {"token_type_ids": [[0, 1]]}, NotSupportedError, "token_type_ids"),
        ([[1]], {"assistant_model": object()}, ArgumentError, "assistant_model"),
        ([[1]], {"logits_processor": [3]}, ArgumentError, "logits_processor"),
        ([[1]], {"stop_strings": [""]}, ArgumentError, "stop_strings"),
    ],
    ids=lambda value: str(value)[:40] if not isinstance(value, type) else value.__name__,
)
def test_what_makes_no_sense_is_refused_by_name(model, inputs, settings, error, words):
    with pytest.raises(error, match=words):
        model.generate(inputs, **settings)
