"""Caches that a caller makes are filled by calls, and the next call computes only what is new."""

import copy

import pytest

torch = pytest.importorskip("torch")

import fabula  # noqa: E402
from fabula import (  # noqa: E402
    AutoModelForSeq2SeqLM,
    DynamicCache,
    EncoderDecoderCache,
    QuantizedCache,
    StaticCache,
)
from fabula.errors import ArgumentError, NotSupportedError  # noqa: E402

IDS = torch.tensor([[5, 9, 11, 20, 21]])
NEW = torch.tensor([[1, 2, 3]])
CALL = {"max_new_tokens": 6, "eos_token_id": None}
KINDS = {
    "dynamic": DynamicCache,
    "offloaded": lambda: DynamicCache(offloading=True),
    "static": lambda: StaticCache(max_cache_len=64),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_in_one_cache_is_what_it_is_without(model, kind):
    past, ids = KINDS[kind](), IDS
    for _ in range(2):
        out = model.generate(ids, past_key_values=past, **CALL)
        assert torch.equal(out, model.generate(ids, use_cache=False, **CALL))
        assert past.get_seq_length() == out.shape[1] - 1
        ids = torch.cat([out, NEW], 1)


def test_only_what_is_new_is_computed(model, monkeypatch):
    past, counts, step = DynamicCache(config=model.config), [], type(model).step
    out = model.generate(IDS, past_key_values=past, return_dict_in_generate=True, **CALL)
    assert out.past_key_values is past
    monkeypatch.setattr(
        type(model), "step", lambda self, batch, *rest: counts.append(len(batch.tokens)) or step(self, batch, *rest)
    )
    model.generate(torch.cat([out.sequences, NEW], 1), past_key_values=past, **CALL)
    assert counts[0] == 1 + NEW.shape[1]  # the last token of the first call, which nothing was computed from


def test_a_prefix_that_the_model_read_serves_copies(model):
    with torch.no_grad():
        prefix = model(IDS, past_key_values=StaticCache(config=model.config, max_cache_len=100)).past_key_values
    for more in (NEW, NEW + 7):
        ids = torch.cat([IDS, more], 1)
        out = model.generate(ids, past_key_values=copy.deepcopy(prefix), **CALL)
        assert torch.equal(out, model.generate(ids, use_cache=False, **CALL))
    assert prefix.get_seq_length() == IDS.shape[1]


def test_copies_of_a_cache_go_on_apart(model):
    past = DynamicCache()
    with torch.no_grad():
        model(IDS, past_key_values=past)
        other = copy.deepcopy(past)
        model(NEW, past_key_values=other)
    assert (past.get_seq_length(), other.get_seq_length()) == (5, 8)


def test_a_loop_over_the_model_fills_it(model):
    past, ids, mask = DynamicCache(), IDS, torch.ones_like(IDS)
    new = []
    with torch.no_grad():
        for _ in range(4):
            logits = model(ids, attention_mask=mask, past_key_values=past).logits
            ids = logits[:, -1:].argmax(-1)
            mask = torch.cat([mask, torch.ones_like(ids)], 1)
            new.append(int(ids))
    assert new == model.generate(IDS, max_new_tokens=4, eos_token_id=None)[0, 5:].tolist()
    assert past.get_seq_length() == 8


def test_what_generate_left_is_read_by_the_model(model):
    past = DynamicCache()
    out = model.generate(IDS, past_key_values=past, **CALL)
    with torch.no_grad():
        after = model(out[:, -1:], past_key_values=past).logits[:, -1]
        whole = model(out).logits[:, -1]
    assert torch.allclose(after, whole, atol=1e-5)


def test_a_quantized_cache_stores_codes(model):
    past = QuantizedCache(backend="quanto", nbits=8, q_group_size=16)
    out = model.generate(IDS, past_key_values=past, return_dict_in_generate=True, **CALL)
    assert past.held.kind.name == "quantized"
    same = {"cache_implementation": "quantized", "cache_config": {"nbits": 8, "q_group_size": 16}}
    assert torch.equal(out.sequences, model.generate(IDS, **same, **CALL))


def test_rows_are_dropped_repeated_and_forgotten(model):
    past = DynamicCache()
    assert not past.is_initialized
    model.generate(IDS, past_key_values=past, **CALL)
    past.crop(4)
    past.batch_repeat_interleave(2)
    assert past.get_seq_length() == 4
    assert len(model.generate(IDS.repeat(2, 1), past_key_values=past, **CALL)) == 2
    past.reset()
    assert past.get_seq_length() == 0


def test_what_they_cannot_be_is_refused():
    with pytest.raises(NotSupportedError, match="`ddp_cache_data` must be None"):
        DynamicCache([(None, None)])
    with pytest.raises(ArgumentError, match="no argument `max_len`"):
        StaticCache(max_len=3)
    with pytest.raises(NotSupportedError, match="must be made of new caches"):
        EncoderDecoderCache(object())


def test_a_kind_of_cache_is_not_dropped(model):
    with pytest.raises(ArgumentError, match="`cache_implementation` must be absent beside a cache"):
        model.generate(IDS, past_key_values=DynamicCache(), cache_implementation="static", **CALL)
    for past, kind in ((QuantizedCache(nbits=8), "quantized"), (DynamicCache(offloading=True), "offloaded")):
        with pytest.raises(NotSupportedError, match=f"got one that is {kind}"):
            model(IDS, past_key_values=past)


def test_a_model_with_an_encoder_fills_one(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = dict(vocab_size=101, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0)
    transformers.T5ForConditionalGeneration(transformers.T5Config(**config)).save_pretrained(tmp_path)
    model, past = AutoModelForSeq2SeqLM.from_pretrained(tmp_path), EncoderDecoderCache(DynamicCache(), DynamicCache())
    out = model.generate(IDS, past_key_values=past, **CALL)
    assert past.get_seq_length() == out.shape[1] - 1
    longer = model.generate(IDS, decoder_input_ids=out, past_key_values=past, **CALL)
    assert torch.equal(longer, model.generate(IDS, decoder_input_ids=out, **CALL))


def test_layers_are_the_same_however_they_came_about(model, reference):
    past = DynamicCache()
    assert past.layers == ()
    with torch.no_grad():
        read, expected = model(IDS, past_key_values=past).past_key_values, reference(IDS).past_key_values
    out = model.generate(IDS, max_new_tokens=1, past_key_values=(written := DynamicCache()))
    assert out.shape[1] == written.get_seq_length() + 1
    for found in (past.layers, read.layers, written.layers):
        for mine, theirs in zip(found, expected.layers, strict=True):
            assert torch.allclose(torch.as_tensor(mine.keys), theirs.keys, atol=1e-5)
            assert torch.allclose(torch.as_tensor(mine.values), theirs.values, atol=1e-5)


def test_a_call_that_was_refused_leaves_nothing_in_it(model):
    past = DynamicCache()
    with pytest.raises(ArgumentError, match="must lie in"):
        model(IDS.repeat(3, 1) + 1000, past_key_values=past)
    with torch.no_grad():
        model(IDS, past_key_values=past)
    assert past.get_seq_length() == 5


@pytest.mark.parametrize(("framework", "door"), [("jax", "Flax"), ("tensorflow", "TF")])
def test_other_frameworks_fill_one_too(folder, framework, door):
    pytest.importorskip(framework)
    model, past = getattr(fabula, f"{door}AutoModelForCausalLM").from_pretrained(folder), DynamicCache()
    model(IDS.numpy()[:, :3], past_key_values=past)
    model(IDS.numpy()[:, 3:], past_key_values=past)
    settings = {"max_new_tokens": 2, "eos_token_id": None}
    ids = torch.cat([IDS, NEW], 1).tolist()
    found = model.generate(ids, past_key_values=copy.deepcopy(past), **settings)
    assert (past.get_seq_length(), past.layers[0].keys.shape[2]) == (5, 5)
    assert found == model.generate(ids, use_cache=False, **settings)
