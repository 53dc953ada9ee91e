"""A processor or criterion of the caller's takes the place of the settings' own of its class, as in transformers."""

import warnings

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import fabula  # noqa: E402

IDS = torch.tensor([[5, 9, 11], [7, 8, 20]])


@pytest.fixture(scope="module")
def pair(folder):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    return fabula.AutoModelForCausalLM.from_pretrained(folder, backend="torch", dtype="float32"), theirs


def both(pair, **call):
    """What ours and theirs answer, each to a call with its own library's classes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            model.generate(IDS, **{name: value(library) if callable(value) else value for name, value in call.items()})
            for model, library in zip(pair, (fabula, transformers), strict=True)
        ]


@pytest.mark.parametrize("length", [5, 40])
def test_a_maximal_length_shortens_and_lengthens(pair, length):
    ours, theirs = both(
        pair,
        stopping_criteria=lambda library: library.StoppingCriteriaList([library.MaxLengthCriteria(length)]),
        eos_token_id=-1,
        pad_token_id=0,
    )
    assert ours.shape == theirs.shape == (2, length)
    assert ours.tolist() == theirs.tolist()


def test_end_tokens_are_the_callers(pair):
    plain = pair[0].generate(IDS, max_new_tokens=12, eos_token_id=None)
    ends, other = int(plain[0, 7]), int(plain[0, 5])
    ours, theirs = both(
        pair,
        stopping_criteria=lambda library: library.StoppingCriteriaList([library.EosTokenCriteria(ends)]),
        max_new_tokens=12,
        eos_token_id=other,
        pad_token_id=0,
    )
    assert ours.tolist() == theirs.tolist()


def test_a_penalty_is_the_callers_and_is_said_once(pair):
    def penalty(library):
        return library.LogitsProcessorList([library.RepetitionPenaltyLogitsProcessor(3.0)])

    ours, theirs = both(pair, logits_processor=penalty, repetition_penalty=1.1, max_new_tokens=10, pad_token_id=0)
    assert ours.tolist() == theirs.tolist()
    assert ours.tolist() == pair[0].generate(IDS, repetition_penalty=3.0, max_new_tokens=10, pad_token_id=0).tolist()
