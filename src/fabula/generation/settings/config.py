"""GenerationConfig: what generate() is asked to do, as data that can be read, merged, checked and saved."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from copy import deepcopy
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub

from fabula.errors import ArgumentError, ModelFileError
from fabula.generation.settings.checks import nearest
from fabula.generation.settings.combinations import issues_of, notices_of, refuse
from fabula.generation.settings.explain import Explanation, explain
from fabula.generation.settings.fields import DEFAULTS, FIELDS, FORMAT_VERSION, stored
from fabula.generation.settings.files import FILE_NAME, json_text, locate, read_settings
from fabula.generation.settings.modes import GenerationMode, ignored_upgrades, mode_of

__all__ = ["GenerationConfig"]

_LOG = logging.getLogger("fabula.generation")
_METADATA = ("_from_model_config", "_original_object_hash", "transformers_version")
_UNSAVED = ("_original_object_hash", "_known_issues", "_said")
_OUTPUT_FLAGS = ("output_attentions", "output_hidden_states", "output_scores", "output_logits")
_DECODERS = ("decoder", "generator", "text_config")  # where a model's config keeps its text decoder's


class GenerationConfig:
    """The settings of generate(). A field that is None is not set: the model's own, then the default holds.

    Fields, their defaults and meanings are in `config_fields.FIELDS`. Other names are kept as extra attributes.
    """

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

        def __setattr__(self, name: str, value: Any) -> None: ...

    def __init__(self, **kwargs: Any) -> None:
        """Take fields by name; raise ArgumentError for what can be seen to be wrong."""
        self._said: set[str] = set()  # warnings already given
        self._known_issues: frozenset[str] = frozenset()  # issues that came with the file
        self._original_object_hash: int | None = None  # as loaded
        for name in FIELDS:
            setattr(self, name, stored(name, kwargs.get(name)))
        self._from_model_config = kwargs.get("_from_model_config")
        self.transformers_version = kwargs.get("transformers_version")
        extra = {name: value for name, value in kwargs.items() if name not in FIELDS and name not in _RESERVED}
        if not self._from_model_config:
            self._keep(extra)
        elif extra.get("force_bos_token_to_be_generated"):
            self.forced_bos_token_id = self.bos_token_id
        self.validate(user_set_attributes=set(kwargs))

    def _keep(self, extra: dict[str, Any]) -> None:
        """Set names that are no fields, saying so where one looks like a slip."""
        for name, value in extra.items():
            if hasattr(type(self), name):
                raise ArgumentError(f"`{name}` must not be set: it is a method of GenerationConfig. Leave it out.")
            setattr(self, name, value)
            meant = nearest(name, FIELDS, 0.85)
            if meant is not None:
                self.say_once(f"`{name}` is not a field of GenerationConfig and is kept as it is. Is `{meant}` meant?")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The config of `config_dict`, overridden by `kwargs`; with `return_unused_kwargs`, also what was not used."""
        return_unused = kwargs.pop("return_unused_kwargs", False)
        for name in ("_from_auto", "_from_pipeline"):
            kwargs.pop(name, None)
        if not return_unused:
            return cls(**{**config_dict, **kwargs})
        known = {*FIELDS, *_RESERVED, *config_dict}
        config = cls(**{**config_dict, **{name: value for name, value in kwargs.items() if name in known}})
        return config, {name: value for name, value in kwargs.items() if name not in known}

    @classmethod
    def from_model_config(cls, model_config: Any) -> GenerationConfig:
        """The settings that an old model config (a dict, or with to_dict()) holds among others."""
        outer = dict(model_config if isinstance(model_config, dict) else model_config.to_dict())
        outer.pop("_from_model_config", None)
        given = {name: value for name, value in outer.items() if value is not None}
        config = cls(**given, _from_model_config=True)
        inner = _decoder_settings(model_config)
        for name in FIELDS:
            if getattr(config, name) is None and name in inner:
                setattr(config, name, stored(name, inner[name]))
        if any(getattr(config, name) for name in _OUTPUT_FLAGS):
            config.return_dict_in_generate = True
        return config._loaded()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name: str | PathLike[str],
        config_file_name: str | PathLike[str] | None = None,
        cache_dir: str | PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str = "main",
        **kwargs: Any,
    ) -> Any:
        """The config in a directory, a JSON file or a hub repository; other keywords override its fields."""
        path = locate(
            pretrained_model_name,
            str(config_file_name or FILE_NAME),
            kwargs.pop("subfolder", ""),
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            revision=revision,
        )
        kwargs.pop("proxies", None)
        settings = read_settings(path)
        if kwargs.get("_from_model_config"):
            return cls.from_model_config(settings)
        return_unused = kwargs.pop("return_unused_kwargs", False)
        try:
            config, unused = cls.from_dict(settings, **kwargs, return_unused_kwargs=True)
        except ArgumentError as error:
            if kwargs:
                raise
            raise ModelFileError(f"`{path}` must hold settings that can be used: {error}") from error
        config._loaded()
        return (config, unused) if return_unused else config

    def _loaded(self) -> GenerationConfig:
        """Remember the state that came from outside, so that it can always be saved again."""
        self._original_object_hash = hash(self)
        self._known_issues = frozenset(issues_of(self))
        return self

    def save_pretrained(
        self,
        save_directory: str | PathLike[str],
        config_file_name: str | PathLike[str] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write what differs from the defaults; refuse issues, but not those that the config was loaded with."""
        refuse(self)
        issues = {name: reason for name, reason in issues_of(self).items() if name not in self._known_issues}
        if issues:
            raise ArgumentError(_listing(issues) + "\nFix these issues to save the configuration.")
        place = Path(save_directory)
        if place.is_file():
            raise ArgumentError(f"`save_directory` must be a directory, got the file {place}. Use to_json_file().")
        place.mkdir(parents=True, exist_ok=True)
        name = str(config_file_name or FILE_NAME)
        self.to_json_file(place / name, keys_to_pop=["compile_config"])
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", place.name), config_file_name=name, **kwargs)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        config_file_name: str = FILE_NAME,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> Any:
        """Upload the JSON file to a hub repository, made where it does not exist; returns huggingface_hub's answer."""
        hub = huggingface_hub.HfApi(token=token)
        repository = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
        return hub.upload_file(
            path_or_fileobj=self.to_json_string(keys_to_pop=["compile_config"]).encode(),
            path_in_repo=config_file_name,
            repo_id=repository,
            commit_message=commit_message or "Upload generation config",
            revision=revision,
            create_pr=create_pr,
        )

    def update(self, defaults_only: bool = False, allow_custom_entries: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Set the known names among `kwargs` (with `defaults_only`, only where nothing is set); return the others."""
        used = set()
        for name, value in kwargs.items():
            if name in vars(self) and name not in _UNSAVED:
                if not defaults_only or getattr(self, name) is None:
                    setattr(self, name, stored(name, value))
                    used.add(name)
            elif allow_custom_entries:
                self._keep({name: value})
                used.add(name)
        self.validate(user_set_attributes=used)
        return {name: value for name, value in kwargs.items() if name not in used}

    def validate(self, strict: bool = False, user_set_attributes: Collection[str] | None = None) -> None:
        """Raise ArgumentError for what is wrong; warn once of settings without effect, or raise when `strict`.

        `user_set_attributes` names what the user set now; inherited settings are not held against the mode.
        """
        refuse(self)
        issues = issues_of(self, user_set_attributes)
        if issues and strict:
            raise ArgumentError(_listing(issues))
        if issues:
            self.say_once(_listing(issues))
        for sentence in notices_of(self):
            self.say_once(sentence)

    def say_once(self, sentence: str) -> None:
        """Log a warning that this object has not given before."""
        if sentence not in self._said:
            self._said.add(sentence)
            _LOG.warning(sentence)

    def get_generation_mode(self, assistant_model: Any = None) -> GenerationMode:
        """The way to decode that the settings ask for."""
        for sentence in ignored_upgrades(self, assistant_model):
            self.say_once(sentence)
        return mode_of(self, assistant_model)

    def explain(self, model_generation_config: GenerationConfig | None = None, /, **call: Any) -> Explanation:
        """What a call with this config would do: print the answer.

        `model_generation_config` is the model's own config, where this one is passed to generate().
        """
        return explain(call, self, model_generation_config)

    def to_dict(self) -> dict[str, Any]:
        """A copy of every field and extra attribute."""
        settings = {name: deepcopy(value) for name, value in vars(self).items() if name not in _UNSAVED}
        return {**settings, "transformers_version": FORMAT_VERSION}

    def to_diff_dict(self) -> dict[str, Any]:
        """Only what is set: fields that are not None, extra attributes, and the version."""
        unset = {**dict.fromkeys(FIELDS), "_from_model_config": None}
        return {name: value for name, value in self.to_dict().items() if name not in unset or value is not None}

    def to_json_string(
        self, use_diff: bool = True, ignore_metadata: bool = False, keys_to_pop: Iterable[str] | None = None
    ) -> str:
        """The settings as JSON, names sorted; `use_diff`: only what is set."""
        left_out = {*(keys_to_pop or ()), *(_METADATA if ignore_metadata else ())}
        settings = self.to_diff_dict() if use_diff else self.to_dict()
        return json_text({name: value for name, value in settings.items() if name not in left_out})

    def to_json_file(
        self, json_file_path: str | PathLike[str], use_diff: bool = True, keys_to_pop: Iterable[str] | None = None
    ) -> None:
        """Write to_json_string()."""
        Path(json_file_path).write_text(self.to_json_string(use_diff, keys_to_pop=keys_to_pop), encoding="utf-8")

    @staticmethod
    def _get_default_generation_params() -> dict[str, Any]:
        """What generate() uses where nobody set a field."""
        return {name: value for name, value in DEFAULTS.items() if value is not None}

    def __hash__(self) -> int:
        return hash(self.to_json_string(ignore_metadata=True))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GenerationConfig):
            return False
        mine = self.to_json_string(use_diff=False, ignore_metadata=True)
        return mine == other.to_json_string(use_diff=False, ignore_metadata=True)

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string(ignore_metadata=True)}"


_RESERVED = (*_METADATA, *_UNSAVED, "_commit_hash")


def _decoder_settings(model_config: Any) -> dict[str, Any]:
    """The settings of the text decoder inside a model's config, or the config's own."""
    if isinstance(model_config, dict):
        return next((model_config[name] for name in _DECODERS if model_config.get(name)), model_config)
    if hasattr(model_config, "get_text_config"):
        return model_config.get_text_config(decoder=True).to_dict()
    return model_config.to_dict()


def _listing(issues: dict[str, str]) -> str:
    """One message for all issues: the names first, then a line a reason."""
    lines = "\n".join(f"- {reason}" for reason in issues.values())
    return f"These generation flags have no effect or are not valid: {sorted(issues)}.\n{lines}"
