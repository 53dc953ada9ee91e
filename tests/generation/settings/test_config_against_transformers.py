"""GenerationConfig against transformers' own: the same construction gives the same data, mode, refusal and issues."""

import json
import re
import warnings

import pytest

from fabula.errors import ArgumentError
from fabula.generation.settings.combinations import issues_of
from fabula.generation.settings.compile_config import CompileConfig
from fabula.generation.settings.config import GenerationConfig
from fabula.generation.settings.fields import DEFAULTS, FIELDS, FORMAT_VERSION
from fabula.generation.settings.watermarking_config import SynthIDTextWatermarkingConfig, WatermarkingConfig

transformers = pytest.importorskip("transformers")
Reference = transformers.GenerationConfig

CONSTRUCTIONS = [
    {},
    {"max_length": 30, "min_length": 3},
    {"max_new_tokens": 5, "min_new_tokens": 2},
    {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.1},
    {"do_sample": True, "top_h": 0.4, "typical_p": 0.5, "epsilon_cutoff": 3e-4, "eta_cutoff": 2e-3},
    {"temperature": 0.7},
    {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0},
    {"top_k": 0},
    {"top_k": 10, "top_p": 0.5, "min_p": 0.2, "top_h": 0.4},
    {"typical_p": 0.4, "epsilon_cutoff": 0.1, "eta_cutoff": 0.1},
    {"do_sample": False, "temperature": 0.5},
    {"num_beams": 4, "early_stopping": True, "length_penalty": 0.5, "num_return_sequences": 3},
    {"num_beams": 4, "early_stopping": "never"},
    {"num_beams": 4, "do_sample": True},
    {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    {"num_beams": 4, "prompt_lookup_num_tokens": 3},
    {"num_beams": 4, "dola_layers": "low"},
    {"early_stopping": True},
    {"early_stopping": "never", "length_penalty": 2.0},
    {"num_beams": 1, "length_penalty": 2.0},
    {"penalty_alpha": 0.6, "do_sample": True, "top_k": 4},
    {"penalty_alpha": 0.0},
    {"constraints": [], "num_beams": 2},
    {"force_words_ids": [[1, 2]], "num_beams": 2},
    {"prompt_lookup_num_tokens": 3},
    {"prompt_lookup_num_tokens": 3, "dola_layers": "high"},
    {"assistant_early_exit": 4},
    {"use_mtp": True},
    {"dola_layers": [1, 2], "do_sample": True},
    {"use_cache": False, "cache_implementation": "static"},
    {"use_cache": False, "cache_config": {"backend": "quanto"}},
    {"cache_implementation": "quantized", "cache_config": {"nbits": 4}},
    {"cache_implementation": "hybrid"},
    {"cache_implementation": "paged"},
    {"max_cache_len": 64},
    {"output_scores": True, "output_logits": True},
    {"output_attentions": True, "output_hidden_states": True},
    {"output_scores": True, "return_dict_in_generate": True},
    {"output_scores": False, "output_logits": False},
    {"pad_token_id": -1},
    {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": [2, 3]},
    {"suppress_tokens": [1, 2], "forced_eos_token_id": 3},
    {"suppress_tokens": [1, 2], "forced_eos_token_id": [2, 3], "begin_suppress_tokens": [4]},
    {"sequence_bias": {(1, 2): 0.5, (3,): -1.0}},
    {"sequence_bias": [[[1, 2], 0.5]]},
    {"bad_words_ids": [[1], [2, 3]], "no_repeat_ngram_size": 3, "exponential_decay_length_penalty": (3, 1.5)},
    {"stop_strings": ["a", "b"], "max_time": 1.5, "renormalize_logits": True, "guidance_scale": 1.5},
    {"watermarking_config": {"greenlist_ratio": 0.5, "seeding_scheme": "selfhash"}},
    {"foo": 3, "lang_to_id": {"<|en|>": 1}, "transformers_version": "4.1.0", "_commit_hash": "abc"},
    {"_from_model_config": True, "foo": 3, "vocab_size": 7, "bos_token_id": 5, "force_bos_token_to_be_generated": True},
    {"num_assistant_tokens": 4, "num_assistant_tokens_schedule": "heuristic", "assistant_ensemble_weight": 0.5},
]

REFUSED = [
    {"early_stopping": "sometimes"},
    {"max_new_tokens": 0},
    {"max_new_tokens": -3},
    {"assistant_ensemble_weight": 0.0},
    {"assistant_ensemble_weight": 1.0},
    {"cache_implementation": "fast"},
    {"compile_config": {"mode": "default"}},
    {"watermarking_config": {"seeding_scheme": "middlehash"}},
    {"watermarking_config": {"greenlist_ratio": 1.5}},
    {"watermarking_config": {"context_width": 0}},
    {"num_return_sequences": 2},
    {"num_return_sequences": 2, "num_beams": 1, "do_sample": False},
    {"num_return_sequences": 5, "num_beams": 4},
    {"suppress_tokens": [1, 2], "forced_eos_token_id": 2},
    {"suppress_tokens": [1, 2], "forced_bos_token_id": 1},
    {"suppress_tokens": [1, 2], "forced_eos_token_id": [1, 2]},
    {"logits_processor": []},
    {"streamer": None},
    {"negative_prompt_ids": [1]},
]
OWN = {"seed", "output_log_probabilities", "output_prompt_log_probabilities", "top_log_probabilities"}


def name_of(settings):
    return ",".join(f"{name}={value}" for name, value in settings.items()) or "nothing"


def reference(settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Reference(**settings)


def reference_issues(config):
    try:
        config.validate(strict=True)
    except ValueError as error:
        return set(re.findall(r"^- `(\w+)`:", str(error), re.MULTILINE))
    return set()


def without_ours(settings):
    """Fields that transformers does not have are left out where they are not set."""
    return {name: value for name, value in settings.items() if name not in OWN or value is not None}


def plain(value):
    return json.loads(json.dumps(value, default=lambda one: one.to_dict()))


def test_fields_are_those_of_transformers_and_few_of_our_own():
    theirs = {name for name in vars(Reference()) if not name.startswith("_")} - {"transformers_version"}
    assert set(FIELDS) == theirs | OWN


def test_defaults_are_those_of_transformers():
    theirs = Reference._get_default_generation_params()
    for name, default in theirs.items():
        assert DEFAULTS[name] == default and type(DEFAULTS[name]) is type(default), name
    ours = {name: value for name, value in DEFAULTS.items() if value is not None and name not in theirs}
    assert ours == {"output_attentions": False, "output_hidden_states": False}  # None and False are the same there


def test_the_format_is_that_of_the_installed_reference():
    if transformers.__version__.split(".")[:2] != FORMAT_VERSION.split(".")[:2]:
        pytest.skip(f"transformers {transformers.__version__} is not {FORMAT_VERSION}")
    assert without_ours(GenerationConfig().to_dict()) == {
        **Reference().to_dict(),
        "transformers_version": FORMAT_VERSION,
    }


@pytest.mark.parametrize("settings", CONSTRUCTIONS, ids=name_of)
class TestSameConstruction:
    def test_gives_the_same_data(self, settings):
        ours, theirs = GenerationConfig(**settings).to_dict(), reference(settings).to_dict()
        for data in (ours, theirs):
            data.pop("transformers_version")
            data["sequence_bias"] = str(data["sequence_bias"])
        assert plain(without_ours(ours)) == plain(theirs)

    def test_gives_the_same_text(self, settings):
        ours, theirs = GenerationConfig(**settings), reference(settings)
        assert ours.to_json_string(ignore_metadata=True) == theirs.to_json_string(ignore_metadata=True)
        whole = json.loads(ours.to_json_string(use_diff=False, ignore_metadata=True))
        assert without_ours(whole) == json.loads(theirs.to_json_string(use_diff=False, ignore_metadata=True))
        assert repr(ours) == repr(theirs)

    def test_gives_the_same_mode(self, settings):
        for assistant in (None, object()):
            ours, theirs = GenerationConfig(**settings), reference(settings)
            assert ours.get_generation_mode(assistant) == theirs.get_generation_mode(assistant).value

    def test_has_the_same_issues(self, settings):
        assert set(issues_of(GenerationConfig(**settings))) == reference_issues(reference(settings))

    def test_is_read_back_by_either(self, settings, tmp_path):
        path = tmp_path / "generation_config.json"
        GenerationConfig(**settings).to_json_file(path)
        assert without_ours(plain(GenerationConfig.from_pretrained(tmp_path).to_dict())) == {
            **plain(Reference.from_pretrained(tmp_path).to_dict()),
            "transformers_version": FORMAT_VERSION,
        }


@pytest.mark.parametrize("settings", REFUSED, ids=name_of)
def test_what_transformers_refuses_is_refused(settings):
    with pytest.raises(ValueError):
        reference(settings)
    with pytest.raises(ArgumentError) as refusal:
        GenerationConfig(**settings)
    assert any(name in str(refusal.value) for name in settings)


@pytest.mark.parametrize(
    "chosen", [None, (), ("do_sample",), ("temperature",), ("do_sample", "temperature"), ("num_beams",)]
)
@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0.5, "top_p": 0.5}, {"do_sample": False, "temperature": 0.5}, {"length_penalty": 0.5}],
    ids=name_of,
)
def test_inherited_settings_are_issues_where_they_are_in_transformers(settings, chosen):
    theirs = reference(settings)
    try:
        theirs.validate(strict=True, user_set_attributes=None if chosen is None else set(chosen))
        expected = set()
    except ValueError as error:
        expected = set(re.findall(r"^- `(\w+)`:", str(error), re.MULTILINE))
    assert set(issues_of(GenerationConfig(**settings), chosen)) == expected


@pytest.mark.parametrize(
    "model_config",
    [
        {"vocab_size": 9, "eos_token_id": 2, "top_k": None, "num_beams": 3},
        {"eos_token_id": 2, "decoder": {"eos_token_id": 4, "bos_token_id": 5, "hidden_size": 3}},
        {"eos_token_id": 2, "text_config": {"pad_token_id": 4}},
        {"output_attentions": True},
        {"force_bos_token_to_be_generated": True, "bos_token_id": 3},
        {"do_sample": True, "temperature": 0.3, "_from_model_config": False},
    ],
    ids=name_of,
)
def test_a_models_config_gives_the_same_settings(model_config):
    ours = GenerationConfig.from_model_config(dict(model_config)).to_dict()
    theirs = Reference.from_model_config(dict(model_config)).to_dict()
    assert without_ours(ours) == {**theirs, "transformers_version": FORMAT_VERSION}


def test_a_models_config_object_gives_the_same_settings():
    config = transformers.LlamaConfig(vocab_size=9, eos_token_id=[2, 3], pad_token_id=0)
    ours, theirs = GenerationConfig.from_model_config(config), Reference.from_model_config(config)
    assert without_ours(ours.to_dict()) == {**theirs.to_dict(), "transformers_version": FORMAT_VERSION}


@pytest.mark.parametrize("defaults_only", [False, True])
@pytest.mark.parametrize("allow_custom_entries", [False, True])
def test_update_uses_and_returns_the_same_names(defaults_only, allow_custom_entries):
    new = {"top_k": 5, "do_sample": True, "bar": 1, "foo": 2, "watermarking_config": {"bias": 1.0}}
    ours, theirs = GenerationConfig(top_k=3, foo=7), Reference(top_k=3, foo=7)
    flags = {"defaults_only": defaults_only, "allow_custom_entries": allow_custom_entries}
    assert ours.update(**new, **flags) == theirs.update(**new, **flags)
    assert ours.to_json_string(ignore_metadata=True) == theirs.to_json_string(ignore_metadata=True)


def test_the_configs_inside_have_the_same_fields_and_texts():
    pairs = [
        (WatermarkingConfig(bias=1.5), transformers.generation.WatermarkingConfig(bias=1.5)),
        (
            SynthIDTextWatermarkingConfig(ngram_len=5, keys=[1, 2]),
            transformers.generation.SynthIDTextWatermarkingConfig(ngram_len=5, keys=[1, 2]),
        ),
    ]
    for ours, theirs in pairs:
        assert ours.to_dict() == theirs.to_dict() == dict(iter(ours))
        assert json.loads(ours.to_json_string()) == json.loads(theirs.to_json_string())
    assert CompileConfig(dynamic=True).to_dict() == transformers.CompileConfig(dynamic=True).to_dict()
