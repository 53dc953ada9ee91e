"""GenerationConfig: what is ours, that is saving, seeds, warnings and refusals."""

import copy
import json
import logging
import pickle

import numpy as np
import pytest

from fabula.errors import ArgumentError, DownloadError, ModelFileError
from fabula.generation.settings import config as config_module
from fabula.generation.settings.combinations import issues_of
from fabula.generation.settings.compile_config import CompileConfig
from fabula.generation.settings.config import GenerationConfig
from fabula.generation.settings.fields import FIELDS
from fabula.generation.settings.modes import GenerationMode
from fabula.generation.settings.watermarking_config import SynthIDTextWatermarkingConfig, WatermarkingConfig

LOG = "fabula.generation"


def written(path, **settings):
    (path / "generation_config.json").write_text(json.dumps(settings))
    return path


def test_every_field_is_none_until_it_is_set():
    config = GenerationConfig()
    assert all(getattr(config, name) is None for name in FIELDS)


def test_every_field_says_what_it_means_in_one_sentence():
    for field in FIELDS.values():
        assert field.meaning.endswith(".") and field.kind in {"int", "float", "bool", "text", "ints", "texts", "value"}


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_default_passes_its_own_check(name):
    FIELDS[name].check.require(name, FIELDS[name].default)


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1, -1, np.int64(3), [1, 2, 2]])
def test_a_seed_is_an_int_or_a_list_of_them(seed):
    assert GenerationConfig(seed=seed).seed == seed


@pytest.mark.parametrize("seed", [1.5, "7", True, [], [1, None], 2**64])
def test_another_seed_is_refused(seed):
    with pytest.raises(ArgumentError, match="`seed` must be an int"):
        GenerationConfig(seed=seed)


def test_temperature_may_be_an_int_and_zero_is_greedy():
    assert GenerationConfig(do_sample=True, temperature=2).get_generation_mode() is GenerationMode.SAMPLE
    assert GenerationConfig(do_sample=True, temperature=0).get_generation_mode() is GenerationMode.GREEDY_SEARCH
    assert GenerationConfig(do_sample=True, temperature=0, num_beams=2).get_generation_mode() == "beam_search"
    assert issues_of(GenerationConfig(temperature=0)) == {}


def test_top_k_of_contrastive_search_is_no_issue():
    config = GenerationConfig(penalty_alpha=0.6, top_k=4)
    assert issues_of(config) == {} and config.get_generation_mode() is GenerationMode.CONTRASTIVE_SEARCH


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_watermark_that_marks_all_or_nothing_is_refused(ratio):
    with pytest.raises(ArgumentError, match="greenlist_ratio"):
        GenerationConfig(watermarking_config={"greenlist_ratio": ratio})


def test_a_watermark_with_unknown_names_is_refused():
    with pytest.raises(ArgumentError, match="colour"):
        GenerationConfig(watermarking_config={"colour": "green"})


def test_synthid_refuses_a_table_that_is_too_large():
    with pytest.raises(ArgumentError, match="sampling_table_size"):
        SynthIDTextWatermarkingConfig(ngram_len=5, keys=[1], sampling_table_size=2**24 + 1).validate()


def test_a_watermark_reads_and_writes_itself(tmp_path):
    config = WatermarkingConfig.from_dict({"bias": 1.0}, context_width=2, other=3)
    config.to_json_file(tmp_path / "mark.json")
    assert WatermarkingConfig.from_dict(json.loads((tmp_path / "mark.json").read_text())) == config
    assert json.loads(config.to_json_string())["context_width"] == 2


def test_a_compile_config_refuses_what_cannot_be_compiled_with():
    with pytest.raises(ArgumentError, match="backend"):
        CompileConfig(backend=3)
    with pytest.raises(ArgumentError, match="options"):
        CompileConfig(options=["a"])


class TestSaving:
    def test_round_trips_through_a_directory(self, tmp_path):
        config = GenerationConfig(do_sample=True, top_p=0.5, eos_token_id=[1, 2], seed=[3, 4], foo={"a": 1})
        config.save_pretrained(tmp_path / "new")
        assert GenerationConfig.from_pretrained(tmp_path / "new") == config
        assert GenerationConfig.from_pretrained(tmp_path / "new" / "generation_config.json") == config

    def test_leaves_compile_config_out(self, tmp_path):
        GenerationConfig(compile_config=CompileConfig(), max_new_tokens=3).save_pretrained(tmp_path)
        assert "compile_config" not in json.loads((tmp_path / "generation_config.json").read_text())

    def test_refuses_issues(self, tmp_path):
        with pytest.raises(ArgumentError, match=r"(?s)temperature.*Fix these issues"):
            GenerationConfig(temperature=0.5).save_pretrained(tmp_path)
        assert not list(tmp_path.iterdir())

    def test_a_config_from_a_file_can_be_saved_again_with_its_issues(self, tmp_path):
        config = GenerationConfig.from_pretrained(written(tmp_path, temperature=0.5, pad_token_id=-1))
        config.save_pretrained(tmp_path)
        config.max_new_tokens = 7
        config.save_pretrained(tmp_path)
        assert GenerationConfig.from_pretrained(tmp_path).temperature == 0.5

    def test_a_config_from_a_file_is_refused_with_new_issues(self, tmp_path):
        config = GenerationConfig.from_pretrained(written(tmp_path, temperature=0.5))
        config.top_p = 0.5
        with pytest.raises(ArgumentError, match="top_p"):
            config.save_pretrained(tmp_path)

    def test_a_config_from_a_model_config_can_be_saved(self, tmp_path):
        GenerationConfig.from_model_config({"temperature": 0.5, "vocab_size": 3}).save_pretrained(tmp_path)
        assert "vocab_size" not in (tmp_path / "generation_config.json").read_text()

    def test_refuses_a_file_as_directory(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(ArgumentError, match="save_directory"):
            GenerationConfig().save_pretrained(tmp_path / "file")

    def test_refuses_what_json_cannot_hold(self, tmp_path):
        with pytest.raises(ArgumentError, match="`constraints` must be plain data"):
            GenerationConfig(constraints=[object()], num_beams=2).save_pretrained(tmp_path)

    def test_writes_numpy_and_torch_values_as_plain_ones(self):
        config = GenerationConfig(eos_token_id=np.array([1, 2]), top_k=np.int64(5), do_sample=True)
        assert json.loads(config.to_json_string())["eos_token_id"] == [1, 2]
        torch = pytest.importorskip("torch")
        assert json.loads(GenerationConfig(dtype=torch.float16).to_json_string())["dtype"] == "float16"

    def test_pushes_what_it_would_save(self, tmp_path, monkeypatch):
        calls = []

        class Hub:
            def __init__(self, token):
                self.token = token

            def create_repo(self, repo_id, **more):
                return type("Repository", (), {"repo_id": f"me/{repo_id}"})

            def upload_file(self, **call):
                calls.append(call)

        monkeypatch.setattr(config_module.huggingface_hub, "HfApi", Hub)
        GenerationConfig(max_new_tokens=3).save_pretrained(tmp_path / "mine", push_to_hub=True, token="t")
        (call,) = calls
        assert call["repo_id"] == "me/mine" and json.loads(call["path_or_fileobj"])["max_new_tokens"] == 3


class TestReading:
    def test_overrides_go_before_the_file(self, tmp_path):
        assert GenerationConfig.from_pretrained(written(tmp_path, top_k=3, do_sample=True), top_k=4).top_k == 4

    def test_unknown_overrides_are_given_back_when_asked_for(self, tmp_path):
        config, unused = GenerationConfig.from_pretrained(
            written(tmp_path, top_k=3, do_sample=True), top_k=4, foo=1, return_unused_kwargs=True
        )
        assert (config.top_k, unused) == (4, {"foo": 1}) and not hasattr(config, "foo")

    def test_another_name_and_a_subfolder_are_found(self, tmp_path):
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "mine.json").write_text('{"max_length": 9}')
        assert GenerationConfig.from_pretrained(tmp_path, "mine.json", subfolder="sub").max_length == 9

    @pytest.mark.parametrize("text", ["{", "[1]", "\udcff", "[" * 100000])
    def test_a_damaged_file_is_refused_by_name(self, text, tmp_path):
        (tmp_path / "generation_config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(ModelFileError, match=r"generation_config\.json"):
            GenerationConfig.from_pretrained(tmp_path)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("max_new_tokens", 0), ("num_beams", "4"), ("pad_token_id", []), ("validate", 1), ("__class__", {})],
    )
    def test_a_file_with_a_hostile_value_is_refused_by_file_and_field(self, name, value, tmp_path):
        with pytest.raises(ModelFileError, match=rf"generation_config\.json.*`{name}` must"):
            GenerationConfig.from_pretrained(written(tmp_path, **{name: value}))

    def test_an_override_that_is_wrong_is_an_argument(self, tmp_path):
        with pytest.raises(ArgumentError, match="`max_new_tokens`"):
            GenerationConfig.from_pretrained(written(tmp_path), max_new_tokens=0)

    def test_a_directory_without_the_file_is_refused(self, tmp_path):
        with pytest.raises(ModelFileError, match=r"must hold generation_config\.json"):
            GenerationConfig.from_pretrained(tmp_path)

    def test_a_hub_id_goes_to_huggingface_hub(self, tmp_path, monkeypatch):
        def download(repository, name, **options):
            assert (repository, name, options["revision"], options["subfolder"]) == ("org/name", FILE, "main", None)
            return str(written(tmp_path, top_k=3) / name)

        FILE = "generation_config.json"
        monkeypatch.setattr(config_module.huggingface_hub, "hf_hub_download", download)
        assert GenerationConfig.from_pretrained("org/name").top_k == 3

    def test_a_name_that_is_nowhere_is_refused(self):
        with pytest.raises(DownloadError, match="no-such-model"):
            GenerationConfig.from_pretrained("fabula-tests/no-such-model", local_files_only=True)


class TestWarnings:
    def test_name_the_flag_and_the_reason_once_an_object(self, caplog):
        with caplog.at_level(logging.WARNING, LOG):
            config = GenerationConfig(top_p=0.5)
            config.validate()
            config.validate()
        (record,) = caplog.records
        assert record.name == LOG and "`top_p=0.5` has no effect: `do_sample` is not True" in record.message

    def test_come_again_for_another_object(self, caplog):
        with caplog.at_level(logging.WARNING, LOG):
            GenerationConfig(top_p=0.5), GenerationConfig(top_p=0.5)
        assert len(caplog.records) == 2

    def test_tell_of_a_likely_slip(self, caplog):
        with caplog.at_level(logging.WARNING, LOG):
            assert GenerationConfig(temprature=0.5).temprature == 0.5
        assert "Is `temperature` meant?" in caplog.text

    def test_do_not_come_for_extra_attributes(self, caplog):
        with caplog.at_level(logging.WARNING, LOG):
            GenerationConfig(lang_to_id={}, chat_format="chatml", max_window_size=6144, alignment_heads=[[1, 2]])
        assert not caplog.records

    def test_strict_validation_raises_instead(self):
        with pytest.raises(ArgumentError, match="output_scores"):
            GenerationConfig(output_scores=True).validate(strict=True)

    def test_tell_of_an_idle_reserve(self, caplog):
        with caplog.at_level(logging.WARNING, LOG):
            GenerationConfig(max_cache_len=3)
        assert "max_cache_len" in caplog.text

    def test_tell_of_drafts_that_do_not_go_with_beams(self, caplog):
        with caplog.at_level(logging.WARNING, LOG):
            GenerationConfig(num_beams=2, prompt_lookup_num_tokens=3).get_generation_mode()
        assert "beam_search ignores them" in caplog.text


def test_methods_are_not_overwritten():
    config = GenerationConfig()
    assert config.update(validate=1, _said=2) == {"validate": 1, "_said": 2}
    with pytest.raises(ArgumentError, match="`to_dict` must not be set"):
        config.update(to_dict=1, allow_custom_entries=True)


def test_equality_and_hash_leave_metadata_out():
    ours = GenerationConfig(top_k=3, do_sample=True, transformers_version="4.0.0")
    same = GenerationConfig(top_k=3, do_sample=True)
    assert ours == same and hash(ours) == hash(same) and ours != GenerationConfig(top_k=4, do_sample=True)
    assert ours != "GenerationConfig" and len({ours, same}) == 1


def test_copies_and_pickles_are_equal():
    config = GenerationConfig(top_k=3, do_sample=True, watermarking_config={"bias": 1.0}, foo=[1])
    assert copy.deepcopy(config) == config == pickle.loads(pickle.dumps(config)) == copy.copy(config)
