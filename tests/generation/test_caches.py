"""Every kind of cache gives the tokens of a row alone, however its work is cut up; each keeps what it promises."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fabula import AutoModelForCausalLM, GenerationConfig  # noqa: E402
from fabula.cache.blocks import BLOCK  # noqa: E402
from fabula.cache.kinds import CacheKind  # noqa: E402
from fabula.engine.engine import Engine  # noqa: E402
from fabula.errors import ArgumentError, NotSupportedError  # noqa: E402
from fabula.models.passes.storage_kinds import kind_there  # noqa: E402
from fabula.testing.tiny_model import write_tiny_model  # noqa: E402
from tests.equal.frameworks.doors import DOORS, REFERENCE  # noqa: E402

PROMPTS = [[72, 101, 108, 108, 111], [65], list(range(40, 110)), [5] * 33]
FEW = [PROMPTS[0], PROMPTS[3]]  # of few shapes
LONG = {"max_new_tokens": 12, "eos_token_id": None, "pad_token_id": 0}
STRATEGIES = [{}, {"do_sample": True, "seed": 3}, {"num_beams": 3}, {"penalty_alpha": 0.6, "top_k": 3}]
QUANTIZED = [
    ("torch", {"nbits": 8}),
    ("torch", {"nbits": 4, "q_group_size": 8}),
    ("torch", {"nbits": 4, "q_group_size": 5, "residual_length": 64}),
    ("native", {"nbits": 8, "q_group_size": 16}),
    ("native", {"nbits": 4}),
]
# One kind of each compiled backend, whose programs all these tests share.
COMPILED = {"jax": {"nbits": 8, "q_group_size": 8}, "tensorflow": {"nbits": 4, "q_group_size": 5}}
CODED = {"torch": {"nbits": 8}, "native": {"nbits": 8}, **COMPILED}


class Models(dict):
    """Loaded when they are first asked for. TensorFlow runs their steps itself: XLA takes long to compile them."""

    def __init__(self, folder):
        self.folder = folder

    def __missing__(self, backend):
        self[backend] = model = {**DOORS, "torch": REFERENCE}[backend].load(self.folder)
        if backend == "tensorflow":
            model.programs.xla, model.burst, model.burst_beams = False, None, None
        return model


@pytest.fixture(scope="module")
def models(folder):
    return Models(folder)


@pytest.fixture(scope="module")
def torch_model(models):
    return models["torch"]


def kind_of_storage(settings):
    return CacheKind("quantized", settings["nbits"], settings.get("q_group_size", 64))


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda call: next(iter(call), "greedy"))
@pytest.mark.parametrize(
    "call",
    [
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"cache_implementation": "static", "max_cache_len": 200},
        {"cache_implementation": "offloaded"},
        {"cache_implementation": "offloaded_static"},
        {"cache_implementation": "sliding_window"},
        {"cache_implementation": "paged"},
        {"prefill_chunk_size": 7},
        {"prefill_chunk_size": 1},
    ],
    ids=str,
)
def test_it_changes_no_token(model, call, strategy):
    call = {**LONG, **strategy, **call}
    assert model.generate(PROMPTS, **call) == model.generate(PROMPTS, **LONG, **strategy)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize(
    "call",
    [
        {"use_cache": False},
        {"cache_implementation": "offloaded"},
        {"cache_implementation": "sliding_window"},
        {"cache_implementation": "static", "max_cache_len": 400},
        {"cache_implementation": "offloaded_static", "max_cache_len": 400},
    ],
    ids=str,
)
def test_it_changes_no_token_of_a_compiled_backend(models, backend, call):
    model = models[backend]
    assert model.generate(FEW, **LONG, **call) == models["torch"].generate(FEW, **LONG)
    if "max_cache_len" in call:
        assert model.engine.storage.blocks >= len(FEW) * -(-400 // BLOCK)


def test_what_cannot_be_offloaded_is_refused_with_what_can_be_done():
    with pytest.raises(
        NotSupportedError, match=r"'offloaded' in JAX with a model on 'gpu'.*'quantized'.*backend='torch'"
    ):
        kind_there(CacheKind("offloaded"), "gpu", "JAX")
    assert kind_there(CacheKind("offloaded"), "cpu", "JAX") == CacheKind()


def test_without_a_cache_nothing_is_left_behind(model):
    model.engine.pool.prefixes.clear()
    out = model.generate(PROMPTS, use_cache=False, return_dict_in_generate=True, **LONG)
    assert out.past_key_values is None and len(model.engine.pool.prefixes) == 0


def test_a_static_cache_does_not_grow_while_it_runs(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, backend="torch", dtype="float32")
    sizes, step, storage = [], model.step, model.engine.storage
    model.step = lambda *given: sizes.append(storage.blocks) or step(*given)
    call = {**LONG, "max_new_tokens": 150}
    model.generate(PROMPTS, cache_implementation="static", num_beams=3, **call)
    assert len(set(sizes)) == 1 and sizes[0] > 16
    sizes.clear()
    model.generate(PROMPTS[:1], cache_implementation="static", max_cache_len=2000, **LONG)
    assert set(sizes) == {sizes[0]} and sizes[0] * 32 >= 2000


def test_a_chunk_has_at_most_its_size(model, monkeypatch):
    counts, step = [], type(model).step
    monkeypatch.setattr(
        type(model), "step", lambda self, batch, *rest: counts.append(batch.starts) or step(self, batch, *rest)
    )
    model.generate(PROMPTS, prefill_chunk_size=9, use_cache=False, guidance_scale=1.5, **LONG)
    assert max((starts[1:] - starts[:-1]).max() for starts in counts) == 9


@pytest.mark.parametrize(
    ("backend", "settings", "strategy"),
    [
        *((*kind, strategy) for kind in QUANTIZED for strategy in STRATEGIES),
        *((*kind, strategy) for kind in COMPILED.items() for strategy in STRATEGIES[::2]),
    ],
    ids=str,
)
def test_a_row_in_a_quantized_cache_does_not_depend_on_how_it_is_computed(models, backend, settings, strategy):
    model, prompts = models[backend], FEW if backend in COMPILED else PROMPTS
    call = {**LONG, **strategy, "cache_implementation": "quantized", "cache_config": settings}
    if "seed" in strategy:
        alone = [model.generate([prompt], **{**call, "seed": [3 + i]})[0] for i, prompt in enumerate(prompts)]
        call["seed"] = [3 + i for i in range(len(prompts))]
    else:
        alone = [model.generate([prompt], **call)[0] for prompt in prompts]
    assert model.generate(prompts, **call) == alone
    model.engine_for(kind_of_storage(settings)).pool.prefixes.clear()
    assert model.generate(prompts, prefill_chunk_size=5, **call) == alone


@pytest.mark.parametrize("backend", CODED)
def test_preempted_rows_in_a_quantized_cache_are_the_rows_alone(models, backend):
    model, kind = models[backend], kind_of_storage(CODED[backend])
    call = {**LONG, "max_new_tokens": 40, "cache_implementation": "quantized", "cache_config": CODED[backend]}
    alone = [model.generate([prompt], **call)[0] for prompt in PROMPTS]
    engine = model.engine_for(kind)
    small = Engine(engine.model, max_positions=160, step_tokens=24)
    model._engine.engines[kind] = small
    assert model.generate(PROMPTS, **call) == alone
    small.pool.check([])


@pytest.mark.parametrize("backend", CODED)
def test_quantized_keys_and_values_take_less_and_say_nearly_the_same(models, backend):
    model = models[backend]
    dense = model.new_storage(CacheKind(), 8).nbytes
    call = {"max_new_tokens": 1, "return_dict_in_generate": True, "output_logits": True}
    prompt = PROMPTS[2:3]
    exact = np.asarray(model.generate(prompt, **call).logits[0])
    errors = []
    for bits, most in ((8, 0.35), (4, 0.25)):
        assert model.new_storage(CacheKind("quantized", bits, 16), 8).nbytes <= most * dense
        asked = {"cache_implementation": "quantized", "cache_config": {"nbits": bits, "q_group_size": 16}}
        found = np.asarray(model.generate(prompt, **call, **asked).logits[0])
        errors.append(float(np.linalg.norm(found - exact) / np.linalg.norm(exact)))
    assert 0 < errors[0] < 0.01 < errors[1] < 0.2


@pytest.mark.parametrize("backend", CODED)
def test_a_quantized_past_goes_on_in_its_own_kind(models, backend):
    model = models[backend]
    call = {**LONG, "cache_implementation": "quantized", "cache_config": CODED[backend]}
    out = model.generate(FEW if backend in COMPILED else PROMPTS, return_dict_in_generate=True, **call)
    turns = [[*row, 7, 8] for row in out.sequences]
    expected = [model.generate([turn], **call)[0] for turn in turns]
    assert model.generate(turns, past_key_values=out.past_key_values, **LONG) == expected
    with pytest.raises(ArgumentError, match="cache_implementation"):
        model.generate(turns, past_key_values=out.past_key_values, cache_implementation="static", **LONG)


@pytest.mark.parametrize("backend", CODED)
def test_a_quantized_past_is_cropped_reordered_and_copied_out(models, backend):
    model = models[backend]
    call = {**LONG, "cache_implementation": "quantized", "cache_config": CODED[backend]}
    out = model.generate(FEW, return_dict_in_generate=True, **call)
    exact = model.generate(FEW, return_dict_in_generate=True, **LONG).past_key_values
    for pair, right in zip(out.past_key_values.to_dense(), exact.to_dense(), strict=True):
        for ours, other in zip(map(np.asarray, pair), map(np.asarray, right), strict=True):
            columns = slice(len(FEW[1]) - len(FEW[0]), len(FEW[1]))  # of prompts, which are the same
            ours, other = ours[:, :, columns], other[:, :, columns]
            most = {8: 0.05, 4: 0.4}[CODED[backend]["nbits"]] * np.abs(other).max()
            assert ours.shape == other.shape and 0 < np.abs(ours - other).max() < most
    past = out.past_key_values
    past.crop(-8)
    past.reorder_cache([1, 1, 0])
    rows = [out.sequences[row][: -8 + 1] for row in (1, 1, 0)]
    expected = [model.generate([row], **call)[0] for row in rows]
    assert model.generate(rows, past_key_values=past, **LONG) == expected


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"nbits": 2}, NotSupportedError, "nbits"),
        ({"q_group_size": 0}, ArgumentError, "q_group_size"),
        ({"nbit": 4}, ArgumentError, "nbits"),
    ],
)
def test_settings_of_a_quantized_cache_are_checked(torch_model, settings, error, message):
    with pytest.raises(error, match=message):
        torch_model.generate(PROMPTS, cache_implementation="quantized", cache_config=settings, **LONG)


def test_a_native_model_says_which_groups_it_reads(tmp_path):
    folder = write_tiny_model(tmp_path, head_dim=32)
    native = AutoModelForCausalLM.from_pretrained(folder, backend="native")
    call = {**LONG, "cache_implementation": "quantized"}
    with pytest.raises(NotSupportedError, match=r"multiple of 16.*got 24.*backend='torch'"):
        native.generate(PROMPTS, cache_config={"nbits": 8, "q_group_size": 24}, **call)
    assert native.generate(PROMPTS, cache_config={"nbits": 8, "q_group_size": 40}, **call)


def test_prompts_of_one_call_may_have_caches_of_their_own(torch_model):
    configs = [GenerationConfig(cache_implementation=name, **LONG) for name in ("static", "quantized", "dynamic")]
    alone = [torch_model.generate([p], config)[0] for p, config in zip(PROMPTS, configs, strict=False)]
    assert torch_model.generate(PROMPTS[:3], configs) == alone
    batch = torch_model.generate_batch(PROMPTS[:3], configs)
    assert [one.prompt_ids + one.generated_tokens for one in batch.values()] == alone


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda call: next(iter(call), "greedy"))
def test_blocks_behind_the_window_are_given_back_while_the_row_lives(tmp_path, backend, strategy):
    windowed = write_tiny_model(
        tmp_path / "windowed", model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=40
    )
    model = AutoModelForCausalLM.from_pretrained(windowed, backend=backend, dtype="float32")
    call = {**LONG, **strategy, "max_new_tokens": 160}
    bounded = model.generate(PROMPTS[2:], **call)
    engine = model.engine
    width = 2 * 3 if len(strategy) else 2
    assert engine.pool.window == 40 and engine.pool.blocks <= max(16, width * 5)
    engine.pool.check([])
    engine.pool.window = None
    engine.pool.prefixes.clear()
    assert model.generate(PROMPTS[2:], **call) == bounded
    engine.pool.window = 40
    out = model.generate(PROMPTS[2:], return_dict_in_generate=True, **call)
    turns = [[*row, 7, 8] for row in out.sequences]
    going_on = model.generate(turns, past_key_values=out.past_key_values, **LONG)
    assert going_on == model.generate(turns, use_cache=False, **LONG)
