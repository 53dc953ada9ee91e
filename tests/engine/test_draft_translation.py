"""A drafter with another tokenizer speaks through text; where both know the text, its drafts stand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from fabula.decoding.draft_length import DraftLength
from fabula.decoding.strategy import Draftable
from fabula.engine.draft_model import DraftLimits, ModelDrafter
from fabula.engine.draft_translation import TranslatedDrafter
from fabula.testing.hash_model import HashModel
from tests.decoding.loop import run_drafted, run_strategy

TEXT = (
    "Once upon a time there was a tailor who had three sons and only one goat. The goat gave milk to all of them, so "
    "she had to have good food and was led out every day to graze. « Ziege », sagte er, « bist du satt? » 山羊は、"
    "もう満腹だと答えました。 The tailor liked that answer very much and went to bed.\n\n" * 2
)


class Plain:
    """A tokenizer of the tokenizers library behind the two methods that translation needs."""

    def __init__(self, vocabulary: int, text: str = TEXT) -> None:
        self.inner = Tokenizer(models.BPE())
        self.inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.inner.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False
        )
        self.inner.train_from_iterator([text], trainer)

    def encode(self, text, *, add_special_tokens=True):
        return self.inner.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids, skip_special_tokens=False, clean_up_tokenization_spaces=None):
        return self.inner.decode(ids, skip_special_tokens=skip_special_tokens)


class Knowing(HashModel):
    """Goes on with a text that it knows, whatever tokens it got there by; elsewhere, with anything."""

    def __init__(self, tokenizer, size):
        super().__init__(size)
        self.tokenizer = tokenizer

    def next_logits(self, tokens):
        logits = super().next_logits(tokens)
        said = self.tokenizer.decode([int(token) for token in tokens])
        if TEXT.startswith(said) and len(said) < len(TEXT):
            ahead = self.tokenizer.encode(TEXT[len(said) :])
            logits[ahead[0]] += 20
        elif said == TEXT:
            logits[0] += 20
        return logits


@pytest.fixture(scope="module")
def two():
    """A target of large tokens and a drafter of small ones."""
    large, small = Plain(420), Plain(290, TEXT[:100])
    return SimpleNamespace(large=large, small=small, target=Knowing(large, 420), own=Knowing(small, 290))


def drafter_of(two, number=12, **given):
    limits = DraftLimits(DraftLength(number), confidence=None, eos=frozenset({0}), own_vocabulary=290)
    return TranslatedDrafter(ModelDrafter(two.own, limits), two.large, two.small, ends=(frozenset({0}), 0), **given)


@pytest.mark.parametrize("lookbehind", [0, 1, 3, 10])
def test_texts_are_those_without_drafts_and_most_drafts_stand(two, lookbehind):
    prompts = [two.large.encode(TEXT[:20]), two.large.encode(TEXT[:57])]
    expected, _ = run_strategy(two.target, prompts, 60)
    assert TEXT.startswith(two.large.decode(expected[0]))
    drafter = drafter_of(two, target_lookbehind=lookbehind, own_lookbehind=lookbehind)
    rows, passes, stood = run_drafted(two.target, prompts, 60, drafter)
    assert rows == expected
    assert passes + stood == 120 and stood > 40


def test_texts_of_which_the_drafter_knows_nothing_are_the_same_too(two):
    prompts = [[7, 300, 12], two.large.encode("Anything else")]
    for sampled in (False, True):
        expected, _ = run_strategy(two.target, prompts, 20, sampled=sampled, seed=3)
        rows, _, _ = run_drafted(two.target, prompts, 20, drafter_of(two), sampled=sampled, seed=3)
        assert rows == expected


def test_a_draft_ends_as_the_text_does(two):
    tokens = np.array(two.large.encode(TEXT)[:-2], np.int32)
    (draft,) = drafter_of(two, 30).propose([Draftable(0, tokens, 3, 50, 0, 0)])
    assert two.large.decode([*tokens.tolist(), *draft.tolist()[:-1]]) == TEXT
    assert draft[-1] == 0
    (cut,) = drafter_of(two, 30).propose([Draftable(0, tokens, 3, 1, 0, 0)])
    assert cut.tolist() == draft[:1].tolist()


def test_only_the_end_is_encoded_anew(two):
    drafter, lengths = drafter_of(two, 3), []
    encode = two.small.encode

    def counted(text, **options):
        lengths.append(len(text))
        return encode(text, **options)

    drafter.own = SimpleNamespace(encode=counted, decode=two.small.decode)
    ids = two.large.encode(TEXT)
    for end in range(40, 50):
        drafter.propose([Draftable(0, np.array(ids[:end], np.int32), 3, 9, 0, 0)])
    assert lengths[0] > 60 and max(lengths[1:]) < 60
    shown = drafter._rows[0].ids
    assert two.small.decode(shown) == two.large.decode(ids[:49])
    assert shown == two.small.encode(two.large.decode(ids[:49]))


def test_blocks_and_translations_are_given_back(two):
    drafter = drafter_of(two)
    drafter.propose([Draftable(5, np.array(two.large.encode(TEXT[:40]), np.int32), 3, 9, 0, 0)])
    drafter.forget(5)
    assert not drafter._rows
    drafter.drafter._cache.pool.check([])


def test_a_row_of_which_nothing_can_be_said_gets_no_draft(two):
    (draft,) = drafter_of(two).propose([Draftable(0, np.array([0], np.int32), 1, 9, 0, 0)])
    assert draft.tolist() == []
