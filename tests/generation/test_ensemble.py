"""`assistant_ensemble_weight` through generate(): greedy texts are transformers', draws follow the mixture."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fabula import AutoModelForCausalLM  # noqa: E402
from fabula.errors import ArgumentError, NotSupportedError  # noqa: E402
from tests.models.configurations import Case, write  # noqa: E402

SIZES = {
    "vocab_size": 23,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}
PROMPTS = [[3, 5, 7, 11], [2, 2, 9], [20, 1, 13, 4, 4, 8, 6]]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A target and an assistant: of transformers, and ours in both backends."""
    folder = tmp_path_factory.mktemp("models")
    theirs, ours = [], {"native": [], "torch": []}
    for name in ("target", "assistant"):
        theirs.append(write(Case(name, "LlamaConfig", SIZES), folder / name))
        for backend, found in ours.items():
            found.append(AutoModelForCausalLM.from_pretrained(folder / name, backend=backend))
    return theirs, ours


def drafting(assistant, drafts):
    return {
        "assistant_model": assistant,
        "num_assistant_tokens": drafts,
        "num_assistant_tokens_schedule": "constant",
        "assistant_confidence_threshold": 0.0,
    }


@torch.no_grad()
def by_hand(target, assistant, prompt, weight, drafts, new):
    """The greedy text, every distribution computed from its whole text."""
    row, end = list(prompt), len(prompt) + new

    def after(model, tokens):
        return torch.softmax(model(torch.tensor([tokens])).logits[0, -1], -1)

    while len(row) < end:
        for _ in range(min(drafts, end - len(row) - 1)):
            guess = after(assistant, row)
            row.append(int((weight * after(target, row) + (1 - weight) * guess).argmax()))
            if row[-1] != int(guess.argmax()):
                break
        else:
            row.append(int(after(target, row).argmax()))
    return row


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize(("weight", "drafts"), [(0.2, 3), (0.5, 1), (0.9, 4)])
def test_greedy_texts_are_the_mixtures_best(models, backend, weight, drafts):
    theirs, (target, assistant) = models[0], models[1][backend]
    call = {"max_new_tokens": 24, "do_sample": False, "assistant_ensemble_weight": weight}
    found = target.generate(PROMPTS, **drafting(assistant, drafts), **call)
    assert found == [by_hand(*theirs, prompt, weight, drafts, 24) for prompt in PROMPTS]


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize(("weight", "drafts"), [(0.2, 3), (0.5, 1), (0.5, 5)])
def test_greedy_texts_are_those_of_transformers(models, backend, weight, drafts):
    """Where its assistant's cache is right: after drafts that fell some of it is of other tokens."""
    (target, assistant), ours = models
    call = {"max_new_tokens": 24, "do_sample": False, "assistant_ensemble_weight": weight}
    found = ours[backend][0].generate(PROMPTS, **drafting(ours[backend][1], drafts), **call)
    differs = False
    for prompt, row in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([prompt])
        set_drafting(assistant, drafts)
        assert row == target.generate(ids, assistant_model=assistant, **call)[0].tolist()
        differs |= row != target.generate(ids, max_new_tokens=24, do_sample=False)[0].tolist()
    assert differs or weight > 0.5, "the assistant has its say"


def set_drafting(assistant, drafts):
    """transformers reads these from the assistant's own config."""
    for name, value in drafting(None, drafts).items():
        if name != "assistant_model":
            setattr(assistant.generation_config, name, value)


def test_draws_follow_the_mixture_at_drafts_and_the_model_behind_them(models):
    """One draft of two new tokens: the first comes from the mixture, the second from the target alone."""
    (target, assistant), ours = models
    weight, prompt, heat, draws = 0.4, PROMPTS[0], 0.5, 1500
    with torch.no_grad():
        p, q = (torch.softmax(each(torch.tensor([prompt])).logits[0, -1] / heat, -1) for each in (target, assistant))
        longer = torch.tensor([[*prompt, token] for token in range(23)])
        after = torch.softmax(target(longer).logits[:, -1] / heat, -1)
    expected = ((weight * p + (1 - weight) * q)[:, None] * after).double().numpy().reshape(-1)
    call = {"max_new_tokens": 2, "do_sample": True, "temperature": heat, "top_k": 0, "num_return_sequences": draws}
    rows = ours["native"][0].generate(
        [prompt], seed=3, assistant_ensemble_weight=weight, **drafting(ours["native"][1], 1), **call
    )
    found = np.zeros(23 * 23)
    for row in rows:
        found[23 * row[-2] + row[-1]] += 1
    large = expected * draws >= 5
    counts, means = np.append(found[large], found[~large].sum()), np.append(expected[large], expected[~large].sum())
    statistic = ((counts - draws * means) ** 2 / (draws * means)).sum()
    degrees = len(counts) - 1
    assert statistic < degrees + 4 * (2 * degrees) ** 0.5


def test_seeded_texts_are_the_same_in_any_batch(models):
    _, ours = models
    target, assistant = ours["native"]
    call = {"max_new_tokens": 12, "do_sample": True, "assistant_ensemble_weight": 0.4, **drafting(assistant, 3)}
    together = target.generate(PROMPTS, seed=[4, 5, 6], **call)
    alone = [target.generate([prompt], seed=[seed], **call)[0] for prompt, seed in zip(PROMPTS, (4, 5, 6), strict=True)]
    assert together == alone


def test_a_model_may_have_its_say_with_its_own_first_layers(models):
    _, ours = models
    call = {"max_new_tokens": 24, "assistant_early_exit": 1, "assistant_confidence_threshold": 0.0}
    texts = [
        ours["torch"][0].generate(PROMPTS, **call, **weight)
        for weight in ({}, {"assistant_ensemble_weight": 0.999999}, {"assistant_ensemble_weight": 0.1})
    ]
    assert texts[0] == texts[1] != texts[2]


def test_scores_are_the_models_own(models):
    _, ours = models
    call = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True, "max_new_tokens": 9}
    out = ours["torch"][0].generate(
        torch.tensor(PROMPTS[:1]), assistant_ensemble_weight=0.3, **drafting(ours["torch"][1], 3), **call
    )
    assert all(torch.equal(one, other) for one, other in itertools.chain(zip(out.scores, out.logits, strict=True)))


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        ({"prompt_lookup_num_tokens": 3, "assistant_ensemble_weight": 0.5}, ArgumentError, "prompt_lookup_num_tokens"),
        ({"assistant_ensemble_weight": 1.5}, ArgumentError, "assistant_ensemble_weight"),
        ({"use_mtp": True}, NotSupportedError, "`use_mtp=True` is not supported: no family here has heads"),
    ],
)
def test_what_makes_no_sense_is_refused(models, call, error, name):
    with pytest.raises(error, match=name):
        models[1]["native"][0].generate(PROMPTS, max_new_tokens=2, **call)


def test_block_drafts_are_refused_for_want_of_heads(models):
    target, assistant = models[1]["native"]
    with pytest.raises(NotSupportedError, match="`speculation_type` is not supported: no family here has heads"):
        target.generate(PROMPTS, assistant_model=assistant, speculation_type="dflash", max_new_tokens=2)
