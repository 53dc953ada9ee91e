"""T5 on the kernels gives what transformers gives, and the texts of PyTorch; what it does not do it refuses by name."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula import AutoModelForCausalLM, AutoModelForSeq2SeqLM  # noqa: E402
from fabula.errors import ArgumentError, NotSupportedError, UnknownArgumentError  # noqa: E402
from fabula.kernels.library import load_library  # noqa: E402
from fabula.models.encoders.native import NativeSeq2SeqLM  # noqa: E402
from fabula.testing.tiny_model import write_tiny_model  # noqa: E402
from tests.models.configurations import Case  # noqa: E402
from tests.models.encoders.cases import CASES, SMALL_T5, random_case, write  # noqa: E402
from tests.models.steps import CHUNKS, relative_error, stepped_logits  # noqa: E402
from tests.padding import padded  # noqa: E402

pytestmark = pytest.mark.skipif(load_library() is None, reason="the kernels are not built")
BOUND = 1e-5
TEXTS = (40, 1, 17, 70)  # tokens for the encoder
LENGTHS = (45, 1, 17, 70)  # and for the decoder
rectangle = partial(padded, convert=torch.as_tensor)
random = np.random.default_rng(5)
texts = [random.integers(1, 61, length).tolist() for length in TEXTS]
rows = [[0, *random.integers(1, 61, length - 1).tolist()] for length in LENGTHS]
IDS, MASK = rectangle(texts, "left")


class Loaded:
    """One model three times: of transformers, on the kernels and in PyTorch."""

    def __init__(self, reference, folder):
        self.reference, self.folder = reference, folder
        self.native = self.load(backend="native")
        self.torch = self.load(backend="torch")

    def load(self, **options):
        return AutoModelForSeq2SeqLM.from_pretrained(self.folder, **options)


@pytest.fixture(scope="module")
def loaded(writing):
    """name -> that of a small random model."""
    return cache(lambda name: Loaded(writing(name).reference, writing(name).directory))


@pytest.fixture(scope="module", params=CASES, ids=str)
def written(request, loaded):
    return loaded(request.param.name)


@pytest.fixture(scope="module")
def gated(loaded):
    return loaded("t5-1.1")


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_a_call_gives_what_transformers_gives(written, side):
    ids, mask = rectangle(texts, side)
    after, after_mask = rectangle(rows, side)
    given = {"attention_mask": mask, "decoder_input_ids": after, "decoder_attention_mask": after_mask}
    found = written.native(ids, **given)
    assert not found.logits[~after_mask.bool()].any()
    assert not found.encoder_last_hidden_state[~mask.bool()].any()
    for place, (text, row) in enumerate(zip(texts, rows, strict=True)):
        right = written.reference(input_ids=torch.tensor([text]), decoder_input_ids=torch.tensor([row]))
        encoded = found.encoder_last_hidden_state[place, mask[place].bool()]
        assert relative_error(encoded, right.encoder_last_hidden_state[0]) < BOUND
        assert relative_error(found.logits[place, after_mask[place].bool()], right.logits[0]) < BOUND


@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
def test_steps_give_the_same_bits_in_any_chunks_and_company(gated, chunk):
    memories = gated.native.encode(IDS, MASK)
    found = stepped_logits(gated.native, rows, chunk, memories=memories)
    for place, row in enumerate(rows):
        alone = gated.native.encode([texts[place]])
        assert np.array_equal(
            found[place], stepped_logits(gated.native, [row], lambda missing: missing, memories=alone)[0]
        )


@pytest.mark.parametrize("seed", range(6))
@torch.no_grad()
def test_configurations_that_nobody_would_choose(seed, tmp_path):
    one, random = Loaded(write(random_case(seed), tmp_path), tmp_path), np.random.default_rng(seed)
    ids, after = (
        torch.from_numpy(random.integers(0, one.native.vocabulary_size, (2, random.integers(1, 60)))) for _ in range(2)
    )
    right = one.reference(input_ids=ids, decoder_input_ids=after).logits
    assert relative_error(one.native(ids, decoder_input_ids=after).logits, right) < 1e-4
    twin_call = {"max_new_tokens": 8, "num_beams": 2}
    assert torch.equal(one.native.generate(ids, **twin_call), one.torch.generate(ids, **twin_call))


@pytest.mark.parametrize("settings", [{}, {"num_beams": 4, "num_return_sequences": 2}], ids=["greedy", "beams"])
def test_texts_are_those_of_transformers(written, settings):
    if len(written.native.layers) > written.native.config.num_layers:
        pytest.skip("transformers does not generate with more layers in the decoder than in the encoder")
    right = written.reference.generate(input_ids=IDS, attention_mask=MASK, max_new_tokens=24, **settings)
    found = written.native.generate(IDS, attention_mask=MASK, max_new_tokens=24, **settings)
    ended = (right == 1).cumsum(1) - (right == 1).long() > 0
    assert torch.equal(found, right.masked_fill(ended, 0)), "it takes a pad token of 0 for none"


WAYS = {
    "samples": {"do_sample": True, "seed": 3, "num_return_sequences": 3, "top_k": 20},
    "sampled beams": {"do_sample": True, "seed": 3, "num_beams": 3, "num_return_sequences": 2},
    "groups of beams": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "layers": {"dola_layers": "low", "repetition_penalty": 1.2},
    "drafts": {"prompt_lookup_num_tokens": 3},
    "penalties": {"repetition_penalty": 1.3, "encoder_no_repeat_ngram_size": 2, "no_repeat_ngram_size": 2},
}


@pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)
def test_every_way_to_decode_gives_the_text_of_pytorch(gated, settings):
    settings = {"max_new_tokens": 16, **settings}
    found, right = (
        one.generate(IDS, attention_mask=MASK, return_dict_in_generate=True, output_scores=True, **settings)
        for one in (gated.native, gated.torch)
    )
    assert torch.equal(found.sequences, right.sequences)
    assert all(torch.allclose(*pair, atol=1e-3) for pair in zip(found.scores, right.scores, strict=True))


def test_rows_go_on_in_bursts_with_their_memories(gated, monkeypatch):
    model, counts = gated.load(backend="native"), []
    inner = model._native.burst
    monkeypatch.setattr(model._native, "burst", lambda *given: counts.append(len(found := inner(*given))) or found)
    call = {"attention_mask": MASK, "max_new_tokens": 40, "eos_token_id": None}
    for settings in ({}, {"do_sample": True, "seed": 2, "temperature": 0.9, "top_p": 0.8}):
        counts.clear()
        found = model.generate(IDS, **call, **settings)
        assert sum(counts) > 30
        assert torch.equal(found, gated.torch.generate(IDS, **call, **settings))


def test_rows_alone_get_the_text_that_they_get_together(gated):
    together = gated.native.generate_batch(texts, max_new_tokens=12)
    alone = [gated.native.generate_batch([text], max_new_tokens=12) for text in texts]
    right = gated.torch.generate_batch(texts, max_new_tokens=12)
    found = [one.generated_tokens for one in together.values()]
    assert found == [next(iter(one.values())).generated_tokens for one in alone]
    assert found == [one.generated_tokens for one in right.values()]


def test_the_encoder_and_what_it_leaves_are_computed_once(gated, monkeypatch):
    model, counts = gated.load(backend="native"), []
    for name in ("encode", "remember", "step"):
        inner = getattr(model._native, name)
        monkeypatch.setattr(
            model._native, name, lambda *given, name=name, inner=inner: counts.append(name) or inner(*given)
        )
    model.generate(IDS, attention_mask=MASK, num_beams=3, max_new_tokens=6)
    assert (counts.count("encode"), counts.count("remember")) == (1, 1)
    assert counts.count("step") > 3


def test_what_an_encoder_left_may_be_given(gated):
    model = gated.native
    right = model.generate(IDS, attention_mask=MASK, max_new_tokens=6)
    outputs = model.get_encoder()(IDS, attention_mask=MASK, output_hidden_states=True)
    assert isinstance(outputs.last_hidden_state, torch.Tensor)
    reference = gated.reference.encoder(input_ids=IDS, attention_mask=MASK, output_hidden_states=True)
    kept = MASK.bool()
    for ours, theirs in zip(outputs.hidden_states, reference.hidden_states, strict=True):
        assert relative_error(ours[kept], theirs[kept].detach()) < BOUND
    for given in (outputs, outputs.to_tuple(), reference, {"last_hidden_state": reference.last_hidden_state.detach()}):
        assert torch.equal(model.generate(encoder_outputs=given, attention_mask=MASK, max_new_tokens=6), right)
    vectors = gated.torch.get_input_embeddings()(IDS).detach()
    again = model.run_encoder(inputs_embeds=vectors.numpy(), attention_mask=MASK, return_dict=False)
    assert isinstance(again[0], np.ndarray)
    assert np.array_equal(again[0], outputs.last_hidden_state.numpy())


@torch.no_grad()
def test_zeros_of_the_encoders_mask_may_stand_anywhere(gated):
    ids = torch.from_numpy(np.random.default_rng(1).integers(1, 61, (3, 30)))
    mask = torch.from_numpy(np.random.default_rng(2).integers(0, 2, (3, 30)))
    mask[2] = 1
    given = {"attention_mask": mask, "decoder_input_ids": ids[:, :7]}
    found, right = gated.native(ids, **given), gated.reference(ids, **given)
    kept = mask.bool()
    assert relative_error(found.encoder_last_hidden_state[kept], right.encoder_last_hidden_state[kept]) < BOUND
    assert relative_error(found.logits, right.logits) < BOUND
    assert relative_error(gated.native(encoder_outputs=(right[-1],), **given).logits, right.logits) < BOUND


@torch.no_grad()
def test_a_past_continues_without_the_text_and_takes_its_memory_along(gated):
    model, after = gated.native, torch.tensor(texts[0])[:20].reshape(4, 5)
    whole = model(IDS, attention_mask=MASK, decoder_input_ids=after).logits
    begun = model(IDS, attention_mask=MASK, decoder_input_ids=after[:, :2])
    rest = model(decoder_input_ids=after[:, 2:], past_key_values=begun.past_key_values)
    assert torch.equal(torch.cat([begun.logits, rest.logits], 1), whole)
    past, order = model(IDS, attention_mask=MASK, decoder_input_ids=after[:, :2]).past_key_values, [3, 3, 0, 1]
    past.reorder_cache(order)
    right = model(IDS[order], attention_mask=MASK[order], decoder_input_ids=after[order]).logits
    assert torch.equal(model(decoder_input_ids=after[order, 2:], past_key_values=past).logits, right[:, 2:])
    assert model(IDS, decoder_input_ids=after, use_cache=False, return_dict=False)[0].shape == (4, 5, 61)


def test_a_call_goes_on_from_what_another_generated(gated):
    found = []
    for model in (gated.native, gated.torch):
        first = model.generate(IDS, attention_mask=MASK, max_new_tokens=5, return_dict_in_generate=True)
        given = {"decoder_input_ids": first.sequences, "past_key_values": first.past_key_values}
        found.append(model.generate(IDS, attention_mask=MASK, max_new_tokens=5, **given))
    assert torch.equal(*found)


@pytest.mark.parametrize("settings", [{"cache_implementation": "static"}, {"cache_implementation": "offloaded"}])
def test_caches_that_change_no_number_change_no_text(gated, settings):
    right = gated.native.generate(IDS, attention_mask=MASK, max_new_tokens=6)
    assert torch.equal(gated.native.generate(IDS, attention_mask=MASK, max_new_tokens=6, **settings), right)


def test_a_quantized_cache_codes_what_the_decoder_attends_to(gated):
    settings = {"cache_implementation": "quantized", "cache_config": {"nbits": 8}, "max_new_tokens": 6}
    first = {"return_dict_in_generate": True, "output_logits": True}
    found, right = (
        gated.native.generate(IDS, attention_mask=MASK, **first, **each) for each in (settings, {"max_new_tokens": 6})
    )
    assert relative_error(found.logits[0], right.logits[0]) < 0.1
    assert not torch.equal(found.logits[0], right.logits[0])


@torch.no_grad()
def test_weights_in_fewer_bits_stay_near_those_of_pytorch(tmp_path):
    sizes = {"d_model": 64, "d_kv": 8, "d_ff": 96, "num_heads": 8, "vocab_size": 61}
    case = Case("t5-packed", "T5Config", {**SMALL_T5, **sizes, "feed_forward_proj": "gated-gelu"})
    one = Loaded(write(case, tmp_path), tmp_path)
    after = torch.tensor([row[:1] * 6 for row in rows])
    after[:, 1:] = IDS[:, -5:]
    given = {"attention_mask": MASK, "decoder_input_ids": after}

    def cosine(**options):
        native = one.load(backend="native", **options)
        right = one.torch if options.get("dtype") else one.load(backend="torch", **options)
        a, b = (model(IDS, **given).logits.float().double().flatten() for model in (native, right))
        return float((a @ b) / (a.norm() * b.norm()))

    assert cosine(dtype="bfloat16") > 0.995
    assert cosine(dtype="float16") > 0.9999, "activations are float32, so that nothing overflows"
    assert cosine(load_in_8bit=True) > 0.999
    assert cosine(load_in_4bit=True) > 0.995


def test_numpy_computes_the_same_where_the_kernels_are_not_built(gated, monkeypatch):
    monkeypatch.setattr("fabula.models.native.native_library", lambda: None)
    twin = gated.load(backend="native")
    assert twin.sampler is None
    for settings in ({}, {"num_beams": 2}):
        found, right = (
            model.generate(IDS, attention_mask=MASK, max_new_tokens=8, **settings) for model in (twin, gated.native)
        )
        assert torch.equal(found, right)


@torch.no_grad()
def test_what_is_saved_loads_everywhere(written, tmp_path):
    from transformers import AutoModelForSeq2SeqLM as Reference

    model = written.native
    assert isinstance(model, NativeSeq2SeqLM)
    assert model.num_parameters() == written.torch.num_parameters()
    assert (model.is_tied, model.layer_count) == (written.torch.is_tied, written.torch.layer_count)
    assert "NativeSeq2SeqLM" in repr(model)
    model.save_pretrained(tmp_path)
    after = torch.tensor([[0, 3, 4]] * 4)
    right = written.reference(input_ids=IDS, attention_mask=MASK, decoder_input_ids=after).logits
    for again in (
        Reference.from_pretrained(tmp_path),
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path, backend="native"),
    ):
        found = again(input_ids=IDS, attention_mask=MASK, decoder_input_ids=after).logits
        assert relative_error(found, right) < BOUND


ONE = torch.tensor([[1, 2, 3]])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"decoder_input_ids": ONE}, ArgumentError, "`input_ids` must be given"),
        ({"input_ids": ONE}, ArgumentError, "`decoder_input_ids` must be given"),
        (
            {"input_ids": ONE, "decoder_input_ids": ONE + 60},
            ArgumentError,
            r"`decoder_input_ids` must lie in \[0, 61\)",
        ),
        ({"input_ids": ONE - 2, "decoder_input_ids": ONE}, ArgumentError, r"`input_ids` must lie in .* got -1"),
        ({"input_ids": ONE, "decoder_input_ids": ONE.repeat(2, 1)}, ArgumentError, "must have 1 rows, .* got 2"),
        (
            {"input_ids": ONE, "decoder_input_ids": ONE, "labels": ONE},
            NotSupportedError,
            "takes no `labels`: load with",
        ),
        (
            {"input_ids": ONE, "decoder_input_ids": ONE, "output_attentions": True},
            NotSupportedError,
            "output_attentions",
        ),
        (
            {"input_ids": ONE, "decoder_input_id": ONE},
            UnknownArgumentError,
            "no argument `decoder_input_id`. Did you mean `decoder_input_ids`",
        ),
        (
            {"input_ids": ONE, "decoder_attention_mask": [[1, 0, 1]], "decoder_input_ids": ONE},
            NotSupportedError,
            "`decoder_attention_mask` must have its zeros before or behind",
        ),
        (
            {"input_ids": ONE.repeat(2, 1), "attention_mask": [[1] * 3, [0] * 3], "decoder_input_ids": ONE},
            ArgumentError,
            "`attention_mask` must mark at least one token in each row",
        ),
        (
            {"encoder_outputs": (np.ones((1, 2, 3)),), "decoder_input_ids": ONE},
            ArgumentError,
            "`encoder_outputs` must be 24 wide, got 3",
        ),
        ({"encoder_outputs": 3, "decoder_input_ids": ONE}, ArgumentError, "`encoder_outputs` must hold .* got int"),
        ({"past_key_values": ((1,),), "decoder_input_ids": ONE}, ArgumentError, "`past_key_values`.*got tuple"),
    ],
)
def test_what_it_would_ignore_or_trip_over_is_refused_by_name(gated, arguments, error, message):
    with pytest.raises(error, match=message):
        gated.native(**arguments)


def test_what_only_pytorch_does_is_refused_by_name(gated):
    with pytest.raises(NotSupportedError, match="`output_attentions` must be False for a native model"):
        gated.native.generate(ONE, max_new_tokens=2, output_attentions=True, return_dict_in_generate=True)
    with pytest.raises(ArgumentError, match="`inputs_embeds` must be 24 wide, got 1"):
        gated.native.run_encoder(inputs_embeds=[[[1.0]]])
    with pytest.raises(AttributeError, match=r"a native model has no parameters\(\): load with backend='torch'"):
        gated.native.parameters()


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_guidance_is_refused_by_name(gated, backend):
    model = AutoModelForSeq2SeqLM.from_pretrained(gated.folder, backend=backend)
    with pytest.raises(NotSupportedError, match=r"`guidance_scale` is not supported for a model with an encoder.*1\.5"):
        model.generate(ONE, max_new_tokens=2, guidance_scale=1.5)


def test_each_door_takes_its_own_models(gated, tmp_path):
    with pytest.raises(ArgumentError, match="must be loaded by AutoModelForSeq2SeqLM, got AutoModelForCausalLM: a t5"):
        AutoModelForCausalLM.from_pretrained(gated.folder, backend="native")
    with pytest.raises(ArgumentError, match="must be loaded by AutoModelForCausalLM, got AutoModelForSeq2SeqLM"):
        AutoModelForSeq2SeqLM.from_pretrained(write_tiny_model(tmp_path), backend="native")
    with pytest.raises(ArgumentError, match="computes on the CPU only"):
        AutoModelForSeq2SeqLM.from_pretrained(gated.folder, backend="native", device_map="cuda")
