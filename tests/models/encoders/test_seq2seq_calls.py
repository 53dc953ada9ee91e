"""What a model with an encoder takes, returns and refuses in PyTorch."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fabula.errors import ArgumentError, ModelFileError, NotSupportedError  # noqa: E402
from fabula.models.encoders.torch import TorchSeq2SeqLM  # noqa: E402
from fabula.models.families.config import ModelConfig  # noqa: E402
from fabula.models.families.table import family_for  # noqa: E402
from fabula.models.weights.table import all_entries  # noqa: E402
from fabula.ops.protocol import Taps  # noqa: E402
from tests.models.configurations import stored  # noqa: E402
from tests.models.encoders.cases import SMALL_T5  # noqa: E402
from tests.models.steps import make_batch, relative_error, shuffled_tables  # noqa: E402

T5 = {**SMALL_T5, "model_type": "t5"}


def build(**values):
    family = family_for(ModelConfig(**{**T5, **values}))
    random = np.random.default_rng(0)
    entries = [entry for _, entry in all_entries(family) if entry.tied is None]
    tensors = {entry.name: stored(entry.name, 0.3 * random.standard_normal(entry.shape)) for entry in entries}
    return TorchSeq2SeqLM.from_tensors(family, tensors)


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture
def ids():
    return torch.from_numpy(np.random.default_rng(2).integers(1, 61, (3, 20)))


@pytest.fixture
def after():
    return torch.from_numpy(np.random.default_rng(4).integers(1, 61, (3, 12)))


@torch.no_grad()
def test_a_past_continues_without_the_text(model, ids, after):
    whole = model(ids, decoder_input_ids=after).logits
    output = model(ids, decoder_input_ids=after[:, :5])
    pieces = [output.logits]
    pieces += [
        model(decoder_input_ids=after[:, i : i + 1], past_key_values=output.past_key_values).logits
        for i in range(5, 12)
    ]
    assert output.past_key_values.get_seq_length() == 12
    assert relative_error(torch.cat(pieces, 1), whole) < 1e-5


@torch.no_grad()
def test_reordered_rows_take_their_memory_along(model, ids, after):
    past = model(ids, decoder_input_ids=after[:, :5]).past_key_values
    past.reorder_cache(torch.tensor([2, 2, 0, 1]))
    order = [2, 2, 0, 1]
    found = model(decoder_input_ids=after[order, 5:], past_key_values=past).logits
    assert relative_error(found, model(ids[order], decoder_input_ids=after[order]).logits[:, 5:]) < 1e-5
    past.crop(-3)
    again = model(decoder_input_ids=after[order, 9:], past_key_values=past).logits
    assert relative_error(again, found[:, 4:]) < 1e-5


@torch.no_grad()
def test_a_row_without_new_tokens_stands_still(model, ids, after):
    past = model(ids[:2], decoder_input_ids=after[:2, :5]).past_key_values
    past.memories[1] = model.encode(ids[1:2, :9])[0]
    mask = torch.tensor([[1, 1], [0, 0]])
    inputs = {"decoder_input_ids": after[:2, 5:7], "decoder_attention_mask": mask, "output_attentions": True}
    output = model(past_key_values=past, **inputs)
    assert past.lengths.tolist() == [7, 5]
    assert relative_error(output.logits[0], model(ids[:1], decoder_input_ids=after[:1, :7]).logits[0, 5:]) < 1e-5
    assert not output.logits[1].any()
    assert not output.cross_attentions[0][1].any()


@torch.no_grad()
def test_what_the_encoder_made_stands_for_the_text(model, ids, after):
    mask = torch.ones_like(ids)
    mask[1, :9] = 0
    expected = model(ids, attention_mask=mask, decoder_input_ids=after)
    encoded = model.get_encoder()(ids, attention_mask=mask)
    given = {"attention_mask": mask, "decoder_input_ids": after}
    forms = (encoded, encoded.to_tuple(), [encoded[0]], SimpleNamespace(last_hidden_state=encoded[0]))
    for outputs in (*forms, {"last_hidden_state": encoded.last_hidden_state}):
        found = model(encoder_outputs=outputs, **given)
        assert torch.equal(found.logits, expected.logits)
        assert torch.equal(found.encoder_last_hidden_state, encoded.last_hidden_state)
    assert torch.equal(model.run_encoder(ids, mask, return_dict=False)[0], encoded[0])


@torch.no_grad()
def test_vectors_stand_for_ids_on_either_side(model, ids, after):
    expected = model(ids, decoder_input_ids=after).logits
    table = model.get_input_embeddings()
    assert torch.equal(model(inputs_embeds=table(ids), decoder_input_ids=after).logits, expected)
    assert torch.equal(model(ids, decoder_inputs_embeds=table(after)).logits, expected)


@torch.no_grad()
def test_labels_are_what_the_decoder_reads_one_place_later(model, ids, after):
    labels = after.clone()
    labels[1, 4:] = -100
    output = model(ids, labels=labels)
    moved = torch.cat([torch.zeros(3, 1, dtype=torch.long), after[:, :-1]], 1)
    moved[1, 5:] = 0
    assert torch.equal(model.prepare_decoder_input_ids_from_labels(labels), moved)
    logits = model(ids, decoder_input_ids=moved).logits
    assert torch.equal(output.logits, logits)
    chosen = torch.log_softmax(logits, -1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    assert torch.allclose(output.loss, -chosen[labels >= 0].mean())


@torch.no_grad()
def test_an_output_answers_to_names_and_places(model, ids, after):
    output = model(ids, decoder_input_ids=after)
    assert output.keys() == ("logits", "past_key_values", "encoder_last_hidden_state")
    assert output[0] is output.logits is output["logits"]
    assert "decoder_attentions" not in output
    assert model(ids, decoder_input_ids=after, use_cache=False).past_key_values is None
    assert model(ids, decoder_input_ids=after, return_dict=False)[0].shape == (3, 12, 61)
    assert torch.equal(model(ids.tolist(), decoder_input_ids=after.numpy()).logits, output.logits)


def test_a_call_that_continues_has_no_gradients_and_training_keeps_no_past(model, ids, after):
    output = model(ids, decoder_input_ids=after)
    assert output.logits.requires_grad
    assert not model(decoder_input_ids=after, past_key_values=output.past_key_values).logits.requires_grad
    with pytest.warns(UserWarning, match="dropout_rate"):
        trained = build(dropout_rate=0.1).train()
    assert trained(ids, labels=after).past_key_values is None


def test_steps_of_a_model_without_memories_are_refused(model, after):
    rows = after.tolist()
    tables, blocks = shuffled_tables(rows, np.random.default_rng(0))
    batch = make_batch(rows, [0, 1, 2], [0] * 3, [12] * 3, tables)
    with pytest.raises(ArgumentError, match="must have a memory, got none"):
        model.step(batch, model.new_cache(blocks))
    batch = replace(batch, memories=["x", "y", "z"])
    with pytest.raises(ArgumentError, match="what `encode` of its model returned, got str"):
        model.step(batch, model.new_cache(blocks))


IDS = torch.tensor([[1, 2, 3]])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"decoder_input_ids": IDS}, ArgumentError, "`input_ids` or `inputs_embeds` must be given"),
        ({"input_ids": IDS}, ArgumentError, "`decoder_input_ids` or `decoder_inputs_embeds` must be given"),
        (
            {"input_ids": IDS, "decoder_input_ids": IDS + 60},
            ArgumentError,
            r"`decoder_input_ids` must lie in \[0, 61\)",
        ),
        ({"input_ids": IDS - 2, "decoder_input_ids": IDS}, ArgumentError, r"`input_ids` must lie in .* got -1"),
        ({"input_ids": IDS, "decoder_input_ids": IDS.repeat(2, 1)}, ArgumentError, "must have 1 rows, .* got 2"),
        (
            {"input_ids": IDS, "decoder_input_ids": IDS, "labels": IDS[:, :2]},
            ArgumentError,
            r"`labels` must have the shape \(1, 3\)",
        ),
        (
            {"input_ids": IDS, "decoder_attention_mask": torch.tensor([[1, 0, 1]]), "decoder_input_ids": IDS},
            NotSupportedError,
            "`decoder_attention_mask` must have its zeros before or behind",
        ),
        (
            {"input_ids": IDS.repeat(2, 1), "attention_mask": [[1, 1, 1], [0, 0, 0]], "labels": IDS},
            ArgumentError,
            "`attention_mask` must mark at least one token in each row",
        ),
        ({"encoder_outputs": (), "decoder_input_ids": IDS}, ArgumentError, "`encoder_outputs` must hold .* got tuple"),
        ({"encoder_outputs": 3, "decoder_input_ids": IDS}, ArgumentError, "`encoder_outputs` must hold .* got int"),
        ({"past_key_values": ((1,),), "decoder_input_ids": IDS}, ArgumentError, "`past_key_values`.*got tuple"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_name(model, arguments, error, message):
    with pytest.raises(error, match=message):
        model(**arguments)


def test_labels_need_a_start_and_a_pad_token(ids):
    without = build(decoder_start_token_id=None)
    with pytest.raises(ArgumentError, match=r"`config\.decoder_start_token_id` must be set"):
        without(ids, labels=ids)
    without.generation_config.decoder_start_token_id = 7
    assert without.prepare_decoder_input_ids_from_labels(ids)[:, 0].tolist() == [7] * 3
    with pytest.raises(ArgumentError, match=r"`config\.pad_token_id` must be set"):
        build(pad_token_id=None)(ids, labels=ids)


@torch.no_grad()
def test_copies_compute_the_same(model, ids, after):
    expected = model(ids, decoder_input_ids=after).logits
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(ids, decoder_input_ids=after).logits, expected)
        assert twin.state_dict()["encoder.embed_tokens.weight"] is not model.state_dict()["shared.weight"]
        shared = twin.encoder.embed_tokens.weight.data_ptr(), twin.shared.weight.data_ptr()
        assert shared[0] == shared[1] == twin.lm_head.weight.data_ptr()


def test_everything_happens_on_the_models_device():
    family = family_for(ModelConfig(**T5))
    entries = [entry for _, entry in all_entries(family) if entry.tied is None]
    tensors = {entry.name: torch.empty(entry.shape, device="meta", dtype=torch.bfloat16) for entry in entries}
    model = TorchSeq2SeqLM(family, tensors)
    ids, mask = torch.zeros(3, 9, dtype=torch.long), torch.tensor([[0] * 4 + [1] * 5, [1] * 9, [1] * 9])
    memories = model.encode(ids, mask)
    rows = [list(range(40)), list(range(3)), list(range(50))]
    tables, blocks = shuffled_tables(rows, np.random.default_rng(0))
    cache = model.new_cache(blocks)
    for chosen, computed, counts in (([0, 1, 2], [0, 0, 0], [39, 3, 20]), ([0, 2], [39, 3, 20], [1, 7])):
        batch = make_batch(rows, chosen, computed, counts, tables)
        batch = replace(batch, memories=[memories[i] for i in chosen])
        forward = model.step(batch, cache, Taps((0, 1), (1,), True))
        assert forward.logits.device.type == forward.hidden.device.type == "meta"
    output = model(ids, attention_mask=mask, labels=ids)
    assert output.logits.device.type == output.loss.device.type == "meta"


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"feed_forward_proj": "gated-gelu-new"}, "feed_forward_proj"),
        ({"feed_forward_proj": "sliced-gelu"}, "feed_forward_proj"),
        ({"feed_forward_proj": 3}, "feed_forward_proj"),
        ({"feed_forward_proj": "gated-cosine"}, "dense_act_fn"),
        ({"relative_attention_num_buckets": 3}, "relative_attention_num_buckets"),
        ({"relative_attention_num_buckets": 0}, "relative_attention_num_buckets"),
        ({"relative_attention_num_buckets": "32"}, "relative_attention_num_buckets"),
        ({"relative_attention_max_distance": 16}, "relative_attention_max_distance"),
        ({"relative_attention_max_distance": 1.5}, "relative_attention_max_distance"),
        ({"num_decoder_layers": 0}, "num_decoder_layers"),
        ({"num_layers": 1 << 20}, "num_layers"),
        ({"d_model": None}, "d_model"),
        ({"d_kv": -1}, "d_kv"),
        ({"d_ff": True}, "d_ff"),
        ({"num_heads": 0}, "num_heads"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder"),
        ({"is_decoder": True}, "is_decoder"),
        ({"scale_decoder_outputs": "no"}, "scale_decoder_outputs"),
        ({"is_gated_act": 1}, "is_gated_act"),
    ],
    ids=str,
)
def test_configurations_that_cannot_be_are_refused_by_key(values, key):
    with pytest.raises((ModelFileError, NotSupportedError), match=rf"{key} must be .* got"):
        family_for(ModelConfig.from_dict({**T5, **values}))


def test_keys_that_follow_from_others_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    keys = ("num_decoder_layers", "dense_act_fn", "is_gated_act", "scale_decoder_outputs")
    for values in (
        {},
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        {"feed_forward_proj": "gated-silu", "num_decoder_layers": 5},
        {"feed_forward_proj": "gelu_new", "tie_word_embeddings": False, "scale_decoder_outputs": True},
    ):
        reference = transformers.T5Config(**{**SMALL_T5, **values})
        config = ModelConfig.from_dict({**T5, **values})
        assert {key: config.get(key) for key in keys} == {key: getattr(reference, key) for key in keys}
        assert (config.hidden_size, config.head_dim, config.num_key_value_heads) == (24, 6, 4)


def test_a_decoder_may_have_another_number_of_layers_and_a_head_of_its_own():
    model = build(num_layers=1, num_decoder_layers=3)
    assert (model.layer_count, model.is_tied) == (3, True)
    twin = copy.deepcopy(model)
    twin.lm_head.weight = torch.nn.Parameter(twin.lm_head.weight.detach().clone())
    assert not twin.is_tied


def test_weights_in_float16_would_overflow_and_are_refused():
    family = family_for(ModelConfig(**T5))
    with pytest.raises(NotSupportedError, match="`dtype` must be bfloat16 or float32 for t5"):
        TorchSeq2SeqLM.from_tensors(family, {}, dtype="float16")


@torch.no_grad()
def test_log_probabilities_of_beams_are_those_of_the_text(model, ids):
    call = {"num_beams": 2, "num_return_sequences": 2, "max_new_tokens": 4, "eos_token_id": None}
    output = model.generate(ids, **call, return_dict_in_generate=True, output_log_probabilities=True)
    logits = model(ids.repeat_interleave(2, 0), decoder_input_ids=output.sequences).logits[:, :-1]
    chosen = torch.log_softmax(logits, -1).gather(-1, output.sequences[:, 1:, None])[..., 0]
    assert torch.allclose(torch.as_tensor(output.log_probabilities), chosen, atol=1e-4)
