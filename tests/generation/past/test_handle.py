"""A call goes on from what an earlier one computed: the same tokens as all ids together, and nothing computed twice."""

import copy
import gc
import pickle

import pytest

torch = pytest.importorskip("torch")

from fabula import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationMixin  # noqa: E402
from fabula.errors import ArgumentError, NotSupportedError  # noqa: E402

IDS = torch.tensor([[0, 0, 5, 9, 11], [7, 8, 20, 21, 22]])
MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
NEW = torch.tensor([[1, 2, 3], [4, 5, 6]])
LONG = {"max_new_tokens": 12, "eos_token_id": None, "pad_token_id": 0}
STRATEGIES = [
    {},
    {"do_sample": True, "seed": 5},
    {"do_sample": True, "seed": 5, "num_return_sequences": 2},
    {"num_beams": 3},
    {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    {"penalty_alpha": 0.6, "top_k": 3},
    {"prompt_lookup_num_tokens": 3},
    {"dola_layers": "high"},
    {"guidance_scale": 1.5},
    {"repetition_penalty": 1.3},
]


@pytest.fixture
def counted(model, monkeypatch):
    """How many positions each step, or each burst of steps, computed."""
    counts, kind = [], type(model)
    step, burst = kind.step, getattr(kind, "burst", None)

    def counted_step(self, batch, *rest):
        counts.append(len(batch.tokens))
        return step(self, batch, *rest)

    def counted_burst(self, *arguments):
        tokens = burst(self, *arguments)
        counts.append(sum(map(len, tokens)))
        return tokens

    monkeypatch.setattr(kind, "step", counted_step)
    if burst is not None:
        monkeypatch.setattr(kind, "burst", counted_burst)
    return counts


def first_turn(model, **call):
    """A finished call, the next turn's ids, and the mask of all of them."""
    out = model.generate(IDS, attention_mask=MASK, return_dict_in_generate=True, **{**LONG, **call})
    ids = torch.cat([out.sequences, NEW], 1)
    return out, ids, torch.cat([MASK, torch.ones(2, ids.shape[1] - 5, dtype=torch.long)], 1)


@pytest.mark.parametrize("call", STRATEGIES, ids=lambda call: next(iter(call), "greedy"))
def test_every_strategy_goes_on_with_the_tokens_of_all_ids_together(model, call):
    out, ids, mask = first_turn(model)
    expected = model.generate(ids, attention_mask=mask, use_cache=False, **LONG, **call)
    past = out.past_key_values
    assert model.generate(ids, attention_mask=mask, past_key_values=past, **LONG, **call).tolist() == expected.tolist()


def test_only_what_is_new_is_computed(model, counted):
    out, ids, mask = first_turn(model)
    past = out.past_key_values
    assert past.get_seq_length() == 16 and past.lengths.tolist() == past.computed.tolist() == [14, 16]
    counted.clear()
    model.generate(ids, attention_mask=mask, past_key_values=past, **{**LONG, "max_new_tokens": 1})
    assert sum(counted) == 2 * 4  # each row's last token, which nothing was computed from, and three new ones


def test_the_masks_length_says_whether_the_ids_are_only_the_new_ones(model, counted):
    out, ids, mask = first_turn(model)
    expected = model.generate(ids, attention_mask=mask, use_cache=False, **LONG)
    counted.clear()
    found = model.generate(ids[:, 16:], attention_mask=mask, past_key_values=out.past_key_values, **LONG)
    assert found.tolist() == expected[:, 16:].tolist()
    assert counted[0] == 2 * 4


def test_ragged_lists_go_on_too(model, counted):
    prompts = [[5, 9, 11], [7, 8, 20, 21, 22]]
    out = model.generate(prompts, return_dict_in_generate=True, **LONG)
    turns = [[*row, 1, 2] for row in out.sequences]
    expected = model.generate(turns, use_cache=False, **LONG)
    counted.clear()
    assert model.generate(turns, past_key_values=out.past_key_values, **LONG) == expected
    assert counted[0] == 2 * 3


def test_many_turns_compute_each_token_once(model, counted):
    ids, mask, past = IDS, MASK, None
    for _ in range(4):
        settings = {**LONG, "max_new_tokens": 5}
        out = model.generate(ids, attention_mask=mask, past_key_values=past, return_dict_in_generate=True, **settings)
        ids = torch.cat([out.sequences, NEW], 1)
        mask = torch.cat([mask, torch.ones(2, 8, dtype=torch.long)], 1)
        past = out.past_key_values
    assert sum(counted) == int(past.lengths.sum())


def test_rows_that_ended_early_go_on_behind_their_padding(model):
    ends = model.generate(IDS, attention_mask=MASK, **LONG)[1, 9].item()
    out = model.generate(IDS, attention_mask=MASK, return_dict_in_generate=True, **{**LONG, "eos_token_id": ends})
    past = out.past_key_values
    assert past.lengths[1] < past.get_seq_length()
    ids = torch.cat([out.sequences, NEW], 1)
    mask = torch.cat([torch.from_numpy(past.mask).long(), torch.ones(2, 4, dtype=torch.long)], 1)
    mask[1, past.get_seq_length()] = 0
    expected = model.generate(ids, attention_mask=mask, use_cache=False, **LONG)
    assert model.generate(ids, attention_mask=mask, past_key_values=past, **LONG).tolist() == expected.tolist()


def test_several_sequences_and_beams_keep_a_row_each(model):
    for call in (
        {"do_sample": True, "seed": 1, "num_return_sequences": 3},
        {"num_beams": 4, "num_return_sequences": 3},
    ):
        out = model.generate(IDS, attention_mask=MASK, return_dict_in_generate=True, **LONG, **call)
        past = out.past_key_values
        assert past.rows == 6
        ids = torch.cat([out.sequences, NEW.repeat_interleave(3, 0)], 1)
        mask = torch.cat([MASK.repeat_interleave(3, 0), torch.ones(6, 15, dtype=torch.long)], 1)
        expected = model.generate(ids, attention_mask=mask, use_cache=False, **LONG)
        assert model.generate(ids, attention_mask=mask, past_key_values=past, **LONG).tolist() == expected.tolist()


def test_rows_are_cropped_reordered_and_repeated(model):
    out, ids, mask = first_turn(model)
    past = copy.deepcopy(out.past_key_values)
    past.crop(-6)
    assert past.get_seq_length() == 10 and out.past_key_values.get_seq_length() == 16
    past.reorder_cache(torch.tensor([1, 1, 0]))
    rows, seen = ids[[1, 1, 0], :14], mask[[1, 1, 0], :14]
    expected = model.generate(rows, attention_mask=seen, use_cache=False, **LONG)
    assert model.generate(rows, attention_mask=seen, past_key_values=past, **LONG).tolist() == expected.tolist()
    past.batch_repeat_interleave(2)
    assert past.rows == 6
    past.crop(4)
    assert past.get_seq_length() == 4


def test_ids_that_differ_from_the_past_are_computed_from_there(model, counted):
    out, ids, mask = first_turn(model)
    ids = ids.clone()
    ids[1, 10] = (ids[1, 10] + 1) % 250
    expected = model.generate(ids, attention_mask=mask, use_cache=False, **LONG)
    counted.clear()
    found = model.generate(ids, attention_mask=mask, past_key_values=out.past_key_values, **LONG)
    assert found.tolist() == expected.tolist()
    assert counted[0] == 4 + 10


def test_the_dense_export_equals_that_of_transformers(model, reference):
    out, _, _ = first_turn(model)
    with torch.no_grad():
        positions = (torch.cat([MASK, torch.ones(2, 11, dtype=torch.long)], 1).cumsum(1) - 1).clamp(0)
        mask = torch.cat([MASK, torch.ones(2, 11, dtype=torch.long)], 1)
        cache = reference(out.sequences[:, :16], attention_mask=mask, position_ids=positions).past_key_values
    dense = out.past_key_values.to_dense()
    assert len(dense) == len(out.past_key_values) == len(cache.layers)
    for (keys, values), layer in zip(dense, cache.layers, strict=True):
        for ours, theirs in ((keys, layer.keys), (values, layer.values)):
            seen = mask[:, None, :, None].bool()
            theirs = theirs.where(seen, 0)
            torch.testing.assert_close(torch.as_tensor(ours), theirs, rtol=1e-4, atol=1e-4)


def test_what_the_engine_took_back_is_computed_again(model):
    out, ids, mask = first_turn(model)
    expected = model.generate(ids, attention_mask=mask, use_cache=False, **LONG)
    dense = [torch.as_tensor(part) for pair in out.past_key_values.to_dense() for part in pair]
    with model.engine.alone():
        while model.engine.keeper.reclaim():
            pass
    past = out.past_key_values
    assert past.computed.tolist() == [0, 0]
    model.engine.pool.prefixes.clear()
    assert model.generate(ids, attention_mask=mask, past_key_values=past, **LONG).tolist() == expected.tolist()
    again = [torch.as_tensor(part) for pair in past.to_dense() for part in pair]
    for one, other in zip(dense, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_blocks_come_back_when_nobody_holds_the_past(model):
    out, _, _ = first_turn(model)
    gc.collect()
    engine = model.engine
    with engine.alone():
        engine.keeper.drain()
        held = engine.pool.blocks - len(engine.pool.free)
    assert held >= 2
    del out
    gc.collect()
    with engine.alone():
        engine.keeper.drain()
        engine.pool.check([])


def test_what_the_model_returned_goes_on(model, counted):
    _, ids, mask = first_turn(model)
    expected = model.generate(ids, attention_mask=mask, use_cache=False, **LONG)
    past = model(ids[:, :14], attention_mask=mask[:, :14]).past_key_values
    counted.clear()
    assert model.generate(ids, attention_mask=mask, past_key_values=past, **LONG).tolist() == expected.tolist()
    assert counted[0] == 2 * 6
    found = model.generate(ids[:, 14:], attention_mask=mask, past_key_values=past, **LONG)
    assert found.tolist() == expected[:, 14:].tolist()


@pytest.mark.parametrize(
    "call", [{}, {"num_beams": 3}, {"repetition_penalty": 1.4}], ids=["greedy", "beams", "penalty"]
)
@pytest.mark.parametrize("whole", [True, False])
def test_a_cache_of_transformers_is_copied_in_with_the_tokens_of_transformers(model, reference, counted, call, whole):
    ids = torch.tensor([[7, 8, 20, 21, 22, 30, 31], [9, 3, 4, 5, 6, 10, 11]])
    mask = torch.ones_like(ids)

    def cache():
        with torch.no_grad():
            found = reference(ids[:, :5]).past_key_values
        if call.get("num_beams"):
            found.batch_repeat_interleave(call["num_beams"])
        return found

    given = ids if whole else ids[:, 5:]
    expected = reference.generate(given, attention_mask=mask, past_key_values=cache(), do_sample=False, **LONG, **call)
    with torch.no_grad():
        own = reference(ids[:, :5]).past_key_values
    found = model.generate(given, attention_mask=mask, past_key_values=own, **LONG, **call)
    assert found.tolist() == expected.tolist()
    assert counted[0] == 2 * 2


def test_turns_equal_those_of_transformers(model, reference):
    transformers = pytest.importorskip("transformers")
    ids, mask, past = IDS[1:], MASK[1:], None
    theirs, cache = ids, transformers.DynamicCache(config=reference.config)
    for _ in range(3):
        out = model.generate(ids, attention_mask=mask, past_key_values=past, return_dict_in_generate=True, **LONG)
        mask = torch.ones(1, out.sequences.shape[1] + 3, dtype=torch.long)
        theirs = reference.generate(theirs, attention_mask=mask[:, : theirs.shape[1]], past_key_values=cache, **LONG)
        assert out.sequences.tolist() == theirs.tolist()
        assert out.past_key_values.get_seq_length() == cache.get_seq_length()
        ids = theirs = torch.cat([out.sequences, NEW[:1]], 1)
        past = out.past_key_values


def test_what_does_not_fit_is_refused(model, folder):
    out, ids, mask = first_turn(model)
    past = out.past_key_values
    other = AutoModelForCausalLM.from_pretrained(folder, backend="torch")
    refused = [
        (dict(inputs=ids, attention_mask=mask, past_key_values=((1, 2),)), "tuple"),
        (dict(inputs=ids, attention_mask=mask, past_key_values=3), "int"),
        (dict(inputs=ids[:1], attention_mask=mask[:1], past_key_values=past), "2 rows|1 rows"),
        (dict(inputs=ids[:, :3], past_key_values=past), "16 columns"),
        (dict(inputs=NEW, attention_mask=torch.ones(2, 19), past_key_values=past), "attention_mask"),
        (dict(past_key_values=past), "input_ids"),
        (
            dict(inputs=ids, attention_mask=mask, past_key_values=past, cache_implementation="quantized"),
            "cache_impl|native",
        ),
    ]
    for call, message in refused:
        with pytest.raises((ArgumentError, NotSupportedError), match=message):
            model.generate(**call, max_new_tokens=2)
    with pytest.raises(ArgumentError, match="another"):
        other.generate(ids, attention_mask=mask, past_key_values=past, max_new_tokens=2)
    with pytest.raises(ArgumentError, match="beam_idx"):
        past.reorder_cache([2])
    with pytest.raises(ArgumentError, match="all ids"):
        model.generate(NEW, attention_mask=mask[:, :19], past_key_values=past, output_prompt_log_probabilities=True,
                       return_dict_in_generate=True, max_new_tokens=2)  # fmt: skip


def test_an_output_with_a_past_is_pickled_without_it(model):
    out, _, _ = first_turn(model)
    assert pickle.loads(pickle.dumps(out)).past_key_values is None


def test_the_model_itself_goes_on_from_a_call(model):
    out, ids, mask = first_turn(model)
    with torch.no_grad():
        expected = model(ids, attention_mask=mask).logits[:, 16:]
        found = model(ids[:, 16:], attention_mask=mask, past_key_values=out.past_key_values).logits
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=1e-4, atol=1e-4)
    assert out.past_key_values.get_seq_length() == 16


def test_a_call_that_began_with_vectors_goes_on(model, folder):
    ids = IDS[1:]
    vectors = AutoModelForCausalLM.from_pretrained(folder, backend="torch").get_input_embeddings()(ids).detach()
    out = model.generate(inputs_embeds=vectors, return_dict_in_generate=True, **LONG)
    whole = torch.cat([ids, out.sequences, NEW[:1]], 1)
    expected = model.generate(whole, use_cache=False, **LONG)
    mask, columns = torch.ones_like(whole), out.past_key_values.get_seq_length()
    for _ in range(2):
        past = out.past_key_values
        found = model.generate(whole[:, columns:], attention_mask=mask, past_key_values=past, **LONG)
        assert found.tolist() == expected[:, columns:].tolist()
        with model.engine.alone():
            while model.engine.keeper.reclaim():
                pass


def test_a_decoder_goes_on_beside_the_same_text_only(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    config = dict(vocab_size=101, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0)
    transformers.T5ForConditionalGeneration(transformers.T5Config(**config)).save_pretrained(tmp_path)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype="float32")
    texts = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    out = model.generate(texts, return_dict_in_generate=True, **LONG)
    starts = torch.cat([out.sequences, NEW], 1)
    counts, step = [], model.step
    monkeypatch.setattr(model, "step", lambda batch, *rest: counts.append(len(batch.tokens)) or step(batch, *rest))
    for given, computed in ((texts, 2 * 4), (texts + 1, 2 * 16)):
        expected = model.generate(given, decoder_input_ids=starts, use_cache=False, **LONG)
        counts.clear()
        found = model.generate(given, decoder_input_ids=starts, past_key_values=out.past_key_values, **LONG)
        assert found.tolist() == expected.tolist() and counts[0] == computed


def test_a_module_of_ones_own_remembers_tokens():
    class Sums(GenerationMixin, torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = torch.nn.Embedding(50, 16), torch.nn.Linear(16, 50)

        def forward(self, input_ids):
            return self.head(self.embed(input_ids).cumsum(1))

    module = Sums()
    out = module.generate(NEW, return_dict_in_generate=True, **LONG)
    ids = torch.cat([out.sequences, NEW], 1)
    expected = module.generate(ids, use_cache=False, **LONG)
    assert module.generate(ids, past_key_values=out.past_key_values, **LONG).tolist() == expected.tolist()
    with pytest.raises(NotSupportedError, match="tokens only"):
        out.past_key_values.to_dense()


def test_layers_have_their_keys_and_values_by_name(model):
    out = model.generate(IDS[1:], return_dict_in_generate=True, **LONG)
    layers, dense = out.past_key_values.layers, out.past_key_values.to_dense()
    assert torch.equal(torch.as_tensor(layers[0].keys), torch.as_tensor(dense[0][0])) and len(layers) == len(dense)
    assert torch.equal(torch.as_tensor(layers[1].values), torch.as_tensor(dense[1][1]))
