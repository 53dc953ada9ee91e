"""Outputs are mappings, tuples and objects at once, like those of transformers."""

import copy
import pickle
from dataclasses import fields

import pytest

from fabula.errors import NotSupportedError
from fabula.generation.results import outputs

NAMES = [
    "GenerateDecoderOnlyOutput",
    "GenerateEncoderDecoderOutput",
    "GenerateBeamDecoderOnlyOutput",
    "GenerateBeamEncoderDecoderOutput",
]
OURS = [
    "finish_reasons",
    "log_probabilities",
    "top_log_probabilities",
    "prompt_log_probabilities",
    "prompt_top_log_probabilities",
]


def both(name, **values):
    transformers = pytest.importorskip("transformers")
    return getattr(outputs, name)(**values), getattr(transformers.generation, name)(**values)


@pytest.mark.parametrize("name", NAMES)
class TestEveryOutput:
    def test_has_the_reference_fields_in_order_and_then_ours(self, name):
        torch = pytest.importorskip("torch")
        ours, theirs = both(name, sequences=torch.zeros(1))
        assert [field.name for field in fields(ours)] == [field.name for field in fields(theirs)] + OURS

    def test_reads_as_the_reference_does(self, name):
        torch = pytest.importorskip("torch")
        values = {"past_key_values": 3, "logits": (1,), "sequences": torch.ones(2)}
        for output in both(name, **values):
            assert list(output) == list(output.keys()) == ["sequences", "logits", "past_key_values"]
            assert output[1] == output["logits"] == output.logits == (1,)
            assert output[1:] == ((1,), 3) and output.to_tuple()[2] == 3 and len(output) == 3
            assert output.scores is None and "scores" not in output
            with pytest.raises(KeyError):
                output["scores"]

    def test_is_set_as_the_reference_is(self, name):
        torch = pytest.importorskip("torch")
        for output in both(name, sequences=torch.ones(2)):
            output.scores = (4,)
            output["logits"] = (5,)
            assert output["scores"] == (4,) and output.logits == (5,) and len(output) == 3

    def test_keeps_what_it_holds(self, name):
        output = getattr(outputs, name)(sequences=[1])
        for change in (
            lambda: output.pop("sequences"),
            lambda: output.update(scores=1),
            lambda: output.__delitem__("sequences"),
            lambda: output.setdefault("scores", 1),
            output.clear,
            output.popitem,
        ):
            with pytest.raises(NotSupportedError, match=name):
                change()
        assert dict(output) == {"sequences": [1]}

    def test_is_copied_and_pickled_whole(self, name):
        output = getattr(outputs, name)(sequences=[[1]], finish_reasons=["eos"])
        for other in (copy.copy(output), copy.deepcopy(output), pickle.loads(pickle.dumps(output))):
            assert other == output and type(other) is type(output) and other.finish_reasons == ["eos"]

    def test_prints_its_fields(self, name):
        assert f"{name}(sequences=[1]" in repr(getattr(outputs, name)(sequences=[1]))
