"""What a native model takes, returns and refuses when it is called, moved, counted and copied."""

import pickle
import threading

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fabula import AutoModelForCausalLM
from fabula.errors import ArgumentError, ContextLengthError, NotSupportedError, UnknownArgumentError
from fabula.testing.tiny_model import write_tiny_model

torch = pytest.importorskip("torch")
IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
MASK = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])


@pytest.fixture(scope="module")
def native(folder):
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def module(folder):
    return AutoModelForCausalLM.from_pretrained(folder, backend="torch")


@pytest.mark.parametrize("mask", [None, MASK, MASK.bool(), MASK.float(), MASK.numpy(), MASK.tolist()])
@torch.no_grad()
def test_both_backends_give_the_same_logits_step_by_step(native, module, mask):
    first, other = native(IDS, attention_mask=mask), module(IDS, attention_mask=mask)
    assert torch.allclose(first.logits, other.logits, atol=1e-4)
    following = torch.tensor([[9, 10], [11, 12]])
    more = native(following, past_key_values=first.past_key_values)
    again = module(following, past_key_values=other.past_key_values)
    assert torch.allclose(more.logits, again.logits, atol=1e-4)
    whole = torch.cat([MASK if mask is not None else torch.ones_like(MASK), torch.ones(2, 2, dtype=torch.long)], 1)
    assert torch.allclose(more.logits, module(torch.cat([IDS, following], 1), whole).logits[:, 4:], atol=1e-4)


def test_a_past_of_another_model_backend_or_batch_is_refused(native, module, tmp_path):
    narrow = AutoModelForCausalLM.from_pretrained(
        write_tiny_model(tmp_path, num_hidden_layers=1, num_key_value_heads=1)
    )
    for model, past in ((native, module), (module, native), (native, narrow)):
        with pytest.raises(ArgumentError, match="`past_key_values` must come from an earlier call of this model"):
            model(IDS, past_key_values=past(IDS).past_key_values)
    for model in (native, module):
        with pytest.raises(ArgumentError, match="must hold 1 rows"):
            model(IDS[:1], past_key_values=model(IDS).past_key_values)
        with pytest.raises(ArgumentError, match="got tuple"):
            model(IDS, past_key_values=((1, 2),))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"labels": IDS}, NotSupportedError, "`labels`: load with backend='torch'"),
        ({"position_ids": IDS}, NotSupportedError, "`position_ids`: load with"),
        ({"output_attentions": True}, NotSupportedError, "`output_attentions`"),
        ({"attention_masks": MASK}, UnknownArgumentError, "`attention_masks`. Did you mean `attention_mask`"),
        ({"input_ids": None}, ArgumentError, "`input_ids` must be given"),
        ({"input_ids": "text"}, ArgumentError, "`input_ids` must be numbers.*got str"),
        ({"input_ids": [[1, 2], [3]]}, ArgumentError, "`input_ids` must be rows of one length"),
        ({"input_ids": torch.ones(1, 513, dtype=torch.long)}, ContextLengthError, "context is 512"),
    ],
)
def test_what_it_would_ignore_or_trip_over_is_refused_by_name(native, arguments, error, message):
    with pytest.raises(error, match=message):
        native(**{"input_ids": IDS, **arguments})


def test_arguments_that_ask_for_nothing_more_are_taken(native):
    expected = native(IDS).logits
    output = native(IDS, token_type_ids=torch.zeros_like(IDS), output_attentions=False, labels=None, return_dict=False)
    assert torch.equal(output[0], expected)


def test_padding_does_not_count_against_the_context(native):
    ids, mask = torch.ones(1, 600, dtype=torch.long), torch.zeros(1, 600, dtype=torch.long)
    mask[:, 590:] = 1
    assert torch.allclose(native(ids, mask).logits[0, 590:], native(ids[:, :10]).logits[0], atol=1e-5)


def test_calls_and_generation_from_several_threads_do_not_touch_each_other(native):
    prompt, wide = torch.tensor([[1, 2, 3]]), torch.arange(60).reshape(2, 30)
    expected = native.generate(prompt, max_new_tokens=20, eos_token_id=None)
    logits = {shape: native(wide[:, :shape]).logits for shape in (20, 30)}
    wrong = []

    def generates():
        for _ in range(15):
            if not torch.equal(native.generate(prompt, max_new_tokens=20, eos_token_id=None), expected):
                wrong.append("tokens")

    def calls(shape):
        for _ in range(100):
            if not torch.equal(native(wide[:, :shape]).logits, logits[shape]):
                wrong.append(shape)

    threads = [threading.Thread(target=generates), *(threading.Thread(target=calls, args=(s,)) for s in logits)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("nested", ["call", "generate"])
def test_a_processor_may_use_the_model_that_waits_for_it(native, module, nested):
    for model in (native, module):
        settings = {"max_new_tokens": 6, "eos_token_id": None, "return_dict_in_generate": True, "output_logits": True}
        expected, kept = model.generate(IDS, **settings), model.generate(IDS[:1, :2], max_new_tokens=3)

        def inner(ids, scores, model=model, kept=kept):
            if nested == "call":
                model(torch.arange(40)[None])
            else:
                assert torch.equal(model.generate(IDS[:1, :2], max_new_tokens=3), kept)
            return scores

        found = model.generate(IDS, logits_processor=[inner], **settings)
        assert torch.equal(found.sequences, expected.sequences)
        assert all(torch.equal(a, b) for a, b in zip(found.logits, expected.logits, strict=True))


def test_the_device_reads_like_a_torch_device(native):
    assert native.device == "cpu" == native.device.type and native.device == torch.device("cpu")
    assert native.device != "cuda" and native.device != torch.device("cuda") and native.device.index is None
    assert torch.zeros(1).to(native.device).device == native.device
    assert native.eval() is native.cpu() is native.to("cpu") is native.to(torch.device("cpu")) is native


@pytest.mark.parametrize("arguments", [("cuda",), (torch.float16,), ("cpu", torch.float16), (0,)])
def test_it_does_not_move(native, arguments):
    with pytest.raises(NotSupportedError, match="load with backend='torch'"):
        native.to(*arguments)


@pytest.mark.parametrize("name", ["parameters", "state_dict", "double", "named_buffers", "get_input_embeddings"])
def test_what_a_module_has_says_where_to_get_it(native, name):
    with pytest.raises(NotSupportedError, match=rf"{name}\(\): load with backend='torch'"):
        getattr(native, name)()
    assert not hasattr(native, name) and getattr(native, name, 5) == 5


@pytest.mark.parametrize("name", ["resize_token_embeddings", "push_to_hub", "tie_weights"])
def test_what_no_backend_has_is_not_promised_of_another(native, name):
    with pytest.raises(AttributeError, match=f"NativeCausalLM has no attribute '{name}'"):
        getattr(native, name)


def test_what_scripts_ask_of_any_model_is_there(native):
    assert native.can_generate() and native.main_input_name == "input_ids"
    assert not native.config.is_encoder_decoder


def test_an_output_is_read_like_a_dictionary(native):
    output = native(IDS)
    assert [name for name, _ in output.items()] == list(output.keys()) == ["logits", "past_key_values"]
    assert output.values()[0] is output.get("logits") is output.logits
    assert output.get("loss") is None and output.get("loss", 3) == 3


def test_a_copy_is_refused_in_words(native):
    with pytest.raises(NotSupportedError, match="load it again"):
        pickle.dumps(native)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("options", [{}, {"load_in_4bit": True}, {"dtype": "bfloat16"}])
def test_parameters_are_counted_as_transformers_counts_them(tmp_path, tied, options):
    transformers = pytest.importorskip("transformers")
    folder = write_tiny_model(tmp_path, tie_word_embeddings=tied)
    if tied:
        weights = load_file(folder / "model.safetensors")
        del weights["lm_head.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder)
    for backend in ("native", "torch"):
        model = AutoModelForCausalLM.from_pretrained(folder, backend=backend, **options)
        for exclude in (False, True):
            expected = reference.num_parameters(exclude_embeddings=exclude)
            assert model.num_parameters(exclude_embeddings=exclude) == expected
    assert np.dtype(AutoModelForCausalLM.from_pretrained(folder).dtype) == np.float32
