"""Prompts are healed as by transformers' heal_tokens, but inside one generation."""

from __future__ import annotations

import numpy as np
import pytest

from fabula import AutoTokenizer
from fabula import processors as p
from fabula.context import Context
from fabula.errors import ArgumentError
from fabula.generation.prompts.healing import Healer, heal
from fabula.processors.rows import stack

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

INFINITY = float("inf")
TEXT = (
    'The link is <a href="http://www.example.com">here</a>, and https://example.org too. The linking of links links '
    "what was linked; the author authors authorities, an authentic authentication. I have read a book about the books."
)
PROMPTS = [
    'The link is <a href="http:',
    'The link is <a href="https',
    "I read a book about the author",
    "The linked",
    "  what was link  ",
    "https:/",
    "link",
    "(auth",
    "the=book",
]


class Words:
    """A tokenizer whose tokens are the longest pieces of a list; 0 is a beginning, 1 an end."""

    def __init__(self, pieces):
        self.pieces = ["<s>", "</s>", *pieces]
        self.all_special_ids = [0, 1]
        self.unknown = 2

    def get_vocab(self):
        return {piece: token for token, piece in enumerate(self.pieces)}

    def decode(self, ids, skip_special_tokens=False):
        return "".join(self.pieces[i] for i in ids if not (skip_special_tokens and i in self.all_special_ids))

    def encode(self, text, add_special_tokens=True):
        ids = []
        while text:
            piece = max((piece for piece in self.pieces if text.startswith(piece)), key=len)
            ids.append(self.pieces.index(piece))
            text = text[len(piece) :]
        return ids


WORDS = Words(["a", "h", "t", "p", ":", "/", "://", ":/", " ", "http", "https", "s", "ab", "abc"])


def choose(healed, logits):
    """The tokens of a row after its first new one was chosen from logits [V]."""
    if not healed.processors:
        return healed.prompt.tolist()
    lengths = np.array([len(healed.prompt)], np.int32)
    context = Context(healed.prompt[None], lengths, lengths)
    scores = p.LogitsProcessorList(healed.processors).process(logits[None], context)
    return [*healed.prompt.tolist(), int(scores.argmax())]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One small tokenizer of byte-level pieces, as ours and as that of transformers."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<pad>", "<s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator([TEXT] * 3, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>")
    theirs.padding_side = "left"
    theirs.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder), theirs


def small_model(vocabulary, seed):
    """A model of transformers with steep random logits, so that an extension does not always win."""
    torch.manual_seed(seed)
    sizes = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=vocabulary, **sizes)).eval()
    model.lm_head.weight.data *= 60
    return model


def healed_by_transformers(model, tokenizer, ids):
    """The row without the tokens that stand for nothing."""
    row = model.heal_tokens(torch.tensor([ids]), tokenizer)[0].tolist()
    return [token for token in row if token not in (tokenizer.pad_token_id, tokenizer.bos_token_id)]


@pytest.fixture(autouse=True)
def one_trie(monkeypatch):
    """transformers builds its tree of all tokens for every call: once is enough here."""
    utils, built = transformers.generation.utils, {}
    trie = utils.ExtensionsTrie
    monkeypatch.setattr(utils, "ExtensionsTrie", lambda vocabulary: built.setdefault(0, None) or build(vocabulary))

    def build(vocabulary):
        built[0] = trie(vocabulary)
        return built[0]


def assert_heals_alike(model, mine, theirs, prompts):
    healer, chosen_anew = Healer(mine), 0
    for prompt in prompts:
        ids = mine.encode(prompt, add_special_tokens=False)
        expected = healed_by_transformers(model, theirs, ids)
        healed = healer.heal(ids)
        with torch.no_grad():
            logits = model(torch.tensor(healed.prompt[None].astype(np.int64))).logits[0, -1].numpy()
        assert choose(healed, logits) == expected, prompt
        chosen_anew += expected != mine.encode(prompt.strip(), add_special_tokens=False)
    return chosen_anew


@pytest.mark.parametrize("seed", range(4))
def test_healed_prompts_equal_those_of_transformers(trained, seed):
    mine, theirs = trained
    prompts = [prompt for prompt in PROMPTS if not mine.tokenize(prompt.strip())[-1].startswith("\u0120")]
    assert len(prompts) >= 4
    assert assert_heals_alike(small_model(400, seed), mine, theirs, prompts) > 0


@pytest.mark.parametrize("file", ["smollm2_gguf", "gemma_gguf"])
def test_healed_prompts_of_real_tokenizers_equal_those_of_transformers(request, file):
    """The tokenizer is ours on both sides; the model is small, as only its choice among the same tokens matters."""
    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue(file))
    prompts = ['The link is <a href="http:', "def main(", "A list: [1, 2", "the end.", "It is(", "x=y+="]
    assert assert_heals_alike(small_model(len(tokenizer), 0), tokenizer, tokenizer, prompts) > 0


def test_a_token_with_a_space_before_it_is_healed_too(smollm2_gguf):
    tokenizer = AutoTokenizer.from_pretrained(smollm2_gguf)
    healer = Healer(tokenizer)
    ids = tokenizer.encode("I read a book ab")
    texts = [tokenizer.decode([token]) for token in healer.extensions(ids[-1])]
    assert all(text.startswith(" ab") for text in texts)
    assert " about" in texts
    assert healer.heal(ids).dropped == 1


def test_the_last_token_is_dropped_and_the_first_new_one_begins_as_it_did():
    healed = heal(WORDS.encode("http:"), WORDS)
    assert healed.prompt.tolist() == WORDS.encode("http")
    assert healed.dropped == 1
    assert [WORDS.pieces[token] for token in Healer(WORDS).extensions(WORDS.pieces.index(":"))] == [":", ":/", "://"]
    logits = np.zeros(16, np.float32)
    logits[WORDS.pieces.index("a")] = 9.0
    logits[WORDS.pieces.index("://")] = 2.0
    assert WORDS.decode(choose(healed, logits)) == "http://"


def test_the_token_itself_is_favoured_and_another_may_win_by_far():
    healed = heal(WORDS.encode("http:"), WORDS)
    logits = np.zeros(16, np.float32)
    assert WORDS.decode(choose(healed, logits)) == "http:"
    logits[WORDS.pieces.index("a")] = 11.5
    assert WORDS.decode(choose(healed, logits)) == "httpa"


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        ([3], "one token"),
        ([], "none"),
        ([0], "only a beginning"),
        ([11, 7], "no other token begins so"),
        ([11, 1], "the end is special"),
        ([10], "white space"),
    ],
)
def test_what_cannot_be_healed_stays(ids, why):
    healed = heal(ids, WORDS)
    assert (healed.prompt.tolist(), healed.dropped) == (ids, 0), why


def test_white_space_around_a_plain_text_is_taken_off_and_its_beginning_kept():
    assert heal([0, *WORDS.encode("  http:  ")], WORDS).prompt.tolist() == [0, *WORDS.encode("http")]
    assert heal([0, *WORDS.encode("a")], WORDS).prompt.tolist() == [0]


def test_the_text_of_a_chat_is_left_as_it_is():
    ids = [0, *WORDS.encode("a "), 1, *WORDS.encode(" http:")]
    assert heal(ids, WORDS).prompt.tolist() == ids[:-1]


def test_a_tokenizer_is_needed():
    with pytest.raises(ArgumentError, match=r"tokenizer.*token_healing"):
        Healer(None)


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_the_choice_holds_under_sampling_and_ends_with_the_first_token(framework):
    from importlib import import_module

    xp = import_module(f"fabula.arrays.{framework}")
    healing = heal(WORDS.encode("http:"), WORDS).processors
    warm = [p.TemperatureLogitsWarper(50.0), p.TopKLogitsWarper(10), p.LogitNormalization()]
    scores = np.random.default_rng(0).normal(0, 3, (3, 16)).astype(np.float32)
    tokens = np.array([[11, 5], [11, 5], [11, 5]], np.int32)
    lengths = np.array([1, 2, 1], np.int32)
    context = Context(*(xp.asarray(part, "int32") for part in (tokens, lengths, lengths)))
    process = stack([[*healing, *warm], [*healing, *warm], warm])
    got = xp.to_host(process(xp.asarray(scores, "float32"), context))
    plain = xp.to_host(stack([warm] * 3)(xp.asarray(scores, "float32"), context))
    assert np.exp(got[0]).max() == 1.0
    assert np.argmax(got[0]) in Healer(WORDS).extensions(WORDS.pieces.index(":"))
    assert np.array_equal(got[1:], plain[1:])


def test_a_forbidden_choice_leads_to_the_next_best():
    healing = heal(WORDS.encode("http:"), WORDS).processors
    forbidden = p.SuppressTokensLogitsProcessor([WORDS.pieces.index(":")])
    logits = np.zeros((1, 16), np.float32)
    logits[0, WORDS.pieces.index("://")] = 0.5
    one = np.array([1], np.int32)
    scores = p.LogitsProcessorList([*healing, forbidden]).process(logits, Context(np.array([[11]], np.int32), one, one))
    assert WORDS.pieces[scores.argmax()] == "://"
