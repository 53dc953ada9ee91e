"""What `fabula bench` measures is the same work for every side, and what it prints adds up."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import MappingProxyType

import pytest

from fabula import AutoModelForCausalLM
from fabula.cli import bench
from fabula.cli.bench_figures import works
from fabula.cli.bench_peers import PEERS, Peer, thread_counts
from fabula.cli.bench_report import table
from fabula.cli.bench_rounds import interleaved, load_side
from fabula.cli.bench_sides.worker import peak_bytes
from fabula.cli.bench_statistics import Summary, ratios
from fabula.cli.bench_workers import WorkerProcess
from fabula.errors import FabulaError, MissingDependencyError
from fabula.hub.open import open_checkpoint

SIDE = """
import time

class Side:
    def load(self, source, settings):
        print("libraries talk")
        self.slow = 0
        return {"version": "9.9", "vocabulary": 200}

    def configure(self, settings, rows, positions):
        self.slow = settings["slow"]

    def measure(self, prompts, new_tokens):
        assert all(0 <= token < 200 for prompt in prompts for token in prompt)
        return 0.25 + self.slow, 0.5 + self.slow, [new_tokens - LESS] * len(prompts)
"""
SLOW_AND_FAST = Peer(
    "stub",
    "stub",
    ("",),
    lambda threads: {},
    lambda work, threads: [{"slow": 2, "threads": 1}, {"slow": 1, "threads": 1}],
)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """engine(code): makes the code a side that a worker finds as `stub`."""

    def write(code: str) -> str:
        (tmp_path / "stub_side.py").write_text(code, encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *os.environ.get("PYTHONPATH", "").split(":")]))
        return "stub"

    return write


def test_prompts_are_new_in_every_round_and_figure_and_the_same_for_every_side():
    drawn = [
        tuple(prompt)
        for work in works(quick=False)
        for number in range(3)
        for prompt in work.prompts(seed=1, round_number=number, vocabulary=1000)
    ]
    assert len(set(drawn)) == len(drawn)
    work = works(quick=False)[0]
    assert work.prompts(1, 2, 1000) == work.prompts(1, 2, 1000)
    assert max(work.prompts(1, 2, 7)[0]) == 6


def test_a_rate_counts_the_tokens_of_its_part():
    counts = {work.name: work.tokens for work in works(quick=False)}
    assert counts == {
        "prefill 128": 128,
        "prefill 512": 512,
        "decode 1 row": 64,
        "decode 8 rows": 8 * 32,
        "decode 32 rows": 32 * 16,
    }


def test_ratios_compare_what_was_measured_in_the_same_round():
    assert ratios([10, 1], [5, 0.5]) == [2, 2]
    assert Summary.of([3, 1, 2]) == Summary(median=2, low=1, high=3)


@pytest.mark.parametrize("name", PEERS)
def test_a_grid_has_each_setting_once_with_every_count_of_threads(name: str):
    for work in works(quick=False):
        grid = PEERS[name].grid(work, 2)
        assert len({tuple(settings.items()) for settings in grid}) == len(grid)
        assert {settings["threads"] for settings in grid} == {1, 2}


def test_many_threads_are_tried_by_doubling():
    assert [thread_counts(most) for most in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


def test_a_side_that_computes_less_is_refused(engine):
    with WorkerProcess("stub", engine(SIDE.replace("LESS", "1"))) as worker:
        worker.ask("start")
        worker.ask("load", source="", settings={})
        with pytest.raises(FabulaError, match="must make 5 tokens in each row"):
            worker.measure([[1, 2]], 5)


def test_an_engine_that_is_not_installed_is_named(engine):
    missing = pytest.raises(MissingDependencyError, match=r"stub in .*no_such_engine")
    with WorkerProcess("stub", engine("import no_such_engine")) as worker, missing:
        worker.ask("start")


def test_an_engine_that_dies_leaves_its_last_words(engine):
    ended = pytest.raises(FabulaError, match="ended while it was asked to start: oh no")
    with WorkerProcess("stub", engine("import os; print('oh no', flush=True); os._exit(1)")) as worker, ended:
        worker.ask("start")


def test_an_interpreter_that_is_not_there_is_named():
    with pytest.raises(MissingDependencyError, match="/no/such/python"):
        WorkerProcess("stub", "stub", "/no/such/python")


def test_bench_measures_alone(run, tiny):
    done = run("bench", tiny, "--quick", "--rounds", "2", "--threads", "1", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    figures = {figure["name"]: figure["sides"]["fabula"] for figure in result["figures"]}
    assert {"prefill 128", "decode 1 row", "decode 8 rows", "decode 32 rows", "import", "load", "first token"} <= set(
        figures
    )
    assert "prefill 512" not in figures  # with the token after it, more than this model's context
    assert all(len(figure["samples"]) == 2 and figure["low"] <= figure["median"] for figure in figures.values())
    assert 10 < figures["peak memory"]["median"] < 4000
    assert figures["first token"]["low"] > figures["import"]["low"] + figures["load"]["low"]


def test_bench_leaves_out_what_is_not_asked_for(run, tiny):
    done = run("bench", tiny, "--quick", "--rounds", "1", "--threads", "1", "--only", "decode 8 rows", "--json")
    assert done.code == 0, done.err
    names = [figure["name"] for figure in json.loads(done.out)["figures"]]
    assert [name for name in names if name in bench.CHOICES] == ["decode 1 row", "decode 8 rows"]
    assert "plan and commit" in names


def test_bench_takes_a_peer_at_its_best_and_compares_round_by_round(run, tiny, engine, monkeypatch):
    engine(SIDE.replace("LESS", "0"))
    monkeypatch.setattr(bench, "PEERS", MappingProxyType({"stub": SLOW_AND_FAST}))
    done = run("bench", "-m", tiny, "--quick", "--rounds", "2", "--threads", "1", "--peer", "stub", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert "/ stub" in table(result)
    assert "prefill 128: slow 1, threads 1 (best of 2" in table(result)
    assert result["sides"]["stub"]["settings"]["prefill 128"] == {"slow": 1, "threads": 1}
    assert [one["settings"]["slow"] for one in result["sides"]["stub"]["grid"]["prefill 128"]] == [2, 1]
    prefill = next(figure for figure in result["figures"] if figure["name"] == "prefill 128")
    assert prefill["sides"]["stub"]["samples"] == pytest.approx([128 / 1.25] * 2)
    assert prefill["ratios"]["stub"]["high"] == pytest.approx(prefill["sides"]["fabula"]["high"] / (128 / 1.25))


def test_transformers_does_the_work_that_is_asked_for(tiny):
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    with WorkerProcess("transformers", "transformers") as worker:
        side = load_side(worker, tiny, PEERS["transformers"].first(1))
        assert side.vocabulary == 259
        samples = interleaved([side], works(quick=True)[2:4], range(1))
    assert all(rates[0] > 0 for rates in samples["transformers"].values())


@pytest.mark.peer
def test_bench_runs_beside_llama_cpp(run, smollm2_gguf):
    pytest.importorskip("llama_cpp")
    done = run(
        "bench", str(smollm2_gguf), "--quick", "--rounds", "1", "--threads", "1", "--peer", "llama.cpp", "--json"
    )
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert all(figure["ratios"]["llama.cpp"]["median"] > 0 for figure in result["figures"] if figure["ratios"])


def test_llama_cpp_takes_gguf_files_only(run, tiny):
    done = run("bench", tiny, "--peer", "llama.cpp")
    assert done.code == 2
    assert ".gguf" in done.err


def test_a_token_reads_every_weight_but_the_embedding(tiny):
    checkpoint = open_checkpoint(tiny)
    parameters = AutoModelForCausalLM.from_pretrained(tiny).num_parameters()
    embedding = checkpoint.tensors["model.embed_tokens.weight"].data.nbytes
    assert bench.bytes_a_token(checkpoint) == 4 * parameters - embedding


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it is getrusage's figure")
def test_peak_memory_grows_with_what_is_touched():
    before = peak_bytes()
    block = bytearray(os.urandom(1)) * (64 << 20)
    assert peak_bytes() - before > 32 << 20 or before > len(block) * 2
