"""Modules of one's own: every row is what it is alone, whatever the module takes and keeps."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch

import fabula
from tests.adapters.modules import MODULES, VOCABULARY, Attending, BothWays, MixinFirst, Plain, Stateful, made
from tests.padding import padded

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [3]]


@pytest.fixture(params=MODULES, ids=lambda kind: kind.__name__)
def module(request: pytest.FixtureRequest) -> Any:
    return made(request.param)


def greedy_by_hand(module: Any, prompt: list[int], steps: int) -> list[int]:
    """The best token after a whole forward pass, step by step, of one row."""
    tokens = list(prompt)
    for _ in range(steps):
        ids = torch.tensor([tokens])
        arguments = {}
        if isinstance(module, Attending):
            arguments = {"attention_mask": torch.ones_like(ids), "position_ids": torch.arange(len(tokens))[None]}
        with torch.no_grad():
            output = module(ids, **arguments)
        logits = output if isinstance(output, torch.Tensor) else getattr(output, "logits", None)
        tokens.append(int((output[0] if logits is None else logits)[0, -1].argmax()))
    return tokens


def test_ragged_rows_are_those_of_a_loop_by_hand(module: Any):
    assert module.generate(PROMPTS, max_new_tokens=9) == [greedy_by_hand(module, prompt, 9) for prompt in PROMPTS]


def test_sampled_rows_are_the_same_alone_and_together(module: Any):
    settings = {"max_new_tokens": 8, "do_sample": True, "num_return_sequences": 3, "temperature": 1.5}
    together = module.generate(PROMPTS, seed=[4, 5, 6], **settings)
    alone = [
        module.generate([prompt], seed=[seed], **settings) for prompt, seed in zip(PROMPTS, (4, 5, 6), strict=True)
    ]
    assert together == [row for rows in alone for row in rows]
    assert len({tuple(row) for row in together}) > 5


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(module: Any, side: str):
    ids, mask = padded(PROMPTS, side, convert=torch.as_tensor)
    new = module.generate(ids, attention_mask=mask, max_new_tokens=6)[:, ids.shape[1] :]
    assert new.tolist() == [row[len(prompt) :] for row, prompt in zip(_ragged(module), PROMPTS, strict=True)]


def _ragged(module: Any) -> list[list[int]]:
    return module.generate(PROMPTS, max_new_tokens=6)


def test_rows_that_end_early_leave_the_others_as_they_are(module: Any):
    whole = module.generate(PROMPTS, max_new_tokens=12)
    ends = whole[0][len(PROMPTS[0]) + 2]
    cut = module.generate(PROMPTS, max_new_tokens=12, eos_token_id=ends)
    for prompt, row, short in zip(PROMPTS, whole, cut, strict=True):
        new = row[len(prompt) :]
        assert short == row[: len(prompt) + (new.index(ends) + 1 if ends in new else 12)]


def test_two_calls_share_nothing_that_a_changed_weight_would_spoil(module: Any):
    before = module.generate(PROMPTS, max_new_tokens=6)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(-1.5)
    after = module.generate(PROMPTS, max_new_tokens=6)
    assert after != before
    assert after == [greedy_by_hand(module, prompt, 6) for prompt in PROMPTS]


def test_a_layer_that_was_replaced_is_the_one_that_computes():
    module = made(Attending)
    prompt = [list(range(1, 34))]  # one token longer than a block: the next call finds the rest of it
    module.generate(prompt, max_new_tokens=4)
    module.mixers[0] = torch.nn.Linear(32, 96)
    assert module.generate(prompt, max_new_tokens=4) == [greedy_by_hand(module, prompt[0], 4)]


def test_a_setting_or_a_hook_that_was_changed_is_what_computes():
    module = made(Attending)
    prompt = [list(range(1, 34))]
    told = module.generate(prompt, max_new_tokens=4)
    hook = module.mixers[0].register_forward_hook(lambda mixer, given, output: output * -2)
    changed = module.generate(prompt, max_new_tokens=4)
    assert changed == [greedy_by_hand(module, prompt[0], 4)] != told
    hook.remove()
    assert module.generate(prompt, max_new_tokens=4) == told
    module.width_scale = 3.0  # a setting of its own, which nobody reads
    assert module.generate(prompt, max_new_tokens=4) == told


def test_a_copy_and_a_pickle_generate_with_their_own_weights(module: Any):
    told = module.generate(PROMPTS, max_new_tokens=6)
    other = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(-1.5)
    assert other.generate(PROMPTS, max_new_tokens=6) == [greedy_by_hand(other, prompt, 6) for prompt in PROMPTS]
    assert pickle.loads(pickle.dumps(module)).generate(PROMPTS, max_new_tokens=6) == told
    assert module.generate(PROMPTS, max_new_tokens=6) == told


def test_a_module_is_freed_when_nobody_holds_it():
    module = made(Attending)
    module.generate(PROMPTS, max_new_tokens=3)
    gone = weakref.ref(module)
    gc.disable()
    try:
        del module
        assert gone() is None
    finally:
        gc.enable()


def test_the_vocabulary_is_as_large_as_the_logits(module: Any):
    assert module.vocabulary_size == VOCABULARY
    with pytest.raises(fabula.ArgumentError, match=rf"\[0, {VOCABULARY}\)"):
        module.generate([[VOCABULARY]], max_new_tokens=1)


def test_settings_of_the_module_hold_where_a_call_says_nothing(module: Any):
    module.generation_config.max_new_tokens = 4
    module.generation_config.bos_token_id = 3
    assert [len(row) for row in module.generate(PROMPTS)] == [len(prompt) + 4 for prompt in PROMPTS]
    alone = module.generate()
    assert isinstance(alone, torch.Tensor)
    assert alone.tolist() == module.generate([[3]])


def test_what_a_caller_brings_along_sees_the_rows(module: Any):
    seen = []

    def only_seven(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append(input_ids.shape)
        forbidden = torch.full_like(scores, -torch.inf)
        forbidden[:, 7] = 0
        return forbidden

    new = module.generate(torch.tensor([[5, 6]]), logits_processor=[only_seven], max_new_tokens=3)
    assert new.tolist() == [[5, 6, 7, 7, 7]]
    assert seen == [(1, 2), (1, 3), (1, 4)]


def test_a_cache_makes_each_step_compute_one_column():
    for kind in (Attending, Stateful):
        module = made(kind)
        module.generate([[1, 2, 3]], max_new_tokens=2)  # finds out how the module is called
        module.columns.clear()
        module.generate([PROMPTS[0], PROMPTS[0][::-1]], max_new_tokens=5)
        assert module.columns == [(2, 7), (2, 1), (2, 1), (2, 1), (2, 1)]


def test_rows_of_different_lengths_share_a_rectangle_where_that_is_exact():
    module = made(Plain)
    module.generate([[1, 2, 3]], max_new_tokens=1)
    module.columns.clear()
    module.generate(PROMPTS, max_new_tokens=2)
    assert module.columns == [(3, 7), (3, 8)]


def test_sequences_of_one_prompt_do_not_compute_it_again():
    module = made(Attending)
    module.generate([[1, 2, 3]], max_new_tokens=1)
    module.columns.clear()
    module.generate([PROMPTS[0]], max_new_tokens=4, do_sample=True, seed=1, num_return_sequences=4)
    assert module.columns[0] == (1, 7)
    assert all(columns == 1 for _, columns in module.columns[1:])


def test_dropout_is_as_the_module_is_set_but_not_while_its_ways_are_tried():
    torch.manual_seed(0)
    module = torch.nn.Module.train(made(Attending))
    module.generate([[1, 2]], max_new_tokens=1)
    assert module.training
    assert all(part.training for part in module.modules())


def test_a_module_without_the_columns_it_was_asked_for_is_told_so():
    class Short(Plain):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return super().forward(input_ids)[:, 0]

    with pytest.raises(fabula.ArgumentError, match=r"`forward` must return logits of the shape"):
        made(Short).generate([[1, 2]], max_new_tokens=1)


def test_what_returns_no_logits_is_told_so():
    class Silent(Plain):
        def forward(self, input_ids: torch.Tensor) -> Any:
            return {"states": super().forward(input_ids)}

    with pytest.raises(fabula.ArgumentError, match="`forward` must return logits, or an object"):
        made(Silent).generate([[1, 2]], max_new_tokens=1)


def test_an_error_of_the_module_reaches_the_caller_and_the_next_call_is_right():
    class Stumbling(Attending):
        fails = False

        def forward(self, *arguments: Any, **named: Any) -> Any:
            if self.fails:
                raise ZeroDivisionError("the module's own")
            return super().forward(*arguments, **named)

    class Door(Stumbling):
        def forward(self, input_ids, attention_mask, position_ids, past_key_values=None, use_cache=False):  # type: ignore[no-untyped-def]
            return super().forward(input_ids, attention_mask, position_ids, past_key_values, use_cache)

    module = made(Door)
    told = module.generate(PROMPTS, max_new_tokens=5)
    module.fails = True
    with pytest.raises(ZeroDivisionError):
        module.generate(PROMPTS, max_new_tokens=5)
    module.fails = False
    assert module.generate(PROMPTS, max_new_tokens=5) == told


def test_the_order_of_parents_does_not_matter():
    first, second = made(MixinFirst), made(Plain)
    second.load_state_dict(first.inner.state_dict())
    assert first.generate(PROMPTS, max_new_tokens=5) == second.generate(PROMPTS, max_new_tokens=5)


def test_a_module_that_looks_ahead_is_not_padded():
    module = made(BothWays)
    module.generate(PROMPTS, max_new_tokens=2)
    assert module.generate(PROMPTS, max_new_tokens=7)[1] == greedy_by_hand(module, PROMPTS[1], 7)


def test_recorded_logits_are_those_of_the_module(module: Any):
    output = module.generate(
        torch.tensor([PROMPTS[0]]), max_new_tokens=3, return_dict_in_generate=True, output_logits=True
    )
    tokens = output.sequences[0].tolist()
    for step, logits in enumerate(output.logits):
        assert int(logits[0].argmax()) == greedy_by_hand(module, tokens[: 7 + step], 1)[-1]
