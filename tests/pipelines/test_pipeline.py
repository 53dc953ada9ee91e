"""pipeline("text-generation"): its defaults, batches, what is refused, and how it is made."""

import re

import pytest

import fabula
from fabula import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessorList,
    TextGenerationPipeline,
    TextIteratorStreamer,
    pipeline,
    set_seed,
)
from fabula.errors import ArgumentError, NotSupportedError, TemplateError, UnknownArgumentError
from fabula.pipelines.inputs import Chat, read_inputs
from tests.pipelines.asked import ASK, GREEDY, iter_of, texts

torch = pytest.importorskip("torch")


class TestDefaults:
    def asked(self, made, monkeypatch, **settings):
        """What generate() is asked for."""
        seen = {}

        def generate(inputs, **arguments):
            seen.update(arguments)
            return [list(row) for row in inputs]

        monkeypatch.setattr(made.model, "generate", generate)
        made("Hello", **settings)
        return seen

    @pytest.fixture
    def made(self, folder):
        return pipeline("text-generation", model=folder, repetition_penalty=1.2, return_full_text=False)

    def test_are_those_of_free_text(self, made, monkeypatch):
        seen = self.asked(made, monkeypatch)
        assert (seen["max_new_tokens"], seen["do_sample"], seen["temperature"]) == (256, True, 0.7)
        assert seen["repetition_penalty"] == 1.2

    def test_have_the_tokenizers_pad_where_the_model_has_none(self, made, monkeypatch):
        made.model.generation_config.pad_token_id = None
        assert self.asked(made, monkeypatch)["pad_token_id"] == 258

    def test_yield_to_the_models_file(self, made, monkeypatch):
        made.model.generation_config = GenerationConfig(do_sample=False, max_length=30, pad_token_id=7)
        seen = self.asked(made, monkeypatch)
        assert not {"max_new_tokens", "do_sample", "temperature", "pad_token_id"} & seen.keys()

    def test_yield_to_a_config_which_replaces_what_the_pipeline_was_made_with(self, made, monkeypatch):
        config = GenerationConfig(max_new_tokens=3)
        seen = self.asked(made, monkeypatch, generation_config=config)
        assert seen["generation_config"] is config
        assert "max_new_tokens" not in seen and "repetition_penalty" not in seen
        assert seen["do_sample"] is True

    def test_yield_to_the_call(self, made, monkeypatch):
        seen = self.asked(made, monkeypatch, do_sample=False, max_length=50, repetition_penalty=None)
        assert seen["do_sample"] is False and "temperature" not in seen and "max_new_tokens" not in seen
        assert seen["repetition_penalty"] is None

    def test_stop_sequence_is_a_stop_string(self, made, monkeypatch):
        assert self.asked(made, monkeypatch, stop_sequence="x")["stop_strings"] == ["x"]


class TestBatches:
    @pytest.mark.parametrize("batch_size", [None, 1, 2, 3])
    def test_do_not_change_a_sampled_text(self, ours, batch_size):
        settings = {"seed": 7, "max_new_tokens": 8, "num_return_sequences": 2, "batch_size": batch_size}
        prompts = ["Hello", "a", "Hello"]
        together = ours(prompts, **settings)
        alone = [ours(text, **{**settings, "seed": 7 + index}) for index, text in enumerate(prompts)]
        assert together == alone
        assert together[0] != together[2]

    def test_a_seed_a_prompt(self, ours):
        settings = {"max_new_tokens": 8, "batch_size": 2}
        one, two, three = ours(["Hello"] * 3, seed=[3, 4, 3], **settings)
        assert one == three == ours("Hello", seed=3, **settings) != two
        with pytest.raises(ArgumentError, match="`seed` must hold one seed a prompt"):
            ours(["Hello"] * 3, seed=[3, 4], **settings)

    @pytest.mark.parametrize("seed", [set_seed, torch.manual_seed])
    def test_without_a_seed_the_callers_generator_decides(self, ours, seed):
        seed(3)
        first = ours(["Hello", "a"], max_new_tokens=8)
        assert ours(["Hello", "a"], max_new_tokens=8) != first
        seed(3)
        assert ours(["Hello", "a"], max_new_tokens=8) == first

    def test_padding_reaches_neither_ids_nor_text(self, ours):
        settings = {**GREEDY, "eos_token_id": [32, 101, 10, 116], "skip_special_tokens": False, "max_new_tokens": 30}
        prompts = ["Hello", "a", "some more text"]
        assert ours(prompts, **settings) == [ours(text, **settings) for text in prompts]
        ids = ours(prompts, return_tensors=True, **settings)
        assert [one[0]["generated_token_ids"][: len(text)] for one, text in zip(ids, prompts, strict=True)] == [
            list(text.encode()) for text in prompts
        ]


class TestOfTheCallersOwn:
    def test_processors_and_criteria_see_tensors_of_one_prompt(self, ours):
        shapes = []

        def ban(input_ids, scores):
            assert isinstance(input_ids, torch.Tensor) and isinstance(scores, torch.Tensor)
            shapes.append(tuple(input_ids.shape))
            scores = scores.clone()
            scores[:, 65:] = -torch.inf
            return scores

        def three(input_ids, scores):
            assert isinstance(input_ids, torch.Tensor)
            return torch.tensor([input_ids.shape[1] >= 8])

        answers = ours(
            ["Hello", "abc"], logits_processor=LogitsProcessorList([ban]), stopping_criteria=[three], **GREEDY
        )
        assert {rows for rows, _ in shapes} == {1}
        assert [len(text) for text in texts(answers)] == [8, 8]
        assert all(max(text.encode()[3:]) < 120 for text in texts(answers))

    def test_a_list_of_allowed_ids_decides(self, ours):
        def allowed(prompt, ids):
            assert isinstance(ids, torch.Tensor)
            return [65 + len(ids) % 2]

        assert texts(ours("xy", prefix_allowed_tokens_fn=allowed, **GREEDY)) == ["xyABABABAB"]

    def test_streamers_get_each_prompt_in_turn(self, ours):
        transformers = pytest.importorskip("transformers")
        for kind in (TextIteratorStreamer, transformers.TextIteratorStreamer):
            streamer = kind(ours.tokenizer, skip_prompt=True)
            (answer,) = ours("Hello", streamer=streamer, **GREEDY)
            assert "Hello" + "".join(streamer) == answer["generated_text"]
        streamer = transformers.TextIteratorStreamer(ours.tokenizer, skip_prompt=True)
        answers = ours(["Hello", "a"], streamer=streamer, **GREEDY)
        assert ["Hello" + "".join(streamer), "a" + "".join(streamer)] == texts(answers)

    def test_stop_sequence_stays_in_the_text(self, ours):
        whole = texts(ours("Hello", **{**GREEDY, "max_new_tokens": 40}))[0]
        stop = next(one for one in whole[8:] if one.isascii())
        text = texts(ours("Hello", stop_sequence=stop, **{**GREEDY, "max_new_tokens": 40}))[0]
        assert text.endswith(stop) and whole.startswith(text)


class TestMaking:
    def test_from_objects_paths_and_classes(self, folder, ours):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        made = [
            pipeline("text-generation", model=model, tokenizer=tokenizer),
            pipeline("text-generation", model=str(folder), tokenizer=(str(folder), {"padding_side": "right"})),
            pipeline(model=folder, device=-1, dtype="float32"),
            pipeline("text-generation", folder, device_map="cpu", model_kwargs={"backend": "torch"}),
            TextGenerationPipeline(model=model, tokenizer=tokenizer),
            fabula.pipeline("text-generation", model=model, device="cpu", **GREEDY),
        ]
        expected = ours("Hello", **GREEDY)
        assert all(one("Hello", **GREEDY) == expected for one in made)
        assert made[-1]("Hello") == expected
        assert made[1].tokenizer.padding_side == "right"
        assert isinstance(made[3].model, torch.nn.Module) and made[3].dtype == torch.float32

    def test_settings_hold_until_a_call_overrides_them(self, folder, ours):
        made = pipeline("text-generation", model=ours.model, return_full_text=False, **GREEDY)
        assert "Hello" + texts(made("Hello"))[0] == texts(ours("Hello", **GREEDY))[0]
        assert made("Hello", return_full_text=True) == ours("Hello", **GREEDY)
        assert "generated_token_ids" in made("Hello", return_tensors=True)[0]

    def test_an_assistant_drafts_and_changes_no_text(self, folder, ours):
        made = pipeline("text-generation", model=ours.model, assistant_model=folder)
        assert made.assistant_model is not None
        assert made(["Hello", "ab"], **GREEDY) == ours(["Hello", "ab"], **GREEDY)
        assert made("Hello", seed=3, max_new_tokens=8) == ours("Hello", seed=3, max_new_tokens=8)

    def test_save_pretrained_writes_what_can_be_loaded(self, folder, ours, tmp_path):
        made = pipeline("text-generation", model=folder, model_kwargs={"backend": "torch"})
        made.save_pretrained(tmp_path)
        assert pipeline("text-generation", model=tmp_path)("Hello", **GREEDY) == ours("Hello", **GREEDY)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                {"task": "summarization"},
                "`task` must be one of 'text-generation', 'text2text-generation', got",
            ),
            ({}, "`task` or `model` must be given"),
            ({"task": "text-generation", "tokenizer": "x"}, "`model` must be given where `tokenizer` is"),
            ({"model": object()}, "`model` must be a model of fabula's, got object"),
        ],
    )
    def test_refuses_what_makes_no_pipeline(self, arguments, message):
        with pytest.raises(ArgumentError, match=re.escape(message)):
            pipeline(**arguments)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"device": "cpu", "device_map": "auto"}, ArgumentError, "`device` and `device_map` exclude each other"),
            ({"device_map": "cpu", "model_kwargs": {"device_map": "cpu"}}, ArgumentError, "`device_map` must be given"),
            ({"dtype": "float32", "model_kwargs": {"dtype": "float32"}}, ArgumentError, "`dtype` must be given once"),
            ({"image_processor": "x"}, NotSupportedError, "`image_processor` is not supported"),
            ({"trust_remote_code": True}, NotSupportedError, "`trust_remote_code` is not supported"),
            ({"max_new_token": 3}, UnknownArgumentError, "Did you mean `max_new_tokens`"),
            ({"return_fulltext": False}, UnknownArgumentError, "Did you mean `return_full_text`"),
        ],
    )
    def test_refuses_arguments_that_make_no_sense(self, folder, arguments, error, message):
        with pytest.raises(error, match=re.escape(message)):
            pipeline("text-generation", model=folder, **arguments)

    def test_a_native_model_stays_on_the_cpu(self, ours):
        with pytest.raises(NotSupportedError, match="a native model stays on the CPU"):
            pipeline("text-generation", model=ours.model, device="cuda:0")

    def test_a_model_without_a_tokenizer_needs_one(self, folder):
        (bare := folder.parent / "bare").mkdir(exist_ok=True)
        for name in ("config.json", "model.safetensors"):
            (bare / name).write_bytes((folder / name).read_bytes())
        with pytest.raises(ArgumentError, match="`tokenizer` must be given"):
            pipeline("text-generation", model=bare)


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"return_full_text": True, "return_tensors": True}, "`return_full_text` and `return_tensors` exclude"),
            ({"return_text": True, "return_tensors": True}, "`return_text` and `return_tensors` exclude"),
            ({"return_text": True, "return_full_text": True}, "`return_text` and `return_full_text` exclude"),
            ({"return_text": False}, "`return_text` must be True or absent"),
            ({"handle_long_generation": "cut"}, "`handle_long_generation` must be 'hole' or None"),
            ({"handle_long_generation": "hole", "max_new_tokens": 512}, "must leave room for a prompt"),
            ({"batch_size": 0}, "`batch_size` must be an int of at least 1"),
            ({"stop_sequence": "a", "stop_strings": "b"}, "are one thing"),
            ({"tokenizer_encode_kwargs": {"return_tensors": "pt"}}, "must not hold `return_tensors`"),
            ({"seed": 1.5}, "`seed` must be an int"),
        ],
    )
    def test_settings_that_exclude_each_other_or_are_out_of_range(self, ours, settings, message):
        with pytest.raises(ArgumentError, match=re.escape(message)):
            ours("Hello", **settings)

    @pytest.mark.parametrize("given", [7, {"role": "user"}, ["a", 3], [ASK, "a", []], [*ASK, {"role": "user"}], [None]])
    def test_what_is_neither_text_nor_chat(self, ours, given):
        with pytest.raises(ArgumentError, match="`text_inputs` must"):
            ours(given, **GREEDY)

    def test_a_chat_without_a_template(self, folder, ours):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = None
        with pytest.raises(TemplateError):
            pipeline("text-generation", model=ours.model, tokenizer=tokenizer)(ASK)

    def test_an_empty_text_without_a_token_to_begin_with(self, folder):
        made = pipeline("text-generation", model=folder)
        made.model.generation_config.bos_token_id = None
        with pytest.raises(ArgumentError, match="`text_inputs` must not be empty"):
            made("", **GREEDY)


class TestInputs:
    def test_one_prompt_goes_back_alone(self):
        assert read_inputs("a").single and read_inputs(ASK).single and not read_inputs([ASK]).single
        assert list(read_inputs(ASK).prompts) == [Chat(ASK)]

    def test_an_empty_generator_gives_nothing(self, ours):
        assert list(ours(iter_of([]))) == []


def test_the_default_model_answers_a_chat(smollm2_gguf):
    made = pipeline("text-generation", model=smollm2_gguf)
    (record,) = made(
        [{"role": "user", "content": "What is the capital of France?"}], **{**GREEDY, "max_new_tokens": 12}
    )
    assert "Paris" in record["generated_text"][-1]["content"]


def test_a_message_in_parts_that_goes_on_has_one_part_more(ours):
    part = {"type": "text", "text": "One, two"}
    chat = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": [part]}]
    asked = {"max_new_tokens": 3, "do_sample": False, "continue_final_message": True}
    new = ours(chat, return_full_text=False, **asked)[0]["generated_text"]
    answer = ours(chat, **asked)[0]["generated_text"][-1]
    assert answer == {"role": "assistant", "content": [part, {"type": "text", "text": new}]}
    assert chat[-1]["content"] == [part], "the chat that came in has changed"
