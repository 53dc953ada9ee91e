"""custom_generate: a loop of the caller's own gets what transformers would give it, and takes generate()'s place."""

import numpy as np
import pytest

from fabula import LogitsProcessorList, StoppingCriteriaList, TextIteratorStreamer, TextStreamer
from fabula.errors import ArgumentError, ContextLengthError, NotSupportedError, UnknownArgumentError
from fabula.generation.custom import next_inputs, with_outputs

torch = pytest.importorskip("torch")
HELLO = [72, 101, 108, 108, 111]
LEFT = torch.tensor([[258, 258, 258, 65, 66], HELLO])
MASK = torch.tensor([[0, 0, 0, 1, 1], [1, 1, 1, 1, 1]])


def call(model, loop, inputs, generation_config=None, **named):
    return model.generate(inputs, generation_config, custom_generate=loop, **named)


def greedy(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
    """A loop as transformers' guide has it, without a cache."""
    mask = model_kwargs.get("attention_mask")
    ended = torch.zeros(len(input_ids), dtype=torch.bool)
    while not ended.all():
        logits = model(input_ids=input_ids, attention_mask=mask).logits[:, -1, :].float()
        tokens = logits_processor(input_ids, logits).argmax(-1)
        tokens = torch.where(ended, generation_config._pad_token_tensor, tokens)
        input_ids = torch.cat([input_ids, tokens[:, None]], 1)
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        ended = ended | stopping_criteria(input_ids, None)
    return input_ids


def seen(model, input_ids, **named):
    """Everything that a loop was given."""
    return {"input_ids": input_ids, **named}


@pytest.mark.parametrize(
    ("inputs", "settings"),
    [
        (LEFT[1:], {"max_new_tokens": 6}),
        (LEFT, {"attention_mask": MASK, "max_new_tokens": 6}),
        (LEFT, {"attention_mask": MASK, "max_length": 9, "repetition_penalty": 1.3}),
        (LEFT[1:], {"max_new_tokens": 12, "eos_token_id": [32, 101, 10], "min_new_tokens": 3}),
        (LEFT[1:], {"max_new_tokens": 6, "no_repeat_ngram_size": 1, "suppress_tokens": [3, 5]}),
        (LEFT[1:], {"max_new_tokens": 6, "forced_eos_token_id": 256}),
    ],
)
def test_a_loop_gives_with_either_model_what_it_gives_with_transformers(model, reference, inputs, settings):
    ours = call(model, greedy, inputs, **settings)
    theirs = call(reference, greedy, inputs, **settings)
    assert ours.tolist() == theirs.tolist()
    assert ours.tolist() == model.generate(inputs, **settings).tolist()


def test_the_lists_hold_what_transformers_puts_into_them(model, reference):
    settings = {"max_new_tokens": 4, "repetition_penalty": 1.3, "temperature": 0.7, "do_sample": True, "top_k": 5}
    settings |= {"bad_words_ids": [[3]], "max_time": 60.0, "eos_token_id": 256}
    ours, theirs = call(model, seen, LEFT[1:], **settings), call(reference, seen, LEFT[1:], **settings)
    names = [{type(one).__name__ for one in given["logits_processor"]} for given in (ours, theirs)]
    assert names[0] == names[1]
    names = [[type(one).__name__ for one in given["stopping_criteria"]] for given in (ours, theirs)]
    assert names[0] == names[1]
    assert isinstance(ours["logits_processor"], LogitsProcessorList)
    assert isinstance(ours["stopping_criteria"], StoppingCriteriaList)
    scores = torch.randn(1, 259, generator=torch.Generator().manual_seed(0))
    expected = theirs["logits_processor"](theirs["input_ids"], scores.clone())
    torch.testing.assert_close(ours["logits_processor"](ours["input_ids"], scores), expected)


def test_rows_are_expanded_and_the_config_is_settled(model, reference):
    settings = {"attention_mask": MASK, "num_return_sequences": 2, "do_sample": True, "max_new_tokens": 7}
    settings |= {"min_new_tokens": 2}
    ours, theirs = call(model, seen, LEFT, **settings), call(reference, seen, LEFT, **settings)
    assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
    assert ours["attention_mask"].tolist() == theirs["attention_mask"].tolist()
    for name in ("max_length", "min_length", "do_sample", "num_return_sequences", "top_k", "eos_token_id"):
        assert getattr(ours["generation_config"], name) == getattr(theirs["generation_config"], name)
    for name in ("_pad_token_tensor", "_bos_token_tensor", "_eos_token_tensor"):
        mine, other = (getattr(given["generation_config"], name) for given in (ours, theirs))
        assert mine.reshape(-1).tolist() == other.reshape(-1).tolist()
    assert model.generation_config.max_length is None


def test_a_mask_of_ones_is_none(model, reference):
    for one in (model, reference):
        assert call(one, seen, LEFT[1:], attention_mask=MASK[1:], max_new_tokens=2)["attention_mask"] is None


def test_arguments_of_the_loops_own_reach_it_and_unknown_ones_are_refused(model, reference):
    def loop(model, input_ids, logits_processor, stopping_criteria, generation_config, left=0, **model_kwargs):
        return left

    for one in (model, reference):
        assert call(one, loop, LEFT[1:], max_new_tokens=2, left=3) == 3
    with pytest.raises(UnknownArgumentError, match="`right`"):
        call(model, loop, LEFT[1:], max_new_tokens=2, right=3)


def test_a_loop_may_take_few_arguments(model):
    assert call(
        model,
        lambda model, input_ids, logits_processor, stopping_criteria, generation_config: input_ids,
        LEFT[1:],
        max_new_tokens=2,
    ).tolist() == [HELLO]


def test_lists_are_padded_on_the_left_in_the_models_own_framework(model):
    given = call(model, seen, [HELLO, [65]], max_new_tokens=4)
    like = np.ndarray if model.inputs_like is None else torch.Tensor
    assert isinstance(given["input_ids"], like)
    assert given["input_ids"].tolist() == [HELLO, [258] * 4 + [65]]
    assert given["attention_mask"].tolist() == [[1] * 5, [0, 0, 0, 0, 1]]


def test_processors_of_padded_rows_do_not_see_padding(model):
    own = []
    call_settings = {"attention_mask": MASK, "repetition_penalty": 2.0, "max_new_tokens": 4}
    given = call(
        model, seen, LEFT, logits_processor=[lambda ids, scores: own.append(ids.tolist()) or scores], **call_settings
    )
    scores = torch.ones(2, 259)
    processed = given["logits_processor"](given["input_ids"], scores)
    assert own == [[[65, 66]], [HELLO]]
    assert processed[0, 258] == 1 and processed[0, 65] == 0.5 and processed[1, 65] == 1
    with pytest.raises(ArgumentError, match="`scores` must have the call's 2 rows, got 3"):
        given["logits_processor"](given["input_ids"], torch.ones(3, 259))


def test_the_callers_own_come_last(model):
    criterion = lambda ids, scores: torch.tensor([ids.shape[1] >= 7])  # noqa: E731
    own = {
        "stopping_criteria": [criterion],
        "logits_processor": [lambda ids, scores: scores.index_fill(1, ids[0], 9.0)],
    }
    given = call(model, seen, LEFT[1:], max_new_tokens=9, **own)
    assert given["stopping_criteria"][-1] is criterion
    assert call(model, greedy, LEFT[1:], max_new_tokens=9, **own).shape[1] == 7


def test_gradients_are_not_recorded(model):
    def loop(model, input_ids, **named):
        return torch.is_grad_enabled()

    assert call(model, loop, LEFT[1:], max_new_tokens=2) is False
    assert torch.is_grad_enabled()


def test_helpers_reach_a_loop_that_names_them(model, capsys):
    def loop(model, input_ids, streamer, tokenizer, **named):
        streamer.put(input_ids)
        streamer.end()
        return tokenizer

    tokenizer = model.tokenizer
    assert (
        call(model, loop, LEFT[1:], streamer=TextStreamer(tokenizer), tokenizer=tokenizer, max_new_tokens=1)
        is tokenizer
    )
    assert capsys.readouterr().out == "Hello\n"
    with pytest.raises(ArgumentError, match="`streamer` must be a parameter of `custom_generate`"):
        call(model, seen_nothing, LEFT[1:], streamer=TextStreamer(tokenizer))


def seen_nothing(model, input_ids, **named):
    raise AssertionError("must not run")


def test_a_reader_is_told_what_the_loop_raises(model):
    def loop(model, input_ids, streamer, **named):
        raise KeyError("broken")

    streamer = TextIteratorStreamer(model.tokenizer, timeout=10)
    with pytest.raises(KeyError, match="broken"):
        call(model, loop, LEFT[1:], streamer=streamer, max_new_tokens=1)
    with pytest.raises(KeyError, match="broken"):
        list(streamer)


def test_code_that_is_named_is_not_run(model):
    with pytest.raises(NotSupportedError, match="`custom_generate` is not supported: Fabula runs no code"):
        call(model, "somebody/their-loop", LEFT[1:])


def test_what_generate_refuses_is_refused_before_the_loop_runs(model):
    with pytest.raises(ContextLengthError):
        call(model, seen_nothing, [[1] * 600], max_new_tokens=1)
    with pytest.raises(ArgumentError, match="`temperature`"):
        call(model, seen_nothing, LEFT[1:], temperature=-2.0, do_sample=True)


def test_a_loop_may_keep_a_cache(model):
    def loop(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
        columns = []
        while not bool(stopping_criteria(input_ids, None).all()):
            inputs = next_inputs(input_ids, **model_kwargs)
            columns.append(inputs["input_ids"].shape[1])
            outputs = model(**inputs, return_dict=True)
            model_kwargs = with_outputs(outputs, model_kwargs)
            tokens = logits_processor(input_ids, outputs.logits[:, -1]).argmax(-1)
            input_ids = torch.cat([input_ids, tokens[:, None]], 1)
        assert columns == [5, 1, 1, 1]
        return input_ids

    for settings in ({}, {"attention_mask": MASK}):
        inputs = LEFT if settings else LEFT[1:]
        settings = {**settings, "max_new_tokens": 4, "eos_token_id": None}
        assert call(model, loop, inputs, **settings).tolist() == model.generate(inputs, **settings).tolist()


def test_a_loop_gets_a_new_cache_that_the_model_fills(model):
    def loop(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
        new = input_ids
        while not bool(stopping_criteria(input_ids, None).all()):
            new = model(new, **model_kwargs).logits[:, -1:].argmax(-1)
            input_ids = torch.cat([input_ids, new], 1)
        assert model_kwargs["past_key_values"].get_seq_length() == input_ids.shape[1] - 1
        return input_ids

    settings = {"max_new_tokens": 4, "eos_token_id": None}
    assert call(model, loop, LEFT[1:], **settings).tolist() == model.generate(LEFT[1:], **settings).tolist()
    settings["use_cache"] = False
    assert call(model, lambda *_, past_key_values=None, **rest: past_key_values, LEFT[1:], **settings) is None
