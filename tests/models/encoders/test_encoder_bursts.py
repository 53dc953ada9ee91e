"""Bursts of models with an encoder give the texts of single steps, and compile once for each bucket of what is read."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fabula.decoding.closed.loop import decode  # noqa: E402
from fabula.decoding.closed.rows import ClosedRow, close  # noqa: E402
from fabula.decoding.recipe import Limits, Recipe  # noqa: E402
from fabula.models.bursts import torch as torch_burst  # noqa: E402  # needs torch
from fabula.models.encoders.torch import TorchSeq2SeqLM  # noqa: E402  # needs torch
from fabula.ops.protocol import Batch  # noqa: E402
from tests.equal.frameworks.doors import DOORS, REFERENCE  # noqa: E402
from tests.models.bursts.torch_bursts import Unwaited, never_looking  # noqa: E402
from tests.models.configurations import read_parts  # noqa: E402

BACKENDS = {"torch": REFERENCE, **DOORS}
COMPILED = ("jax", "tensorflow")
LENGTHS = (9, 4, 14)  # of the texts, one bucket
GREEDY = {"max_new_tokens": 70, "do_sample": False, "eos_token_id": [7, 31]}
SCORED = {**GREEDY, "output_scores": True}
WAYS = {
    "greedy": SCORED,
    "drawn": {
        "max_new_tokens": 70,
        "do_sample": True,
        "temperature": 1.3,
        "top_k": 40,
        "top_p": 0.95,
        "repetition_penalty": 1.2,
        "num_return_sequences": 2,
        "seed": 5,
        "eos_token_id": [7, 31],
    },
    "beams": {"max_new_tokens": 40, "num_beams": 3, "num_return_sequences": 3, "eos_token_id": 1},
    "contrastive": {"max_new_tokens": 30, "penalty_alpha": 0.6, "top_k": 3, "eos_token_id": None},
}
PAIRS = [
    ("torch", "drawn"),
    ("native", "drawn"),
    *((backend, "greedy") for backend in COMPILED),
    *((backend, "contrastive") for backend in COMPILED),
    *((backend, "beams") for backend in BACKENDS),
]


class StepByStep(TorchSeq2SeqLM):
    burst = burst_beams = None


@pytest.fixture(scope="module")
def written(writing):
    return writing("t5-1.1")


@pytest.fixture(scope="module")
def steps(written):
    """PyTorch's model, one step after another."""
    return StepByStep.from_tensors(*read_parts(written.directory))


@pytest.fixture(scope="module")
def load(written):
    """The model of a framework."""

    @cache
    def loaded(backend):
        model = BACKENDS[backend].load(written.directory, encodes=True)
        if backend == "tensorflow":
            model.programs.xla = False  # of steps; bursts are compiled
        return model

    return loaded


@pytest.fixture
def bursts(monkeypatch):
    """Notes how far each row or group got in each burst of models of a kind."""
    found = []

    def watch(model):
        for name in ("burst", "burst_beams", "burst_texts"):
            run = getattr(type(model), name, None)
            run = type(model).search_far if isinstance(run, property) else run  # which a CPU is not asked for
            if run is not None:
                monkeypatch.setattr(type(model), name, lambda *given, run=run: noted(run(*given)))
        return found

    def noted(outcome):
        found.append([len(part) for part in outcome])
        return outcome

    return watch


def texts(lengths=LENGTHS):
    """Int["3 S"] and its mask, padded on the left."""
    ids = np.random.default_rng(2).integers(3, 60, (len(lengths), max(lengths))).astype(np.int32)
    mask = (np.arange(max(lengths)) >= max(lengths) - np.array(lengths)[:, None]).astype(np.int32)
    return ids * mask, mask


def answer(door, model, ids=None, **call):
    """The call's output."""
    shown = {"return_dict_in_generate": True, "pad_token_id": 0}
    return door.generate(model, ids or texts(), **{**shown, **call})


def asked(door, model, ids=None, **call):
    """The call's rows, and after which beams their tokens were chosen if it searches."""
    output = answer(door, model, ids, **call)
    beams = getattr(output, "beam_indices", None)
    return door.on_host(output.sequences).tolist(), None if beams is None else door.on_host(beams).tolist()


@pytest.mark.parametrize(("backend", "way"), PAIRS)
def test_texts_are_those_of_single_steps(load, steps, bursts, backend, way):
    model, call = load(backend), WAYS[way]
    if "beams" in way and not hasattr(model, "burst_beams"):
        pytest.skip(f"{backend} has no bursts of beams")
    made = bursts(model)
    right = asked(REFERENCE, steps, **call)
    assert asked(BACKENDS[backend], model, **call) == right
    assert made and sum(map(max, made)) > 10, "most tokens are of bursts"


@pytest.mark.parametrize("backend", COMPILED)
def test_scores_are_those_of_single_steps(load, steps, backend):
    door = BACKENDS[backend]
    found, right = answer(door, load(backend), **SCORED), answer(REFERENCE, steps, **SCORED)
    assert len(found.scores) == len(right.scores)
    for ours, expected in zip(found.scores, right.scores, strict=True):
        np.testing.assert_allclose(door.on_host(ours), expected, rtol=1e-4, atol=1e-4)


def test_rows_of_the_calls_end_at_different_steps(steps):
    for way in ("greedy", "drawn"):
        rows, _ = asked(REFERENCE, steps, **WAYS[way])
        lengths = {len(np.trim_zeros(row[1:], "b")) for row in rows}
        assert len(lengths) > 2 and min(lengths) < 20, way


def test_texts_are_those_of_transformers(load, written):
    ids, mask = map(torch.as_tensor, texts())
    for call in (GREEDY, {**WAYS["beams"], "num_return_sequences": 1}):
        right = written.reference.generate(ids.long(), attention_mask=mask.long(), pad_token_id=0, **call).tolist()
        assert asked(REFERENCE, load("torch"), **call)[0] == right


@pytest.mark.parametrize("backend", COMPILED)
def test_one_loop_serves_texts_of_a_bucket(load, steps, backend):
    door, model, more = BACKENDS[backend], load(backend), []
    for lengths, changed in [
        (LENGTHS, {}),
        ((16, 2, 3), {"eos_token_id": [5, 6]}),
        ((3, 1, 17), {}),
        ((30, 32, 20), {"max_new_tokens": 30}),
    ]:
        now, before = {"ids": texts(lengths), **SCORED, "max_new_tokens": 20, **changed}, len(model.bursts.compiled)
        assert asked(door, model, **now) == asked(REFERENCE, steps, **now)
        more.append(len(model.bursts.compiled) - before)
    assert more[1:] == [0, 1, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_texts_that_were_encoded_apart_share_a_burst(load, steps, bursts, backend):
    prompts, made = [[5, 6, 7, 8], [9, 10], [11] * 15], bursts(load(backend))
    right, found = (
        [one.generated_tokens for one in model.generate_batch(prompts, **GREEDY).values()]
        for model in (steps, load(backend))
    )
    assert found == right
    assert made and len(made[0]) == 3


@pytest.mark.parametrize("wish", [{"record_timestamps": True}, {"on_result": lambda output: None}])
def test_who_waits_for_single_tokens_or_answers_gets_them_without_bursts(load, bursts, wish):
    made = bursts(load("jax"))
    load("jax").generate_batch([[5, 6, 7, 8], [9, 10]], **GREEDY, **wish)
    assert not made


def test_on_a_device_nothing_of_a_burst_waits_for_it(written):
    """Tensors of the device "meta" have shapes and no content: whatever looks at one raises."""
    family, tensors = read_parts(written.directory)
    model = TorchSeq2SeqLM.from_tensors(family, tensors, device="meta")
    hidden = torch.empty((2, 9, family.config.d_model), device="meta")
    memories = model.memories((hidden,)).each()
    limits = Recipe([], Limits(60), True)
    rows = [ClosedRow(np.arange(end, dtype=np.int32), 3, 0, 20, 7, place, limits) for place, end in enumerate((6, 41))]
    form, host = close(rows)
    ones, first, tables = np.ones(2, np.int32), np.array([5, 40], np.int32), np.array([[0, 0], [1, 2]], np.int32)
    batch = Batch(ones, np.arange(3), first, tables, ones, memories=memories)
    frame = torch_burst.frame_of(model.family, model.weights(), batch, model.new_cache(4), host.room)
    there = torch_burst.moved(host, model.inputs_like)
    frame.forward(there.last, there.lengths - 1, None)  # what a model makes once, for all steps
    with torch.no_grad(), Unwaited():
        end = decode(frame.forward, None, form, there, loop=never_looking)
    assert end.tokens.shape == host.tokens.shape and end.tokens.device.type == "meta"
