"""Records equal those of transformers' pipeline on the same model: structures, texts, ids and scores."""

import numpy as np
import pytest

from fabula import GenerationConfig, pipeline
from tests.pipelines.asked import ASK, GREEDY, PREFILLED, iter_of

torch = pytest.importorskip("torch")
TOOLS = [{"type": "function", "function": {"name": "time", "description": "Tells the time.", "parameters": {}}}]
WITH_TOOLS = "{% for tool in tools or [] %}{{ tool.function.name }};{% endfor %}{% for document in documents or [] %}"
WITH_TOOLS += "{{ document.title }};{% endfor %}{{ messages[0].content }}"


class TestEqualsTransformers:
    @pytest.mark.parametrize(
        ("given", "settings"),
        [
            ("Hello", {}),
            (["Hello", "ab"], {}),
            (["Hello", "ab", "c"], {"batch_size": 2}),
            ([], {}),
            (ASK, {}),
            (tuple(ASK), {}),
            ([ASK, ASK[1:]], {}),
            ([ASK, ASK[1:]], {"batch_size": 2, "return_full_text": False}),
            (PREFILLED, {}),
            (PREFILLED, {"continue_final_message": False}),
            (ASK, {"return_full_text": False}),
            (ASK, {"add_special_tokens": True}),
            (ASK, {"tools": TOOLS, "documents": [{"title": "t", "text": "x"}]}),
            (ASK, {"tokenizer_encode_kwargs": {"truncation": True, "max_length": 9}}),
            ("Hello", {"return_full_text": False}),
            ("Hello", {"return_full_text": True}),
            ("Hello", {"return_text": True}),
            ("Hello", {"return_tensors": True}),
            ("Hello", {"num_return_sequences": 2, "do_sample": True, "top_k": 1, "temperature": 1.0}),
            (["Hello", "a"], {"num_return_sequences": 2, "do_sample": True, "top_k": 1}),
            ("Hello", {"num_beams": 3, "num_return_sequences": 2}),
            (["Hello", "a"], {"num_beams": 2, "length_penalty": 0.5}),
            ("", {}),
            ("x", {"prefix": "Once: "}),
            ("x", {"prefix": "Once: ", "max_length": 12, "max_new_tokens": None}),
            ("a long prompt", {"max_length": 10, "max_new_tokens": None, "truncation": False, "num_beams": 1}),
            ("a long prompt", {"max_length": 6}),
            ("x" * 600, {"handle_long_generation": "hole"}),
            ("Hello", {"skip_special_tokens": False, "eos_token_id": None}),
            ("Hello <|end|>", {"tokenizer_encode_kwargs": {"add_special_tokens": False}}),
            ("Hello", {"clean_up_tokenization_spaces": True}),
            ("Hello", {"generation_config": {"max_new_tokens": 3, "do_sample": False}}),
            ("Hello", {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2}),
        ],
    )
    def test_same_structures_and_texts(self, ours, theirs, given, settings):
        transformers = pytest.importorskip("transformers")
        mine, other = {**GREEDY, **settings}, {**GREEDY, **settings}
        if "generation_config" in settings:
            mine = {"generation_config": GenerationConfig(**settings["generation_config"])}
            other = {"generation_config": transformers.GenerationConfig(**settings["generation_config"])}
        if not isinstance(given, str) and not given:
            assert ours(given, **mine) == []
            return
        try:
            expected = theirs(given, **other)
        except ValueError:
            with pytest.raises(ValueError):
                ours(given, **mine)
            return
        assert ours(given, **mine) == expected

    def test_scores_come_with_the_record(self, ours, theirs):
        settings = {**GREEDY, "return_dict_in_generate": True, "output_scores": True, "max_new_tokens": 2}
        (mine,), (expected,) = ours("Hello", **settings), theirs("Hello", **settings)
        assert mine.keys() == expected.keys()
        assert mine["generated_text"] == expected["generated_text"]
        np.testing.assert_allclose(mine["scores"], expected["scores"], atol=1e-4)

    def test_generators_are_read_as_answers_are(self, ours, theirs):
        read = []

        def prompts():
            for text in ("one", "two", "three"):
                read.append(text)
                yield text

        answers = ours(prompts(), **GREEDY)
        first = next(answers)
        assert len(read) <= 2  # the first is looked at to see whether it is a chat
        assert [first, *answers] == list(theirs(iter_of(["one", "two", "three"]), **GREEDY))

    def test_a_generator_of_chats_and_one_of_messages(self, ours, theirs):
        assert list(ours(iter_of([ASK, PREFILLED]), **GREEDY)) == list(theirs(iter_of([ASK, PREFILLED]), **GREEDY))
        assert ours(iter_of(ASK), **GREEDY) == theirs(iter_of(ASK), **GREEDY)

    def test_a_dataset_gives_an_iterator(self, ours, theirs):
        class Texts(torch.utils.data.Dataset):
            def __len__(self):
                return 3

            def __getitem__(self, index):
                return "abc"[index]  # no IndexError at the end of its own

        assert list(ours(Texts(), batch_size=2, **GREEDY)) == list(theirs(Texts(), **GREEDY))

    def test_a_chat_template_of_ones_own_gets_tools_and_documents(self, folder, theirs):
        transformers = pytest.importorskip("transformers")
        made = [
            pipeline("text-generation", model=folder),
            transformers.pipeline("text-generation", model=theirs.model, tokenizer=str(folder), device="cpu"),
        ]
        answers = []
        for one in made:
            one.tokenizer.chat_template = WITH_TOOLS
            options = {"return_tensors": True, "tools": TOOLS, "documents": [{"title": "t", "text": "x"}]}
            answers.append(one(ASK, **GREEDY, **options))
        assert answers[0] == answers[1]
        assert bytes(answers[0][0]["generated_token_ids"][:7]) == b"time;t;"

    def test_a_tokenizer_of_theirs_may_be_used(self, folder, ours):
        transformers = pytest.importorskip("transformers")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        mixed = pipeline("text-generation", model=ours.model, tokenizer=tokenizer)
        assert mixed(["Hello", "ab"], **GREEDY) == ours(["Hello", "ab"], **GREEDY)
        assert mixed(ASK, **GREEDY) == ours(ASK, **GREEDY)
