"""pipeline("text2text-generation"): texts answered by an encoder and a decoder, as transformers' generate() answers."""

import pytest

from fabula import AutoTokenizer, Text2TextGenerationPipeline, pipeline
from fabula.errors import ArgumentError
from fabula.interop import wrap
from fabula.testing.tiny_model import byte_tokenizer, write_tiny_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
SHORT = {"num_beams": 1, "max_new_tokens": 8}


@pytest.fixture(scope="module")
def reference():
    config = transformers.T5Config(
        vocab_size=259,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=258,
        pad_token_id=258,
        eos_token_id=256,
        initializer_factor=5.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.T5ForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(write_tiny_model(tmp_path_factory.mktemp("bytes")))


@pytest.fixture(scope="module")
def answer(reference, tokenizer):
    return pipeline("text2text-generation", model=wrap(reference), tokenizer=tokenizer)


def answers(reference, text, **settings):
    """What transformers' generate() answers: ids, a list a sequence."""
    return reference.generate(torch.tensor([byte_tokenizer().encode(text).ids]), **settings).tolist()


@pytest.mark.parametrize(
    "settings", [SHORT, {**SHORT, "repetition_penalty": 1.5}, {"num_beams": 2, "max_new_tokens": 6}]
)
def test_texts_are_those_of_transformers(answer, reference, tokenizer, settings):
    texts = ["Hello", "a"]
    expected = [tokenizer.decode(answers(reference, text, **settings)[0], skip_special_tokens=True) for text in texts]
    assert answer(texts, **settings) == [{"generated_text": text} for text in expected]
    assert answer(texts[0], **settings) == [{"generated_text": expected[0]}]
    assert [records[0]["generated_text"] for records in answer(iter(texts), **settings)] == expected


def test_ids_are_the_decoders_alone(answer, reference):
    (record,) = answer("Hello", return_tensors=True, **SHORT)
    assert record == {"generated_token_ids": answers(reference, "Hello", **SHORT)[0]}


def test_beams_are_the_default_and_several_answers_stay_together(answer, reference, tokenizer):
    settings = {"max_new_tokens": 6, "num_return_sequences": 2}
    expected = [
        tokenizer.decode(ids, skip_special_tokens=True) for ids in answers(reference, "Hi", num_beams=4, **settings)
    ]
    (records,) = answer(["Hi"], **settings)
    assert [record["generated_text"] for record in records] == expected


def test_a_prefix_goes_in_front_and_counts_for_no_length(answer):
    settings = {"num_beams": 1, "max_length": 7}
    assert answer("lo", prefix="Hel", **settings) == answer("Hello", **settings)


def test_is_made_of_a_directory(answer, reference, tokenizer, tmp_path):
    reference.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    made = pipeline("text2text-generation", model=tmp_path)
    assert made(["Hello", "a"], **SHORT) == answer(["Hello", "a"], **SHORT)


def test_is_made_of_its_class_too(answer, reference, tokenizer):
    made = Text2TextGenerationPipeline(wrap(reference), tokenizer)
    assert made.task == "text2text-generation" and made("Hello", **SHORT) == answer("Hello", **SHORT)


@pytest.mark.parametrize("name", ["return_full_text", "handle_long_generation"])
def test_what_an_answer_cannot_hold_is_refused(answer, name):
    with pytest.raises(ArgumentError, match=f"`{name}` must be absent"):
        answer("Hello", **{name: True if name == "return_full_text" else "hole"})


def test_models_of_the_other_kind_are_refused(reference, tokenizer, ours):
    with pytest.raises(ArgumentError, match="`task` must be 'text2text-generation' for this model"):
        pipeline("text-generation", model=wrap(reference), tokenizer=tokenizer)
    with pytest.raises(ArgumentError, match="`task` must be 'text-generation' for this model"):
        pipeline("text2text-generation", model=ours.model)
    with pytest.raises(ArgumentError, match="`model` must be given for 'text2text-generation'"):
        pipeline("text2text-generation")
