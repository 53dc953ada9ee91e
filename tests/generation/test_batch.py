"""generate_batch(): every prompt is answered as if it had been alone, whatever its settings and its neighbours do."""

import re
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabula import AutoModelForCausalLM, GenerationConfig, StoppingCriteriaList, set_seed
from fabula.errors import ArgumentError, GenerationError, NotSupportedError, UnknownArgumentError
from fabula.generation.batch import GenerationOutput, RequestStatus
from fabula.generation.settings.configs import configs_for, streams_for

PROMPTS = [[72, 101, 108, 108, 111], [65], [49, 44, 32, 50, 44, 32, 51, 44, 32]]


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder)


def new(model, prompt, *arguments, **named):
    """What generate() adds to one prompt, a list a sequence."""
    return [row[len(prompt) :] for row in model.generate([prompt], *arguments, **named)]


def test_answers_are_those_of_generate_in_the_order_of_the_prompts(model):
    outputs = model.generate_batch(PROMPTS, max_new_tokens=8)
    assert list(outputs) == ["req_0", "req_1", "req_2"]
    for output, prompt in zip(outputs.values(), PROMPTS, strict=True):
        assert output.prompt_ids == prompt
        assert [output.generated_tokens] == new(model, prompt, max_new_tokens=8)
        assert (output.status, output.error, output.finish_reason) == (RequestStatus.FINISHED, None, "length")
        assert output.is_finished() and output.created_time <= output.lifespan[0] <= output.lifespan[1]
        assert output.timestamps is None and output.logprobs == []


def test_prompts_may_be_arrays_and_none_at_all(model):
    assert model.generate_batch([]) == {}
    arrays = model.generate_batch([np.array(prompt) for prompt in PROMPTS], max_new_tokens=4)
    lists = model.generate_batch(PROMPTS, max_new_tokens=4)
    assert [one.generated_tokens for one in arrays.values()] == [one.generated_tokens for one in lists.values()]
    assert [one.prompt_ids for one in arrays.values()] == PROMPTS


def test_each_prompt_may_have_a_config_of_its_own(model):
    configs = [
        GenerationConfig(max_new_tokens=3),
        GenerationConfig(max_new_tokens=9, do_sample=True, seed=5, num_return_sequences=2),
        GenerationConfig(max_new_tokens=6, repetition_penalty=1.5),
    ]
    outputs = model.generate_batch(PROMPTS, configs)
    assert list(outputs) == ["req_0", "req_1", "req_1__child#0", "req_2"]
    expected = [row for prompt, config in zip(PROMPTS, configs, strict=True) for row in new(model, prompt, config)]
    assert [one.generated_tokens for one in outputs.values()] == expected


@pytest.mark.parametrize("seed", [7, [7, 9, 7]])
def test_one_seed_gives_the_sequences_that_generate_gives(model, seed):
    call = {"do_sample": True, "seed": seed, "num_return_sequences": 2, "max_new_tokens": 6}
    rows = model.generate(PROMPTS, **call)
    outputs = model.generate_batch(PROMPTS, **call)
    assert [one.prompt_ids + one.generated_tokens for one in outputs.values()] == rows


def test_without_a_seed_the_callers_generator_decides(model):
    call = {"do_sample": True, "max_new_tokens": 8}
    texts = []
    for _ in range(2):
        set_seed(1)
        texts.append([one.generated_tokens for one in model.generate_batch([PROMPTS[0]] * 2, **call).values()])
    assert texts[0] == texts[1]
    assert texts[0][0] != texts[0][1]
    assert [one.generated_tokens for one in model.generate_batch([PROMPTS[0]] * 2, **call).values()] != texts[0]


def test_a_prompt_that_cannot_be_answered_says_why_and_the_others_are(model):
    told = []
    prompts = [PROMPTS[0], [], [9999], [1] * 600, ["a"], "text", PROMPTS[1]]
    outputs = model.generate_batch(prompts, max_new_tokens=4, on_result=told.append)
    failed = {name: one.error for name, one in outputs.items() if one.status == RequestStatus.FAILED}
    assert list(failed) == ["req_1", "req_2", "req_3", "req_4", "req_5"]
    assert "must lie in [0, 259)" in failed["req_2"] and "context is 512" in failed["req_3"]
    assert [outputs["req_6"].generated_tokens] == new(model, PROMPTS[1], max_new_tokens=4)
    assert {one.request_id for one in told} == set(outputs) and len(told) == len(outputs)


def test_a_limit_below_one_prompt_fails_that_prompt_alone(model):
    outputs = model.generate_batch(PROMPTS, max_length=6)
    assert [one.status for one in outputs.values()] == [
        RequestStatus.FINISHED,
        RequestStatus.FINISHED,
        RequestStatus.FAILED,
    ]
    assert "`max_length` must be more than the prompt's 9 tokens" in outputs["req_2"].error


def test_a_criterion_that_raises_fails_the_rows_it_was_asked_about(model):
    def breaks(input_ids, scores):
        if input_ids[0, 0] == 65:
            raise GenerationError("broken")
        return False

    outputs = model.generate_batch(PROMPTS, max_new_tokens=4, stopping_criteria=StoppingCriteriaList([breaks]))
    assert [one.error for one in outputs.values()] == [None, "broken", None]
    assert [outputs["req_2"].generated_tokens] == new(model, PROMPTS[2], max_new_tokens=4)


@pytest.mark.parametrize("callback", ["on_result", "stopping_criteria"])
def test_a_callback_may_exit(model, callback):
    def leave(*arguments):
        raise SystemExit(3)

    given = {"on_result": leave, "stopping_criteria": StoppingCriteriaList([leave])}[callback]
    with pytest.raises(SystemExit):
        model.generate_batch(PROMPTS, max_new_tokens=4, **{callback: given})


def test_a_model_may_draft_for_all(model):
    outputs = model.generate_batch(PROMPTS, max_new_tokens=8, assistant_model=model)
    expected = [new(model, prompt, max_new_tokens=8)[0] for prompt in PROMPTS]
    assert [one.generated_tokens for one in outputs.values()] == expected


def test_results_come_as_they_end(model):
    told = []
    configs = [GenerationConfig(max_new_tokens=count) for count in (9, 2, 5)]
    outputs = model.generate_batch(PROMPTS, configs, on_result=told.append)
    assert [one.request_id for one in told] == ["req_1", "req_2", "req_0"]
    assert all(one is outputs[one.request_id] for one in told)


def test_what_on_result_raises_ends_the_call(model):
    told = []

    def stop(output):
        told.append(output.request_id)
        raise KeyError("enough")

    configs = [GenerationConfig(max_new_tokens=count) for count in (400, 2, 400)]
    computed = []
    original = model.step

    def step(*arguments, **named):
        computed.append(1)
        return original(*arguments, **named)

    model.step = step
    try:
        with pytest.raises(KeyError, match="enough"):
            model.generate_batch(PROMPTS, configs, on_result=stop)
    finally:
        del model.step
    assert told == ["req_1"] and len(computed) < 10
    assert [model.generate_batch(PROMPTS[:1], max_new_tokens=4)["req_0"].generated_tokens] == new(
        model, PROMPTS[0], max_new_tokens=4
    )


def test_log_probabilities_and_timestamps_on_request(model):
    outputs = model.generate_batch(PROMPTS, max_new_tokens=5, return_logprobs=True, record_timestamps=True)
    scores = model.generate(PROMPTS[:1], max_new_tokens=5, return_dict_in_generate=True, output_logits=True)
    expected = [
        logits[0, token] - np.log(np.exp(logits[0]).sum())
        for logits, token in zip(scores.logits, outputs["req_0"].generated_tokens, strict=True)
    ]
    np.testing.assert_allclose(outputs["req_0"].logprobs, expected, atol=1e-5)
    for output in outputs.values():
        assert len(output.logprobs) == len(output.timestamps) == 5
        assert output.timestamps == sorted(output.timestamps)


def test_the_callers_function_is_told_which_prompt_it_is_about(model):
    asked = set()

    def allowed(prompt, ids):
        asked.add((prompt, int(ids[0])))
        return [70 + prompt]

    outputs = model.generate_batch(PROMPTS, max_new_tokens=2, prefix_allowed_tokens_fn=allowed)
    assert asked == {(0, 72), (1, 65), (2, 49)}
    assert [one.generated_tokens for one in outputs.values()] == [[70, 70], [71, 71], [72, 72]]


def test_stop_strings_and_end_tokens_say_so(model):
    (tokens,) = new(model, PROMPTS[0], max_new_tokens=8)
    output = model.generate_batch(PROMPTS[:1], max_new_tokens=8, eos_token_id=tokens[-1])["req_0"]
    assert (output.finish_reason, output.generated_tokens) == ("stop", tokens[: tokens.index(tokens[-1]) + 1])
    text = model.tokenizer.decode(tokens)
    output = model.generate_batch(PROMPTS[:1], max_new_tokens=8, stop_strings=text[2])["req_0"]
    assert output.finish_reason == "stop" and text[2] in model.tokenizer.decode(output.generated_tokens)


def test_a_bar_counts_sequences(model, capsys):
    model.generate_batch(PROMPTS, max_new_tokens=2, num_return_sequences=2, do_sample=True, progress_bar=True)
    assert "6/6" in capsys.readouterr().err
    model.generate_batch(PROMPTS, max_new_tokens=2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"inputs": np.ones((1, 2), int)}, ArgumentError, "`inputs` must be a list of prompts"),
        ({"generation_config": [GenerationConfig()]}, ArgumentError, "one a prompt, 3, got 1"),
        ({"generation_config": {"max_new_tokens": 3}}, ArgumentError, "must be a fabula.GenerationConfig or a list"),
        ({"max_new_token": 3}, UnknownArgumentError, "Did you mean `max_new_tokens`"),
        ({"temperature": -1.0, "do_sample": True}, ArgumentError, "`temperature` must be"),
        ({"continuous_batching_config": object()}, NotSupportedError, "one engine runs every call"),
        ({"streamer": object()}, NotSupportedError, "on_result gets each answer"),
        ({"output_scores": True, "return_dict_in_generate": True}, NotSupportedError, "`output_scores` is not done"),
        ({"seed": [1, 2], "do_sample": True}, ArgumentError, "`seed` must hold one seed a prompt, 3, got 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_runs(model, arguments, error, message):
    told = []
    with pytest.raises(error, match=re.escape(message)):
        model.generate_batch(**{"inputs": PROMPTS, "on_result": told.append, **arguments})
    assert told == []


def test_arguments_of_transformers_that_have_nothing_to_do_are_accepted(model):
    output = model.generate_batch(PROMPTS[:1], max_new_tokens=2, warmup=False, persistent_manager=True)["req_0"]
    assert output.status == RequestStatus.FINISHED


def test_outputs_have_the_fields_and_states_of_transformers():
    requests = pytest.importorskip("transformers.generation.continuous_batching.requests")
    theirs = [one.name for one in fields(requests.GenerationOutput)]
    assert [one.name for one in fields(GenerationOutput)][: len(theirs)] == theirs
    assert {one.name: one.value for one in RequestStatus} == {one.name: one.value for one in requests.RequestStatus}


class TestConfigs:
    MODEL = GenerationConfig(eos_token_id=5, top_k=7)

    def test_one_serves_all_prompts(self):
        one, two = configs_for({"max_new_tokens": 4}, GenerationConfig(top_p=0.5), self.MODEL, 2)
        assert one is two
        assert (one.max_new_tokens, one.top_p, one.top_k, one.eos_token_id) == (4, 0.5, 7, 5)

    def test_the_call_wins_over_a_prompts_own_and_that_over_the_models(self):
        given = [GenerationConfig(top_k=3, max_new_tokens=9), None]
        one, two = configs_for({"max_new_tokens": 4}, given, self.MODEL, 2)
        assert (one.top_k, one.max_new_tokens) == (3, 4)
        assert (two.top_k, two.max_new_tokens) == (7, 4)

    @pytest.mark.parametrize("name", ["return_dict_in_generate", "output_scores", "output_logits"])
    def test_what_shapes_the_answer_must_be_one_for_all(self, name):
        flags = {"return_dict_in_generate": True, name: True}
        other = {**flags, name: False}
        with pytest.raises(ArgumentError, match=f"`{name}` must be the same for all prompts"):
            configs_for({}, [GenerationConfig(**flags), GenerationConfig(**other)], self.MODEL, 2)

    def test_one_seed_spreads_over_streams_and_seeds_of_ones_own_do_not(self):
        two = {"do_sample": True, "num_return_sequences": 2}
        given = [GenerationConfig(**two, seed=3), GenerationConfig(**two, seed=3), GenerationConfig()]
        own = configs_for({}, given, self.MODEL, 3)
        assert streams_for({}, given, own, None) == [(3, 0), (3, 0), (0, 0)]
        shared = configs_for({"seed": 9}, given[:2], self.MODEL, 2)
        assert streams_for({"seed": 9}, given[:2], shared, None) == [(9, 0), (9, 2)]
        listed = configs_for({"seed": [4, 6], **two}, None, self.MODEL, 2)
        assert streams_for({"seed": [4, 6]}, None, listed, None) == [(4, 0), (6, 0)]


@settings(deadline=None, max_examples=20)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 255), min_size=1, max_size=6),
            st.fixed_dictionaries(
                {"max_new_tokens": st.integers(1, 6), "do_sample": st.booleans(), "seed": st.integers(0, 9)},
                optional={
                    "num_return_sequences": st.integers(1, 3),
                    "temperature": st.floats(0.5, 2.0),
                    "top_p": st.floats(0.1, 1.0),
                    "repetition_penalty": st.floats(1.0, 2.0),
                    "eos_token_id": st.integers(0, 255),
                    "num_beams": st.integers(2, 3),
                    "prompt_lookup_num_tokens": st.integers(1, 3),
                },
            ),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_mixture_gives_each_prompt_what_it_gets_alone(model, rows):
    for _, config in rows:
        if not config["do_sample"]:
            config["num_return_sequences"] = min(config.get("num_return_sequences", 1), config.get("num_beams", 1))
        elif "num_beams" in config:
            config["num_return_sequences"] = min(config.get("num_return_sequences", 1), config["num_beams"])
    prompts, configs = [prompt for prompt, _ in rows], [GenerationConfig(**config) for _, config in rows]
    outputs = model.generate_batch(prompts, configs)
    expected = [row for prompt, config in zip(prompts, configs, strict=True) for row in new(model, prompt, config)]
    assert [one.generated_tokens for one in outputs.values()] == expected
