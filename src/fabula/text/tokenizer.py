"""The tokenizer: text to ids and back, with the names and meanings of transformers' fast tokenizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar, Self

import tokenizers
from tokenizers import AddedToken, Encoding

from fabula.errors import ArgumentError
from fabula.text import chat_template as chat
from fabula.text.building import ChatTemplates, Parts, build
from fabula.text.encoding import BatchEncoding
from fabula.text.files import TokenizerFiles
from fabula.text.options import check_texts, refuse_options
from fabula.text.padding import Lengths, check_side, pad_columns, read_lengths
from fabula.text.prefix_space import PrefixSpace
from fabula.text.saving import save
from fabula.text.special_tokens import NAMES, NamedToken, NamedTokenId
from fabula.text.tensors import as_lists
from fabula.text.token_texts import TokenTexts, read_token_texts
from fabula.text.word_pieces import clean_up


class Tokenizer:
    """Encodes, decodes and renders chats. Encoding and decoding change nothing, so threads may share one."""

    # What may be set on a tokenizer, and given to from_pretrained.
    SETTINGS: ClassVar[frozenset[str]] = frozenset(
        (*NAMES, "padding_side", "truncation_side", "model_max_length", "chat_template", "add_prefix_space")
    )

    bos_token, bos_token_id = NamedToken(), NamedTokenId()
    eos_token, eos_token_id = NamedToken(), NamedTokenId()
    unk_token, unk_token_id = NamedToken(), NamedTokenId()
    sep_token, sep_token_id = NamedToken(), NamedTokenId()
    pad_token, pad_token_id = NamedToken(), NamedTokenId()
    cls_token, cls_token_id = NamedToken(), NamedTokenId()
    mask_token, mask_token_id = NamedToken(), NamedTokenId()
    add_prefix_space = PrefixSpace()
    is_fast = True
    pad_token_type_id = 0

    def __init__(self, parts: Parts) -> None:
        self.backend_tokenizer: tokenizers.Tokenizer = parts.backend
        self.special_tokens = dict(parts.special_tokens)
        self.extra_special_tokens = list(parts.extra_special_tokens)
        self.padding_side = parts.padding_side
        self.truncation_side = parts.truncation_side
        self.model_max_length = parts.model_max_length
        self.chat_template: ChatTemplates = parts.chat_template
        self.clean_up_tokenization_spaces = parts.clean_up_tokenization_spaces
        self.model_input_names = list(parts.model_input_names)
        self.name_or_path = parts.source
        self._plain: tokenizers.Tokenizer | None = None
        self._token_texts: TokenTexts | None = None

    @classmethod
    def from_files(cls, files: TokenizerFiles) -> Self:
        """The tokenizer that `files` describe; raises ModelFileError naming what cannot be used."""
        return cls(build(files))

    # Text to ids

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        text_pair: None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        split_special_tokens: bool = False,
        **others: Any,
    ) -> BatchEncoding:
        """`input_ids` and `attention_mask` of a text, or of several as rows.

        `split_special_tokens` takes special tokens in the text for text. Raises ArgumentError for values out of range,
        UnknownArgumentError for unknown names, NotSupportedError for pairs and overflowing pieces.
        """
        refuse_options(others, text_pair)
        texts, single = check_texts(text)
        lengths = self._lengths(padding, truncation, max_length, pad_to_multiple_of, padding_side)
        encodings = self._encode(texts, add_special_tokens, lengths, split_special_tokens)
        asked = {
            "input_ids": True,
            "token_type_ids": _asked(return_token_type_ids, "token_type_ids" in self.model_input_names),
            "attention_mask": _asked(return_attention_mask, "attention_mask" in self.model_input_names),
            "special_tokens_mask": return_special_tokens_mask,
            "offset_mapping": return_offsets_mapping,
        }
        columns: dict[str, list[Any]] = {
            name: [_COLUMNS[name](row) for row in encodings] for name, wanted in asked.items() if wanted
        }
        columns = pad_columns(columns, self._fillers(), lengths)
        if return_length:
            columns |= {"length": [len(row) for row in columns["input_ids"]]}
        if single and return_tensors is None:
            columns = {name: rows if name == "length" else rows[0] for name, rows in columns.items()}
        return BatchEncoding(columns, encodings, return_tensors)

    def encode(self, text: str, text_pair: None = None, *, return_tensors: str | None = None, **options: Any) -> Any:
        """The ids of one text; with `return_tensors` as a tensor of one row."""
        return self(text, text_pair, return_tensors=return_tensors, **options)["input_ids"]

    def tokenize(self, text: str, *, add_special_tokens: bool = False, **options: Any) -> list[str]:
        """The tokens of a text as the vocabulary spells them."""
        return self(text, add_special_tokens=add_special_tokens, **options).tokens()

    def _encode(
        self, texts: list[str], add_special_tokens: bool, lengths: Lengths, split_special_tokens: bool
    ) -> list[Encoding]:
        backend = self._without_special() if split_special_tokens else self.backend_tokenizer
        if not lengths.truncate or lengths.max_length is None:
            return backend.encode_batch(texts, add_special_tokens=add_special_tokens)
        room = lengths.max_length - (self.num_special_tokens_to_add() if add_special_tokens else 0)
        encodings = backend.encode_batch(texts, add_special_tokens=False)
        for encoding in encodings:
            encoding.truncate(max(room, 0), direction=lengths.truncation_side)
        return [backend.post_process(encoding, None, add_special_tokens) for encoding in encodings]

    def _without_special(self) -> tokenizers.Tokenizer:
        """A twin that takes special tokens in a text for text; it shares the vocabulary."""
        if self._plain is None:
            source = self.backend_tokenizer
            twin = tokenizers.Tokenizer(source.model)
            for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
                if getattr(source, part) is not None:
                    setattr(twin, part, getattr(source, part))
            tokens = source.get_added_tokens_decoder()
            twin.add_tokens([tokens[token_id] for token_id in sorted(tokens)])
            twin.encode_special_tokens = True
            self._plain = twin
        return self._plain

    def _lengths(
        self, padding: Any, truncation: Any, max_length: int | None, multiple_of: int | None, side: str | None
    ) -> Lengths:
        side = self.padding_side if side is None else side
        lengths = read_lengths(
            padding, truncation, max_length, multiple_of, side, self.truncation_side, self.model_max_length
        )
        if lengths.padding != "do_not_pad" and self.pad_token_id is None:
            raise ArgumentError(
                "Asking to pad but the tokenizer does not have a padding token. Please select a token to use as "
                "`pad_token` `(tokenizer.pad_token = tokenizer.eos_token e.g.)` or add a new pad token via "
                "`tokenizer.add_special_tokens({'pad_token': '[PAD]'})`."
            )
        return lengths

    def _fillers(self) -> dict[str, Any]:
        return {
            "input_ids": self.pad_token_id,
            "token_type_ids": self.pad_token_type_id,
            "attention_mask": 0,
            "special_tokens_mask": 1,
            "offset_mapping": (0, 0),
        }

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Rows that were encoded before, brought to one length; one row, a dictionary of rows, or a list of rows."""
        if not isinstance(encoded_inputs, Mapping):
            encoded_inputs = {name: [row[name] for row in encoded_inputs] for name in (encoded_inputs or [{}])[0]}
        if "input_ids" not in encoded_inputs:
            names = ", ".join(encoded_inputs) or "nothing"
            raise ArgumentError(f"`encoded_inputs` must hold `input_ids`, got {names}.")
        columns = {name: as_lists(rows) for name, rows in encoded_inputs.items()}
        single = bool(columns["input_ids"]) and not isinstance(columns["input_ids"][0], list)
        if single:
            columns = {name: [row] for name, row in columns.items()}
        if _asked(return_attention_mask, "attention_mask" in self.model_input_names):
            columns.setdefault("attention_mask", [[1] * len(row) for row in columns["input_ids"]])
        lengths = self._lengths(padding, False, max_length, pad_to_multiple_of, padding_side)
        columns = pad_columns(columns, self._fillers(), lengths)
        if single:
            columns = {name: rows[0] for name, rows in columns.items()}
        return BatchEncoding(columns, None, return_tensors)

    # Ids to text

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> Any:
        """The text of an id or of a row of ids; a list of texts for several rows. Tensors of any framework will do."""
        ids = as_lists(token_ids)
        if isinstance(ids, list) and ids and isinstance(ids[0], list):
            return [self._decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in ids]
        return self._decode([ids] if isinstance(ids, int) else ids, skip_special_tokens, clean_up_tokenization_spaces)

    def batch_decode(
        self, sequences: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> list[str]:
        """The texts of several rows of ids; of a single row, its text in a list."""
        texts = self.decode(sequences, skip_special_tokens, clean_up_tokenization_spaces)
        return [texts] if isinstance(texts, str) else texts

    def _decode(self, ids: list[int], skip_special_tokens: bool, clean: bool | None) -> str:
        if any(token_id < 0 for token_id in ids):
            raise ArgumentError(f"`token_ids` must be ids in [0, {len(self)}), got {min(ids)}.")
        text = self.backend_tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        return clean_up(text) if self.cleans_up(clean) else text

    def cleans_up(self, asked: bool | None = None) -> bool:
        """Whether decoding removes spaces before punctuation; never for BPE, whose spaces are the text's own."""
        wanted = self.clean_up_tokenization_spaces if asked is None else asked
        return bool(wanted) and not isinstance(self.backend_tokenizer.model, tokenizers.models.BPE)

    @property
    def token_texts(self) -> TokenTexts:
        """How single tokens become text; read from the decoder once."""
        if self._token_texts is None:
            self._token_texts = read_token_texts(self.backend_tokenizer)
        return self._token_texts

    # The vocabulary

    @property
    def vocab_size(self) -> int:
        """How many tokens the model of the vocabulary has, without added ones."""
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=False)

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=True)

    def get_vocab(self) -> dict[str, int]:
        """Token to id, added ones included."""
        return self.backend_tokenizer.get_vocab(with_added_tokens=True)

    @property
    def vocab(self) -> dict[str, int]:
        """That of get_vocab()."""
        return self.get_vocab()

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token, or of each; unknown ones give the unknown token's id, or None where there is none."""
        if isinstance(tokens, str):
            token_id = self.backend_tokenizer.token_to_id(tokens)
            return self.unk_token_id if token_id is None else token_id
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or of each, as the vocabulary spells it."""
        ids = as_lists(ids)
        if isinstance(ids, int):
            return self.backend_tokenizer.id_to_token(ids)
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [self.backend_tokenizer.id_to_token(token_id) for token_id in ids if token_id not in skipped]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of tokens that are spelled as in the vocabulary."""
        decoder = self.backend_tokenizer.decoder
        return " ".join(tokens) if decoder is None else decoder.decode(list(tokens))

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many tokens encoding puts around a text."""
        return self.backend_tokenizer.num_special_tokens_to_add(pair)

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The named special tokens' texts."""
        return {name: self.special_tokens[name] for name in NAMES if name in self.special_tokens}

    @property
    def all_special_tokens(self) -> list[str]:
        """The texts of the named and the extra special tokens, each once."""
        return list(dict.fromkeys((*self.special_tokens_map.values(), *self.extra_special_tokens)))

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of `all_special_tokens`."""
        return self.convert_tokens_to_ids(self.all_special_tokens)

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Id to token, for those that are found in text as a whole."""
        return dict(sorted(self.backend_tokenizer.get_added_tokens_decoder().items()))

    def get_added_vocab(self) -> dict[str, int]:
        """Token to id, for those that are found in text as a whole."""
        return {token.content: token_id for token_id, token in self.added_tokens_decoder.items()}

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Adds tokens that are found in text as a whole; gives how many were new."""
        tokens = list(new_tokens) if isinstance(new_tokens, list | tuple) else [new_tokens]
        self._plain = self._token_texts = None
        if special_tokens:
            return self.backend_tokenizer.add_special_tokens(tokens)
        return self.backend_tokenizer.add_tokens(tokens)

    def add_special_tokens(self, special_tokens_dict: Mapping[str, Any]) -> int:
        """Adds and names special tokens: `{"pad_token": "[PAD]", "extra_special_tokens": [...]}`; how many were new."""
        added = 0
        for name, value in special_tokens_dict.items():
            if name in ("extra_special_tokens", "additional_special_tokens"):
                added += self.add_tokens(list(value), special_tokens=True)
                self.extra_special_tokens += [getattr(token, "content", token) for token in value]
            elif name in NAMES:
                added += self.add_tokens([value], special_tokens=True)
                setattr(self, name, value)
            else:
                known = ", ".join((*NAMES, "extra_special_tokens"))
                raise ArgumentError(f"`special_tokens_dict` must have keys among {known}, got {name!r}.")
        return added

    # Chats and files

    def apply_chat_template(self, conversation: Any, tools: Any = None, documents: Any = None, **options: Any) -> Any:
        """A conversation as the model's prompt; see fabula.text.chat_template.apply_chat_template."""
        return chat.apply_chat_template(self, conversation, tools, documents, **options)

    def get_chat_template(self, chat_template: str | None = None, tools: Any = None) -> str:
        """The template that apply_chat_template would use; raises TemplateError where there is none."""
        return chat.choose_template(self.chat_template, chat_template, tools)

    def save_pretrained(self, save_directory: str | PathLike[str]) -> tuple[str, ...]:
        """Writes tokenizer.json and its companions into a directory; gives the files' paths."""
        return save(self, save_directory)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("padding_side", "truncation_side"):
            check_side(name, value)
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return (
            f"Tokenizer(name_or_path={self.name_or_path!r}, vocab_size={self.vocab_size}, "
            f"model_max_length={self.model_max_length}, padding_side={self.padding_side!r}, "
            f"truncation_side={self.truncation_side!r}, special_tokens={self.special_tokens_map})"
        )


_COLUMNS = {
    "input_ids": lambda row: row.ids,
    "token_type_ids": lambda row: row.type_ids,
    "attention_mask": lambda row: row.attention_mask,
    "special_tokens_mask": lambda row: row.special_tokens_mask,
    "offset_mapping": lambda row: row.offsets,
}


def _asked(given: bool | None, default: bool) -> bool:
    return default if given is None else given
