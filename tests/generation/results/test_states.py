"""Hidden states and attention weights of generate() are those of transformers, in its shapes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import fabula  # noqa: E402


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=1,
        eos_token_id=2,
        attn_implementation="eager",
    )
    theirs = transformers.LlamaForCausalLM(config).eval()
    folder = tmp_path_factory.mktemp("llama")
    theirs.save_pretrained(folder)
    return fabula.AutoModelForCausalLM.from_pretrained(folder, backend="torch", dtype="float32"), theirs


IDS = torch.tensor([[0, 0, 5, 9, 11], [7, 8, 20, 21, 22]])
MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
WANTED = {
    "return_dict_in_generate": True,
    "output_hidden_states": True,
    "output_attentions": True,
    "output_scores": True,
    "output_logits": True,
    "max_new_tokens": 6,
    "pad_token_id": 0,
}


def assert_alike(ours, theirs, mask, rows):
    """The same steps and layers, equal where the prompt is no padding."""
    assert len(ours) == len(theirs)
    for step, (our_layers, their_layers) in enumerate(zip(ours, theirs, strict=True)):
        assert len(our_layers) == len(their_layers)
        for our, their in zip(our_layers, their_layers, strict=True):
            assert our.shape == their.shape
            for row in range(rows):
                columns = mask[row].bool() if step == 0 else slice(None)
                a, b = (x[row][..., columns, :] if x.dim() == 4 else x[row][columns] for x in (our, their))
                np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize(
    "call",
    [
        {},
        {"num_beams": 3, "num_return_sequences": 2, "eos_token_id": None},
        {"num_return_sequences": 2, "do_sample": True, "seed": 3, "eos_token_id": None},
    ],
    ids=["greedy", "beams", "sampled"],
)
def test_states_and_attentions_have_transformers_shapes_and_values(models, call):
    ours, theirs = models
    call = {**WANTED, **call}
    found = ours.generate(IDS, attention_mask=MASK, **call)
    if call.get("do_sample"):  # draws are our own: what was drawn is read back in one pass
        output = theirs(
            found.sequences,
            attention_mask=torch.cat([MASK.repeat_interleave(2, 0), torch.ones(4, 6)], 1).long(),
            output_hidden_states=True,
        )
        assert found.hidden_states[0][1].shape == (4, 5, 32)
        for layer, states in enumerate(output.hidden_states):
            for row in range(4):
                kept = torch.cat(
                    [
                        found.hidden_states[0][layer][row][MASK[row // 2].bool()],
                        *(step[layer][row] for step in found.hidden_states[1:]),
                    ]
                )
                np.testing.assert_allclose(
                    kept, states[row, :-1].detach()[torch.cat([MASK[row // 2], torch.ones(5)]).bool()], atol=2e-5
                )
        return
    expected = theirs.generate(IDS, attention_mask=MASK, **call)
    assert found.sequences.tolist() == expected.sequences.tolist()
    beams = call.get("num_beams", 1)
    mask = MASK.repeat_interleave(beams, 0)
    assert_alike(found.hidden_states, expected.hidden_states, mask, 2 * beams)
    assert_alike(found.attentions, expected.attentions, mask, 2 * beams)
    for name in ("scores", "logits"):
        for a, b in zip(found[name], expected[name], strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)
    if beams > 1:
        assert found.beam_indices.tolist() == expected.beam_indices.tolist()
        assert found.beam_indices.dtype == expected.beam_indices.dtype
        np.testing.assert_allclose(found.sequences_scores, expected.sequences_scores, atol=1e-5)
        assert type(found).__name__ == type(expected).__name__


def test_the_native_backend_gives_the_same_states_and_no_attentions(models, tmp_path):
    ours, _ = models
    ours.save_pretrained(tmp_path)
    native = fabula.AutoModelForCausalLM.from_pretrained(tmp_path, backend="native")
    call = {"attention_mask": MASK, **WANTED, "output_attentions": False}
    expected, found = ours.generate(IDS, **call), native.generate(IDS, **call)
    assert found.attentions is None and (found.sequences == expected.sequences).all()
    assert_alike(found.hidden_states, expected.hidden_states, MASK, 2)
    with pytest.raises(fabula.NotSupportedError, match="attention weights are not kept by the native backend"):
        native.generate(IDS, **WANTED)


def test_a_row_that_ends_with_its_first_token_repeats_its_prompts_last_state(models):
    ours, _ = models
    first = ours.generate(IDS[1:], max_new_tokens=1)[0, -1].item()
    found = ours.generate(IDS, attention_mask=MASK, eos_token_id=first, **WANTED)
    assert found.sequences.shape[1] > 6 and not found.sequences[1, 6:].any()
    begun = found.hidden_states[0][1][1, -1]
    assert all(torch.equal(step[1][1, -1], begun) for step in found.hidden_states[1:])
    assert all(torch.isfinite(layer).all() for step in found.attentions for layer in step)


@pytest.mark.parametrize("drafts", [{"prompt_lookup_num_tokens": 3}, {"assistant_early_exit": 1}])
def test_what_is_drafted_for_a_prompt_of_one_token_is_no_part_of_its_states(models, drafts):
    call = {**WANTED, "do_sample": False, "eos_token_id": None, "assistant_confidence_threshold": 0.0}
    right, found = (models[0].generate(IDS[:, -1:], **call, **more) for more in ({}, drafts))
    assert found.sequences.tolist() == right.sequences.tolist()
    mask = torch.ones(2, 1)
    assert_alike(found.hidden_states, right.hidden_states, mask, 2)
    assert_alike(found.attentions, right.attentions, mask, 2)
