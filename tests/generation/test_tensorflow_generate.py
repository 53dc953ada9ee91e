"""generate() in TensorFlow beside what all frameworks are compared in: text in and out, callers' own code, drafts."""

from __future__ import annotations

import pytest

tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")

from fabula import (  # noqa: E402
    AutoModelForCausalLM,
    AutoTokenizer,
    EosTokenCriteria,
    MaxTimeCriteria,
    StoppingCriteria,
    TextStreamer,
    TFAutoModelForCausalLM,
    pipeline,
)
from fabula.errors import ArgumentError  # noqa: E402
from fabula.processors import EncoderRepetitionPenaltyLogitsProcessor  # noqa: E402

IDS = [[72, 101, 108, 108, 111], [49, 44, 32, 50, 44]]


@pytest.fixture(scope="module")
def model(folder):
    model = TFAutoModelForCausalLM.from_pretrained(folder)
    model.programs.xla, model.burst = False, None  # compiling would cost what all these tests cost
    return model


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def test_stop_strings_streamers_and_processors_of_ones_own_work(model, tokenizer, capsys):
    seen = []

    def only_letters(input_ids, scores):
        seen.append((type(input_ids), type(scores)))
        return tf.where(tf.range(scores.shape[-1]) == 97 + input_ids.shape[1] % 3, scores, -float("inf"))

    out = model.generate(
        **tokenizer("Hello", return_tensors="tf"),
        logits_processor=[only_letters],
        stop_strings="ca",
        streamer=TextStreamer(tokenizer),
        max_new_tokens=9,
    )
    assert tokenizer.decode(out[0].numpy(), skip_special_tokens=True).endswith("ca")
    assert capsys.readouterr().out.strip().endswith("ca")
    assert all(issubclass(kind, tf.Tensor) for pair in seen for kind in pair)


def test_criteria_of_ones_own_see_tensors_and_end_rows(model):
    class AfterThree(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            assert isinstance(input_ids, tf.Tensor)
            return tf.fill((input_ids.shape[0],), input_ids.shape[1] >= 8)

    out = model.generate(tf.constant(IDS), stopping_criteria=[AfterThree(), MaxTimeCriteria(60)], max_new_tokens=9)
    assert out.shape == (2, 8)


def test_prefixes_are_asked_of_a_function_with_tensors(model):
    def allowed(index, tokens):
        assert isinstance(tokens, tf.Tensor)
        return [70 + index]

    out = model.generate(tf.constant(IDS), prefix_allowed_tokens_fn=allowed, max_new_tokens=2)
    assert out.numpy()[:, 5:].tolist() == [[70, 70], [71, 71]]


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_an_assistant_of_any_backend_drafts_what_the_model_would_say(model, folder, backend):
    assistant = model if backend == "tensorflow" else AutoModelForCausalLM.from_pretrained(folder, backend=backend)
    alone = model.generate(tf.constant(IDS), max_new_tokens=8)
    found = model.generate(tf.constant(IDS), max_new_tokens=8, assistant_model=assistant)
    assert found.numpy().tolist() == alone.numpy().tolist()


def test_transition_scores_are_those_of_the_chosen_tokens(model):
    call = {"max_new_tokens": 4, "output_scores": True, "return_dict_in_generate": True, "eos_token_id": None}
    found = model.generate(tf.constant(IDS), **call)
    scores = model.compute_transition_scores(found.sequences, found.scores, normalize_logits=True)
    assert isinstance(scores, tf.Tensor)
    for step, each in enumerate(found.scores):
        right = tf.gather(tf.nn.log_softmax(each), found.sequences[:, 5 + step], batch_dims=1)
        assert scores[:, step].numpy() == pytest.approx(right.numpy(), abs=1e-5)


def test_a_batch_of_lists_is_answered_prompt_by_prompt(model):
    found = model.generate_batch([IDS[0], IDS[1][:2]], max_new_tokens=4)
    assert [len(one.generated_tokens) <= 4 for one in found.values()] == [True, True]
    assert [one.error for one in found.values()] == [None, None]


def test_a_pipeline_speaks_with_a_model_of_tensorflow(model, tokenizer):
    speak = pipeline("text-generation", model=model, tokenizer=tokenizer)
    found = speak("Hello", max_new_tokens=4, do_sample=False)[0]["generated_text"]
    ids = model.generate(**tokenizer("Hello", return_tensors="tf"), max_new_tokens=4)[0].numpy()
    assert found == tokenizer.decode(ids, skip_special_tokens=True)


def test_without_prompts_the_start_token_is_one_of_tensorflow(model):
    found = model.generate(max_new_tokens=3, bos_token_id=1, eos_token_id=None)
    assert isinstance(found, tf.Tensor)
    assert found.shape == (1, 4)


def test_settings_may_be_tensors(model):
    settings = {
        "max_new_tokens": 3,
        "eos_token_id": [9, 17],
        "suppress_tokens": [6, 243],
        "temperature": 0.5,
        "top_k": 4,
    }
    given = {name: tf.constant(value) for name, value in settings.items()}
    criteria = [EosTokenCriteria(tf.constant([9, 17]))]
    processors = [EncoderRepetitionPenaltyLogitsProcessor(1.3, tf.constant(IDS))]
    found = model.generate(
        tf.constant(IDS), **given, do_sample=True, seed=1, stopping_criteria=criteria, logits_processor=processors
    )
    right = model.generate(
        tf.constant(IDS),
        **settings,
        do_sample=True,
        seed=1,
        logits_processor=[EncoderRepetitionPenaltyLogitsProcessor(1.3, IDS)],
    )
    assert found.numpy().tolist() == right.numpy().tolist()


def test_what_is_no_row_of_numbers_is_refused_by_name(model):
    with pytest.raises(ArgumentError, match="`input_ids` must have 2 dimensions"):
        model.generate(tf.constant(5), seed=3, max_new_tokens=2)
    for call in (lambda ids: model(ids).logits, lambda ids: model.generate(ids, max_new_tokens=2)):
        for signature in (None, [tf.TensorSpec((None, None), tf.int32)]):
            with pytest.raises(Exception, match="`input_ids` must hold numbers that NumPy has, got SymbolicTensor"):
                tf.function(call, input_signature=signature)(tf.constant(IDS, tf.int32))
