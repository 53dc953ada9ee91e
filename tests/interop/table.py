"""Tries every class of transformers' causal and sequence-to-sequence mappings, and writes docs/transformers-models.md.

    python -m tests.interop.table [model types ...]

Each class is tried in a process of its own, with a time limit: a small random model generates greedily from two prompts
of different lengths, through Fabula in one batch and through its own generate() alone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

from fabula import interop

from .tiny_models import CAUSAL, SEQ2SEQ, model_types, tiny_model

PROMPTS = [[5, 6, 7, 8, 9, 11, 12, 13], [14, 15, 16]]
NEW = 8
SECONDS = 240
PAGE = Path(__file__).resolve().parents[2] / "docs" / "transformers-models.md"
RESULTS = Path(os.environ.get("RESULTS", "build/transformers-models.jsonl"))


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
    way = wrapped._adapted.way
    found = {"cache": way.cache, "padding": way.padding, "distinct": len({token for row in mine for token in row})}
    if [list(row) for row in mine] == reference:
        return {"status": "passes", **found}
    return {"status": "differs", "reason": f"{mine} for {reference}", **found}


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
        signal.alarm(SECONDS)
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


def main(chosen: list[str]) -> None:
    """Tries the classes and appends what became of them to the results; then writes the page."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    for mapping in (CAUSAL, SEQ2SEQ):
        for kind, name in model_types(mapping).items():
            if chosen and kind not in chosen and mapping not in chosen:
                continue
            started = time.monotonic()
            row = {"mapping": mapping, "kind": kind, "class": name, **in_a_process(kind, mapping)}
            row["seconds"] = round(time.monotonic() - started, 1)
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
