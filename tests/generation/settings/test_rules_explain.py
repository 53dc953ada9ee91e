"""An explanation says what holds, where it came from, and what does nothing."""

import pytest

from fabula.errors import UnknownArgumentError
from fabula.generation.settings.config import GenerationConfig
from fabula.generation.settings.fields import FIELDS
from fabula.generation.settings.rules import resolve

MODEL = GenerationConfig(do_sample=True, temperature=0.6, top_p=0.9, eos_token_id=2, num_assistant_tokens=5)


def test_every_value_has_its_source():
    explanation = GenerationConfig(max_length=30).explain(MODEL, top_k=None)
    found = {name: (explanation[name].value, explanation[name].source) for name in ("top_k", "max_length", "top_p")}
    assert found == {"top_k": (None, "call"), "max_length": (30, "generation_config"), "top_p": (0.9, "model")}
    assert explanation["num_beams"].source == "default" and set(explanation.settings) == set(FIELDS)


def test_the_values_are_those_of_the_call():
    call, given = {"top_k": 3}, GenerationConfig(max_length=30)
    config, _ = resolve(call, given, MODEL)
    explanation = given.explain(MODEL, **call)
    for name in set(FIELDS) - {"min_length"}:
        assert explanation[name].value == getattr(config, name)


def test_what_does_nothing_has_its_reason():
    idle = GenerationConfig(max_length=30).explain(MODEL, do_sample=False, max_new_tokens=3).without_effect
    assert set(idle) == {"temperature", "top_p", "max_length", "num_assistant_tokens"}
    assert "`do_sample` is not True" in idle["top_p"] and "`max_new_tokens` is set" in idle["max_length"]


def test_what_is_refused_has_its_reason():
    explanation = MODEL.explain(num_beams=4, use_mtp=True)
    assert explanation.mode == "beam_sample" and "not supported" in explanation["use_mtp"].refused


def test_an_unknown_name_is_refused():
    with pytest.raises(UnknownArgumentError, match="Did you mean `top_p`"):
        MODEL.explain(top_pp=0.3)


def test_it_prints_what_was_set_first():
    lines = str(MODEL.explain(temperature=0, seed=7)).splitlines()
    assert lines[0] == "mode: greedy_search"
    assert lines[1].split() == ["seed", "7", "call"] and lines[-1].startswith("not set: ")
    assert any(line.split()[:3] == ["num_beams", "1", "default"] for line in lines)


def test_nothing_is_changed():
    before = MODEL.to_dict()
    str(MODEL.explain(GenerationConfig(), top_k=1))
    assert MODEL.to_dict() == before
