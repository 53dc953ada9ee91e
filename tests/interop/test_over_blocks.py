"""Models of transformers over blocks: which go, that rows share them, and that the models are left as they were."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import transformers

import fabula
from fabula import interop
from fabula.cache.torch import TorchCache
from tests.interop.tiny_models import tiny_model

PROMPTS = [[5, 6, 7, 8, 9, 11, 12, 13], [14, 15, 16]]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def small(**settings: Any) -> Any:
    torch.manual_seed(0)
    shape = {"vocab_size": 101, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": None, "pad_token_id": 0}
    return transformers.MistralForCausalLM(transformers.MistralConfig(**{**shape, **settings})).eval()


def alone(model: Any, prompts: list[list[int]], new: int) -> list[list[int]]:
    rows = [model.generate(torch.tensor([one]), max_new_tokens=new, do_sample=False) for one in prompts]
    return [row[0].tolist() for row in rows]


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "qwen3", "gpt2", "mixtral", "olmo2", "phi"])
def test_layers_that_attend_through_the_interface_go_over_blocks(kind: str):
    model = tiny_model(kind)
    wrapped = interop.wrap(model)
    assert wrapped.over_blocks is not None
    rows = wrapped.generate(PROMPTS, max_new_tokens=40)  # beyond a block
    assert isinstance(wrapped.engine.storage, TorchCache)
    want = [model.generate(torch.tensor([one]), max_new_tokens=40, do_sample=False)[0].tolist() for one in PROMPTS]
    assert rows == want


@pytest.mark.parametrize("kind", ["bloom", "mamba", "t5", "deepseek_v2", "gpt_oss", "mpt"])
def test_other_models_do_not(kind: str):
    mapping = {"t5": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"}
    model = tiny_model(kind, mapping[kind]) if kind in mapping else tiny_model(kind)
    assert interop.wrap(model).over_blocks is None


def test_a_window_is_the_models_own():
    model = small(sliding_window=8)
    wrapped = interop.wrap(model)
    assert wrapped.over_blocks is not None
    assert wrapped.over_blocks.windows == (8,)
    prompts = [[3 + place % 90 for place in range(50)], [7, 8, 9]]
    assert wrapped.generate(prompts, max_new_tokens=12) == alone(model, prompts, 12)


def test_a_window_that_layers_do_not_tell_is_not_guessed():
    model = small(sliding_window=8)
    for layer in model.model.layers:
        layer.self_attn.sliding_window = None
        layer.self_attn.config = model.config.__class__(**{**model.config.to_dict(), "sliding_window": None})
        layer.self_attn.config._attn_implementation = "sdpa"
    assert interop.wrap(model).over_blocks is None


@pytest.mark.parametrize(
    "rope", [{"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}], ids=lambda rope: rope["rope_type"]
)
def test_angles_that_depend_on_the_longest_row_keep_rows_apart(rope: dict[str, Any]):
    assert interop.wrap(small(rope_parameters=rope)).over_blocks is None


def test_eager_attention_keeps_its_own_cache():
    model = small()
    model.set_attn_implementation("eager")
    wrapped = interop.wrap(model)
    assert wrapped.over_blocks is None
    assert wrapped.generate(PROMPTS, max_new_tokens=5) == alone(model, PROMPTS, 5)


def test_the_configuration_names_its_own_attention_afterwards_even_after_an_error():
    model = small()
    wrapped = interop.wrap(model)
    wrapped.generate(PROMPTS, max_new_tokens=3)
    assert model.config._attn_implementation == "sdpa"
    hook = model.model.layers[1].register_forward_hook(_raise)
    with pytest.raises(RuntimeError, match="in the middle"):
        wrapped.generate(PROMPTS, max_new_tokens=3)
    hook.remove()
    assert model.config._attn_implementation == "sdpa"
    assert wrapped.generate(PROMPTS, max_new_tokens=3) == alone(model, PROMPTS, 3)


def _raise(*given: Any) -> None:
    raise RuntimeError("in the middle")


def test_a_call_of_the_model_while_a_step_is_under_way_is_its_own():
    model = small()
    wrapped = interop.wrap(model)
    wrapped.generate(PROMPTS, max_new_tokens=1)
    ids, mask = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    right = model(ids, attention_mask=mask).logits
    seen: list[torch.Tensor] = []

    def beside(*given: Any) -> None:
        if not seen and threading.current_thread() is threading.main_thread():
            thread = threading.Thread(target=lambda: seen.append(model(ids, attention_mask=mask).logits))
            thread.start()
            thread.join()

    hook = model.model.layers[0].register_forward_hook(beside)
    rows = wrapped.generate(PROMPTS, max_new_tokens=4)
    hook.remove()
    assert rows == alone(model, PROMPTS, 4)
    torch.testing.assert_close(seen[0][:, 2:], right[:, 2:])


def test_what_adapters_change_is_seen_by_the_next_call():
    model = small()
    wrapped = interop.wrap(model)
    prompt = [[3 + place % 90 for place in range(70)]]
    before = wrapped.generate(prompt, max_new_tokens=6)
    hook = model.model.layers[0].register_forward_hook(lambda module, inputs, output: output * -2)
    changed = wrapped.generate(prompt, max_new_tokens=6)
    assert changed == alone(model, prompt, 6)
    assert changed != before
    hook.remove()
    assert wrapped.generate(prompt, max_new_tokens=6) == before


def test_a_past_goes_on_where_it_ended():
    wrapped = interop.wrap(small())
    first = wrapped.generate(PROMPTS[:1], max_new_tokens=6, return_dict_in_generate=True)
    longer = wrapped.generate(first.sequences, past_key_values=first.past_key_values, max_new_tokens=5)
    assert longer == wrapped.generate(PROMPTS[:1], max_new_tokens=11)


def test_hidden_states_and_early_layers_are_the_models():
    model = small()
    wrapped = interop.wrap(model)
    asked = {"max_new_tokens": 3, "return_dict_in_generate": True, "output_hidden_states": True}
    mine = wrapped.generate(torch.tensor(PROMPTS[:1]), **asked).hidden_states
    right = model.generate(torch.tensor(PROMPTS[:1]), do_sample=False, **asked).hidden_states
    for own, other in zip(mine, right, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)
    assert wrapped.generate(PROMPTS, max_new_tokens=3, dola_layers="low")


def test_vectors_are_refused():
    with pytest.raises(fabula.NotSupportedError, match="`inputs_embeds` must be left out"):
        interop.wrap(small()).generate(inputs_embeds=torch.zeros(1, 3, 32), max_new_tokens=2)


def test_keys_and_values_may_be_stored_in_fewer_bits():
    wrapped = interop.wrap(small(hidden_size=128))
    settings = {"cache_implementation": "quantized", "cache_config": {"nbits": 8, "q_group_size": 32}}
    assert wrapped.generate(PROMPTS, max_new_tokens=4, **settings) == wrapped.generate(PROMPTS, max_new_tokens=4)
    assert len(wrapped._engine.engines) == 2


def test_a_model_that_was_moved_gets_storage_of_its_new_type():
    model = small()
    wrapped = interop.wrap(model)
    wrapped.generate(PROMPTS, max_new_tokens=2)
    model.to(torch.float64)
    assert wrapped.generate(PROMPTS, max_new_tokens=5) == alone(model, PROMPTS, 5)
    assert wrapped.engine.storage.dtype == torch.float64
