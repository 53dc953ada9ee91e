"""T5's vectors and logits are those of transformers, however they are computed."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fabula.models.encoders.torch import TorchSeq2SeqLM  # noqa: E402
from fabula.ops.protocol import Taps  # noqa: E402
from tests.models.configurations import read_parts  # noqa: E402
from tests.models.encoders.cases import CASES, random_case, write  # noqa: E402
from tests.models.steps import CHUNKS, make_batch, relative_error, shuffled_tables, stepped_logits  # noqa: E402
from tests.padding import padded  # noqa: E402

BOUND = 1e-5
TEXTS = (40, 1, 17, 70)  # tokens for the encoder
LENGTHS = (45, 1, 17, 70)  # and for the decoder
rectangle = partial(padded, convert=torch.as_tensor)


@pytest.fixture(scope="module", params=CASES, ids=str)
def written(request, writing):
    return writing(request.param.name)


@pytest.fixture(scope="module")
def model(written):
    return TorchSeq2SeqLM.from_tensors(*read_parts(written.directory))


@pytest.fixture(scope="module")
def texts():
    random = np.random.default_rng(5)
    return [random.integers(1, 61, length).tolist() for length in TEXTS]


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(3)
    return [[0, *random.integers(1, 61, length - 1).tolist()] for length in LENGTHS]


@pytest.fixture(scope="module")
@torch.no_grad()
def expected(written, texts, rows):
    """For each row what transformers computes for it alone."""
    pairs = zip(texts, rows, strict=True)
    return [
        written.reference(input_ids=torch.tensor([text]), decoder_input_ids=torch.tensor([row])) for text, row in pairs
    ]


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_encoder_sees_a_padded_row_as_it_sees_it_alone(model, texts, expected, side):
    ids, mask = rectangle(texts, side)
    with torch.no_grad():
        found = model.run_encoder(ids, mask).last_hidden_state
    for row, reference in enumerate(expected):
        assert relative_error(found[row][mask[row].bool()], reference.encoder_last_hidden_state[0]) < BOUND
    assert not found[~mask.bool()].any()


@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
def test_steps_give_the_reference_logits_in_any_chunks(model, texts, rows, expected, chunk):
    memories = model.encode(*rectangle(texts, "left"))
    found = stepped_logits(model, rows, chunk, memories=memories)
    for ours, reference in zip(found, expected, strict=True):
        assert relative_error(ours, reference.logits[0]) < BOUND


def test_rows_share_a_memory_and_meet_those_of_other_calls(model, texts, rows, expected, written):
    together = model.encode(*rectangle(texts, "right"))
    apart = model.encode([texts[3]])[0]
    follow = [rows[0], rows[0][:9], rows[3], rows[2], rows[0][:20], rows[3][:5]]
    memories = [together[0], together[0], apart, together[2], together[0], together[3]]
    found = stepped_logits(model, follow, lambda missing: min(missing, 11), seed=4, memories=memories)
    for ours, row in zip(found, (0, 0, 3, 2, 0, 3), strict=True):
        assert relative_error(ours, expected[row].logits[0][: len(ours)]) < BOUND


def test_the_last_rows_of_a_call_still_find_their_own_memory(model, texts, rows, expected):
    many = [*texts, *([[5, 6]] * 9)]
    memories = model.encode(*rectangle(many, "left"))
    found = stepped_logits(model, [rows[2]], lambda missing: 5, memories=[memories[2]])
    assert relative_error(found[0], expected[2].logits[0]) < BOUND


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_call_gives_what_transformers_gives(model, texts, rows, expected, side):
    ids, mask = rectangle(texts, side)
    after, after_mask = rectangle(rows, "right")
    with torch.no_grad():
        logits = model(ids, attention_mask=mask, decoder_input_ids=after, decoder_attention_mask=after_mask).logits
    for row, reference in enumerate(expected):
        assert relative_error(logits[row][after_mask[row].bool()], reference.logits[0]) < BOUND
    assert not logits[~after_mask.bool()].any()


def test_a_decoder_padded_on_the_left_gives_what_it_gives_alone(model, texts, rows, expected):
    after, after_mask = rectangle(rows, "left")
    with torch.no_grad():
        inputs = {"decoder_input_ids": after, "decoder_attention_mask": after_mask}
        logits = model(*rectangle(texts, "left"), **inputs).logits
    for row, reference in enumerate(expected):
        assert relative_error(logits[row][after_mask[row].bool()], reference.logits[0]) < BOUND


def test_tapped_steps_show_what_each_row_looked_at(model, texts, rows, written):
    everything = tuple(range(len(model.layers)))
    memories = model.encode(*rectangle(texts, "right"))
    tables, blocks = shuffled_tables(rows, np.random.default_rng(1))
    batch = make_batch(rows, [3, 0, 2], [0] * 4, [70, 45, 17], tables)
    batch = replace(batch, memories=[memories[i] for i in (3, 0, 2)])
    forward = model.step(batch, model.new_cache(blocks), Taps(everything, everything, final_hidden=True))
    for place, row in enumerate((3, 0, 2)):
        inputs = {"input_ids": torch.tensor([texts[row]]), "decoder_input_ids": torch.tensor([rows[row]])}
        with torch.no_grad():
            reference = written.reference(**inputs, output_hidden_states=True, output_attentions=True)
        span = slice(*batch.starts[place : place + 2])
        assert relative_error(forward.hidden[span], reference.decoder_hidden_states[-1][0]) < BOUND
        for layer in everything:
            assert relative_error(forward.hidden_states[layer][span], reference.decoder_hidden_states[layer][0]) < BOUND
            assert relative_error(forward.attentions[layer][place], reference.decoder_attentions[layer][0]) < BOUND
            across, expected = forward.memory_attentions[layer][place], reference.cross_attentions[layer][0]
            assert relative_error(across[..., : len(texts[row])], expected) < BOUND
            assert not across[..., len(texts[row]) :].any()


def test_zeros_of_the_encoders_mask_may_stand_anywhere(model, written):
    ids = torch.from_numpy(np.random.default_rng(1).integers(1, 61, (3, 30)))
    mask = torch.from_numpy(np.random.default_rng(2).integers(0, 2, (3, 30)))
    mask[2] = 1
    after = ids[:, :7]
    with torch.no_grad():
        ours = model(ids, attention_mask=mask, decoder_input_ids=after)
        theirs = written.reference(ids, attention_mask=mask, decoder_input_ids=after)
        found = model(encoder_outputs=(theirs[-1],), attention_mask=mask, decoder_input_ids=after)
    kept = mask.bool()
    assert relative_error(ours.encoder_last_hidden_state[kept], theirs.encoder_last_hidden_state[kept]) < BOUND
    assert relative_error(ours.logits, theirs.logits) < BOUND
    assert relative_error(found.logits, theirs.logits) < BOUND


def test_gradients_are_those_of_transformers(model, written, texts):
    ids, mask = rectangle(texts, "left")
    labels = torch.randint(1, 61, (4, 9), generator=torch.Generator().manual_seed(1))
    labels[1, 4:] = -100
    names = dict(model.named_parameters())
    for each in (model, written.reference):
        each.zero_grad()
        output = each(input_ids=ids, attention_mask=mask, labels=labels)
        output.loss.backward()
    reference = dict(written.reference.named_parameters())
    assert set(names) == set(reference)
    for name, parameter in names.items():
        assert relative_error(parameter.grad, reference[name].grad) < 1e-4, name
    model.zero_grad()


def test_everything_that_can_be_shown_is_that_of_transformers(model, written, texts, rows):
    ids, mask = rectangle(texts, "left")
    shown = {"output_hidden_states": True, "output_attentions": True}
    after = torch.tensor([row[:1] * 6 for row in rows])
    after[:, 1:] = ids[:, -5:]
    with torch.no_grad():
        ours = model(ids, attention_mask=mask, decoder_input_ids=after, labels=after, **shown)
        theirs = written.reference(ids, attention_mask=mask, decoder_input_ids=after, labels=after, **shown)
    assert set(ours.keys()) == set(theirs.keys())
    assert relative_error(ours.loss, theirs.loss) < BOUND
    kept = mask.bool()
    for name in ("decoder_hidden_states", "decoder_attentions"):
        assert len(ours[name]) == len(theirs[name])
        for one, other in zip(ours[name], theirs[name], strict=True):
            assert relative_error(one, other) < BOUND
    for one, other in zip(ours.encoder_hidden_states, theirs.encoder_hidden_states, strict=True):
        assert relative_error(one[kept], other[kept]) < BOUND
    for one, other in zip(ours.encoder_attentions, theirs.encoder_attentions, strict=True):
        for row in range(len(texts)):
            assert relative_error(one[row][:, kept[row]], other[row][:, kept[row]]) < BOUND
    for one, other in zip(ours.cross_attentions, theirs.cross_attentions, strict=True):
        assert one.shape == other.shape
        assert relative_error(one, other) < BOUND


def test_the_state_dict_is_that_of_transformers(model, written):
    ours, reference = model.state_dict(), written.reference.state_dict()
    assert set(ours) == set(reference)
    assert all(torch.equal(ours[name], reference[name]) for name in ours)
    assert model.num_parameters() == written.reference.num_parameters()
    assert model.num_parameters(exclude_embeddings=True) < model.num_parameters()


def test_scored_positions_alone_give_the_same_logits(model, texts, rows, expected):
    tables, blocks = shuffled_tables(rows, np.random.default_rng(1))
    batch = make_batch(rows, [0, 1, 2, 3], [0] * 4, list(LENGTHS), tables)
    batch = replace(batch, scored=batch.starts[1:] - 1, memories=model.encode(*rectangle(texts, "left")))
    logits = model.step(batch, model.new_cache(blocks)).logits
    assert logits.dtype == torch.float32
    assert relative_error(logits, torch.cat([each.logits[0, -1:] for each in expected])) < BOUND


def test_sixteen_bits_are_as_near_to_float32_as_those_of_transformers(written, texts, rows, expected):
    from transformers import AutoModelForSeq2SeqLM

    family, tensors = read_parts(written.directory)
    model = TorchSeq2SeqLM.from_tensors(family, tensors, dtype="bfloat16")
    reference = AutoModelForSeq2SeqLM.from_pretrained(written.directory, dtype="bfloat16")
    inputs = {"input_ids": torch.tensor([texts[0]]), "decoder_input_ids": torch.tensor([rows[0]])}
    with torch.no_grad():
        ours, theirs = model(**inputs).logits, reference(**inputs).logits
    assert ours.dtype == torch.bfloat16
    error, allowed = ((each.float() - expected[0].logits).square().mean().sqrt() for each in (ours, theirs))
    assert error < 1.5 * allowed


@pytest.mark.parametrize("seed", range(8))
def test_configurations_that_nobody_would_choose(seed, tmp_path):
    pytest.importorskip("transformers")
    case, random = random_case(seed), np.random.default_rng(seed)
    reference = write(case, tmp_path)
    model = TorchSeq2SeqLM.from_tensors(*read_parts(tmp_path))
    vocabulary = case.values["vocab_size"]
    texts = [random.integers(0, vocabulary, random.integers(1, 60)).tolist() for _ in range(3)]
    rows = [random.integers(0, vocabulary, random.integers(1, 60)).tolist() for _ in range(3)]
    memories = model.encode(*rectangle(texts, ("left", "right")[seed % 2]))
    found = stepped_logits(model, rows, lambda missing: int(random.integers(1, 40)), seed, memories)
    exact = copy.deepcopy(reference).double()  # unscaled scores can be so large that float32 alone decides a digit
    for text, row, ours in zip(texts, rows, found, strict=True):
        inputs = {"input_ids": torch.tensor([text]), "decoder_input_ids": torch.tensor([row])}
        with torch.no_grad():
            theirs, expected = reference(**inputs).logits[0], exact(**inputs).logits[0]
        assert relative_error(ours, expected) < BOUND + 5 * relative_error(theirs, expected)
