"""Tries every class of transformers' causal and sequence-to-sequence mappings, and writes docs/transformers-models.md.

    PYTHONPATH=src python -m tests.interop.table RESULTS.jsonl [model types ...]

Each class is tried in a process of its own, with a time limit: a small random model generates greedily from two prompts
of different lengths, through Fabula in one batch and through its own generate() alone. What became of it is appended to
the results, from which the page is written; classes whose results are there already are not tried again unless named.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

from fabula import interop
from tests.interop.page import page
from tests.interop.tiny_models import CAUSAL, SEQ2SEQ, model_types, tiny_model

PROMPTS = [[5, 6, 7, 8, 9, 11, 12, 13], [14, 15, 16]]
NEW = 8
SECONDS = 120  # of one processor
PAGE = Path(__file__).resolve().parents[2] / "docs" / "transformers-models.md"


def attempt(kind: str, mapping: str) -> dict[str, Any]:
    """What became of one class: passed, or why not."""
    try:
        model = tiny_model(kind, mapping)
    except Exception as error:
        return {"status": "not built", "reason": _said(error)}
    try:
        reference = [_alone(model, prompt) for prompt in PROMPTS]
    except Exception as error:
        return {"status": "reference fails", "reason": _said(error)}
    try:
        wrapped = interop.wrap(model)
        mine = wrapped.generate(PROMPTS, max_new_tokens=NEW)
    except Exception as error:
        return {"status": "raises", "reason": _said(error)}
    found = {**_way(wrapped), "distinct": len({token for row in mine for token in row})}
    if [list(row) for row in mine] == reference:
        return {"status": "passes", **found}
    return {"status": "differs", "reason": f"{mine} for {reference}", **found}


def _way(wrapped: Any) -> dict[str, str]:
    """How its rows were brought together."""
    if wrapped.over_blocks is not None:
        return {"cache": "blocks", "padding": "end to end"}
    return {"cache": wrapped._adapted.way.cache, "padding": wrapped._adapted.way.padding}


def _alone(model: Any, prompt: list[int]) -> list[int]:
    """The reference: the model's own generate(), of one prompt."""
    return model.generate(torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False)[0].tolist()


def _said(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]} ({Path(where.filename).name}:{where.lineno})"


def in_a_process(kind: str, mapping: str) -> dict[str, Any]:
    """`attempt` in a fork of this process, ended after a while."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        used = int(sum(os.times()[:2]))
        resource.setrlimit(resource.RLIMIT_CPU, (used + SECONDS, used + SECONDS))
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        with os.fdopen(write, "w") as pipe:
            json.dump(attempt(kind, mapping), pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if told:
        return json.loads(told)
    return {"status": "killed", "reason": f"ended by signal {os.waitstatus_to_exitcode(status)}"}


def read_results(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What became of each class, by mapping and model type; later lines hold."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {(row["mapping"], row["kind"]): row for row in rows}


def main(path: Path, chosen: list[str]) -> None:
    """Tries the classes that are named, or all that have not been tried, and writes the page."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    done = read_results(path)
    for mapping in (CAUSAL, SEQ2SEQ):
        for kind, name in model_types(mapping).items():
            if kind not in chosen if chosen else (mapping, kind) in done:
                continue
            started = time.monotonic()
            row = {"mapping": mapping, "kind": kind, "class": name, **in_a_process(kind, mapping)}
            row["seconds"] = round(time.monotonic() - started, 1)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    PAGE.write_text(page(list(read_results(path).values())), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
