"""generate() with a config a prompt: each row is what its prompt gives alone with that config."""

import re

import numpy as np
import pytest

from fabula import GenerationConfig, TextIteratorStreamer
from fabula.errors import ArgumentError, NotSupportedError, UnknownArgumentError

torch = pytest.importorskip("torch")
PROMPTS = [[72, 101, 108, 108, 111], [65], [49, 44, 32, 50, 44, 32, 51, 44, 32]]
CONFIGS = [
    GenerationConfig(max_new_tokens=4),
    GenerationConfig(max_new_tokens=9, do_sample=True, seed=5, num_return_sequences=2, top_k=20),
    GenerationConfig(max_new_tokens=6, repetition_penalty=1.5, num_beams=3),
]
LEFT = torch.tensor([[258] * 3 + [65, 66], PROMPTS[0]])
MASK = torch.tensor([[0, 0, 0, 1, 1], [1] * 5])


def alone(model, **call):
    return [
        row for prompt, config in zip(PROMPTS, CONFIGS, strict=True) for row in model.generate([prompt], config, **call)
    ]


def test_lists_give_what_each_gives_alone(model):
    assert model.generate(PROMPTS, CONFIGS) == alone(model)
    assert model.generate(PROMPTS, CONFIGS, min_new_tokens=3) == alone(model, min_new_tokens=3)
    assert model.generate({"input_ids": PROMPTS}, CONFIGS) == model.generate(None, CONFIGS, input_ids=PROMPTS)


def test_a_config_may_be_left_to_the_model(model):
    rows = model.generate(PROMPTS[:2], [None, CONFIGS[0]], max_new_tokens=3)
    assert rows == model.generate(PROMPTS[:2], max_new_tokens=3)


def test_tensors_keep_their_layout(model):
    configs = [GenerationConfig(max_new_tokens=2), GenerationConfig(max_length=9)]
    out = model.generate(LEFT, configs, attention_mask=MASK)
    assert out.shape == (2, 9) and out[0, 7:].tolist() == [258, 258]
    assert out[0, :7].tolist() == model.generate(LEFT[:1], configs[0], attention_mask=MASK[:1])[0].tolist()
    assert out[1].tolist() == model.generate(LEFT[1:], configs[1])[0].tolist()
    array = model.generate(LEFT.numpy(), configs, attention_mask=MASK.numpy())
    assert isinstance(array, np.ndarray) and array.tolist() == out.tolist()


def test_one_seed_of_the_call_gives_each_its_streams(model):
    sampled = GenerationConfig(do_sample=True, max_new_tokens=5)
    assert model.generate(PROMPTS, [sampled] * 3, seed=7) == model.generate(PROMPTS, sampled, seed=7)
    torch.manual_seed(4)
    tensors = model.generate(LEFT, [sampled] * 2, attention_mask=MASK)
    torch.manual_seed(4)
    assert tensors.tolist() == model.generate(LEFT, sampled, attention_mask=MASK).tolist()


def test_output_objects_hold_every_row(model):
    settings = {"return_dict_in_generate": True, "output_scores": True}
    configs = [GenerationConfig(max_new_tokens=4), GenerationConfig(max_new_tokens=2, repetition_penalty=1.5)]
    output = model.generate(PROMPTS[:2], configs, **settings)
    first, second = (model.generate([p], c, **settings) for p, c in zip(PROMPTS, configs, strict=False))
    assert output.sequences == [*first.sequences, *second.sequences]
    assert output.finish_reasons == ["length", "length"] and len(output.scores) == 4
    np.testing.assert_allclose(output.scores[1][0], first.scores[1][0], atol=1e-5)
    np.testing.assert_allclose(output.scores[1][1], second.scores[1][0], atol=1e-5)


def test_rows_are_streamed(model):
    streamer = TextIteratorStreamer(model.tokenizer, skip_prompt=True, timeout=60)
    configs = [GenerationConfig(max_new_tokens=4), GenerationConfig(max_new_tokens=9)]
    rows = model.generate(PROMPTS[:2], configs, streamer=streamer)
    texts = ["", ""]
    for piece in streamer:
        texts[piece.row] += piece
    assert texts == [model.tokenizer.decode(row[len(p) :]) for row, p in zip(rows, PROMPTS, strict=False)]


def test_the_callers_function_is_told_which_prompt_it_is_about(model):
    rows = model.generate(PROMPTS, CONFIGS[:1] * 3, prefix_allowed_tokens_fn=lambda prompt, ids: [70 + prompt])
    assert [row[-1] for row in rows] == [70, 71, 72]


@pytest.mark.parametrize(
    ("configs", "call", "error", "message"),
    [
        (CONFIGS[:2], {}, ArgumentError, "one a prompt, 3, got 2"),
        ([*CONFIGS[:2], {}], {}, ArgumentError, "`generation_config` must be a fabula.GenerationConfig or a list"),
        (CONFIGS, {"max_new_token": 3}, UnknownArgumentError, "Did you mean `max_new_tokens`"),
        (CONFIGS, {"return_dict_in_generate": True}, ArgumentError, "must be the same for all prompts with"),
        (CONFIGS[:1] * 3, {"streamer": object()}, ArgumentError, "`streamer` must have put() and end(), got object"),
        (CONFIGS, {"input_ids": PROMPTS}, ArgumentError, "once"),
        (CONFIGS, {"custom_generate": "somebody/loop"}, NotSupportedError, "`custom_generate` is not supported"),
        (
            [GenerationConfig(return_dict_in_generate=True), *CONFIGS[:2]],
            {},
            ArgumentError,
            "`return_dict_in_generate` must be the same for all prompts",
        ),
    ],
)
def test_what_cannot_be_one_call_is_refused(model, configs, call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        model.generate(PROMPTS, configs, **call)


def test_a_reader_is_told_of_a_refusal(model):
    streamer = TextIteratorStreamer(model.tokenizer, timeout=60)
    with pytest.raises(ArgumentError):
        model.generate(PROMPTS, CONFIGS[:1], streamer=streamer)
    with pytest.raises(ArgumentError):
        list(streamer)
