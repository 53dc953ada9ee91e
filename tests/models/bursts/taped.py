"""Models on a GPU that is pretended, whose graphs are tapes, and the calls that they are tried with."""

from __future__ import annotations

from typing import Any

import torch

from fabula.models.bursts import torch as torch_burst
from fabula.models.bursts.torch_graph import Graphs
from fabula.models.encoders.torch import TorchSeq2SeqLM
from fabula.models.torch import TorchCausalLM
from tests.models.bursts.cases import (
    ASK,
    BEAMS,
    CONTRASTED,
    DIVERSE_BEAMS,
    DRAWN_BEAMS,
    FORCED_BEAMS,
    GUIDED,
    NEGATIVE,
    PLAIN,
    SAMPLED,
    prompts,
)
from tests.models.bursts.tape import TapeRecorder
from tests.models.configurations import FIRST
from tests.models.placement.pretended_devices import PretendedDevices

WINDOWS = ("mistral-window-of-blocks", "gemma3-pattern")
NAMES = (*(case.name for case in FIRST), *WINDOWS)
T5 = ("t5-1.1", "t5-few-buckets")
ENDS = list(range(0, 101, 9))  # one of which comes soon, in each row at another step
SHORT = {"max_new_tokens": 24}  # in which rows of the prompts begin blocks
CALLS = {
    "plain": {**PLAIN, **SHORT},
    "ends": {**PLAIN, **SHORT, "eos_token_id": ENDS},
    "sampled": {**SAMPLED, **SHORT},
    "drawn-ends": {**SHORT, "do_sample": True, "top_k": 0, "min_p": 0.02, "seed": 2, "eos_token_id": ENDS},
    "banned": {
        **PLAIN,
        **SHORT,
        "no_repeat_ngram_size": 2,
        "min_new_tokens": 9,
        "bad_words_ids": [[5], [6, 7]],
        "sequence_bias": [[[3], 1.5], [[4, 5], -2.0]],
        "suppress_tokens": [8, 9],
    },
    "guided": {**GUIDED, **SHORT},
    "contrasted": {**CONTRASTED, **SHORT},
    "both": {**GUIDED, **SHORT, "negative_prompt_ids": None, "dola_layers": [0], "do_sample": False},
}
SEARCHES = {
    "best": {**BEAMS, **SHORT},
    "drawn": {**DRAWN_BEAMS, **SHORT},
    "diverse": {**DIVERSE_BEAMS, **SHORT},
    "forced": {**FORCED_BEAMS, **SHORT},
    "guided": {**SHORT, **NEGATIVE, "do_sample": False, "num_beams": 3},
    "ends": {**SHORT, "do_sample": False, "num_beams": 4, "eos_token_id": ENDS, "early_stopping": True},
}


class Seq2SeqStepByStep(TorchSeq2SeqLM):
    burst = burst_beams = None


def unhurry(monkeypatch: Any) -> None:
    """What a real GPU would note is looked at at once, and time ends no burst."""
    monkeypatch.setattr(torch_burst, "noted", lambda flag: lambda: bool(flag.item()))
    monkeypatch.setattr(torch_burst, "LONG", 60.0)


def taped(parts: Any, kind: Any = TorchCausalLM, **settings: Any) -> tuple[Any, TapeRecorder]:
    """A model on a pretended GPU, and what its steps are captured by."""
    recorder = TapeRecorder()
    with PretendedDevices():
        model = kind.from_tensors(*parts, device="cuda:0", **settings).requires_grad_(False)
    model._graphs = Graphs(lambda device: recorder if device.type == "cuda" else None)
    return model, recorder


def texts(model: Any, rows: int = 3, **call: Any) -> list[list[int]]:
    """What the model makes of the first of three prompts of different lengths."""
    ids, mask = (torch.as_tensor(part[:rows]) for part in prompts())
    with PretendedDevices():
        return model.generate(ids, attention_mask=mask, **{**ASK, **call}).tolist()


def refusing(step: Any) -> Any:
    """A capture that fails."""
    raise RuntimeError("there is no room\nmore of it")
