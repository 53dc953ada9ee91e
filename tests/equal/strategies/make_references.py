"""Writes references/: the modes that transformers 5 moved out, as 4.55 runs them, the last that has all in its core.

    python3.11 -m venv peer && peer/bin/pip install torch==2.13.0 transformers==4.55.4 gguf
    PYTHONPATH=src:. peer/bin/python tests/equal/strategies/make_references.py [model ...]

A model is a family of tiny.py, "smollm2" or "gemma" (their GGUF files, read to float32, must be in Fabula's cache).
One fault of the peer is mended: a copy of a DisjunctiveConstraint shared its progress with the original.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from transformers.generation import beam_search, utils
from transformers.generation.beam_constraints import DisjunctiveConstraint, PhrasalConstraint

from fabula import AutoTokenizer
from fabula.hub.cache_folder import cache_folder
from tests.equal.strategies.cases import REAL_FILES, REFERENCES, ended, real_cases, small_cases, with_constraints
from tests.equal.strategies.tiny import FAMILIES, write_tiny

KINDS = {"phrasal": PhrasalConstraint, "disjunctive": DisjunctiveConstraint}
MOST = 99.0  # a gap is at most this, so that it can be written where there was no second choice


class Gaps:
    """How far apart the deciding scores were: the least of each step, and of the final ranking."""

    def __init__(self) -> None:
        self.steps: dict[int, float] = {}
        self.ranking = MOST

    def note(self, step: int, gap: float) -> None:
        self.steps[step] = min(gap, self.steps.get(step, MOST))


def observe(gaps: Gaps) -> None:
    """Make the peer's own functions note how close their choices were."""
    for watch in (watch_contrastive, watch_layers, watch_beams, watch_ranking):
        watch(gaps)


def watch_contrastive(gaps: Gaps) -> None:
    rank = original(utils, "_ranking_fast")

    def watched(context: Any, hidden: Any, probabilities: Any, mask: Any, alpha: float, width: int) -> Any:
        unit = [each / each.norm(dim=2, keepdim=True) for each in (context, hidden)]
        likeness = (unit[0] @ unit[1].transpose(1, 2)).squeeze(-1).masked_fill(mask == 0, -torch.inf).max(-1).values
        scores = (1 - alpha) * probabilities.reshape(-1) - alpha * likeness
        gaps.note(len(gaps.steps), lead(scores))
        return rank(context, hidden, probabilities, mask, alpha, width)

    utils._ranking_fast = watched


def watch_layers(gaps: Gaps) -> None:
    select = original(utils, "_dola_select_contrast")

    def watched(layers: list[int], early: dict[int, Any], final: Any) -> Any:
        if len(layers) > 1:
            apart = torch.tensor([divergence(early[layer], final) for layer in layers])
            gaps.note(len(gaps.steps), lead(apart / apart.max()))
        return select(layers, early, final)

    utils._dola_select_contrast = watched


def divergence(early: Any, final: Any) -> float:
    """What the peer ranks layers by."""
    first, second = final.log_softmax(-1), early.log_softmax(-1)
    middle = (first.exp() + second.exp()) / 2
    parts = [torch.nn.functional.kl_div(each, middle, reduction="none").mean() for each in (first, second)]
    return float(sum(parts))


def watch_beams(gaps: Gaps) -> None:
    for scorer in (beam_search.BeamSearchScorer, beam_search.ConstrainedBeamSearchScorer):
        process = original(scorer, "process")

        def watched(self: Any, ids: Any, scores: Any, tokens: Any, *rest: Any, process: Any = process, **more: Any):
            if not self._done[more.get("group_index", 0)]:
                ends = more["eos_token_id"]
                ends = [] if ends is None else ends.tolist()
                step = ids.shape[1] + 1 - more["decoder_prompt_len"]
                gaps.note(step - 1, border(scores[0].tolist(), tokens[0].tolist(), ends, self.group_size))
            return process(self, ids, scores, tokens, *rest, **more)

        scorer.process = watched


def border(scores: list[float], tokens: list[int], ends: list[int], width: int) -> float:
    """The gap between the last candidate that was kept and the first that was not, end tokens seen by their rank."""
    kept = [place for place, token in enumerate(tokens) if token not in ends][:width]
    places = {kept[-1]} if set(tokens[width - 1 : width + 1]).isdisjoint(ends) else {kept[-1], width - 1}
    return min((scores[place] - scores[place + 1] for place in places if place + 1 < len(scores)), default=MOST)


def watch_ranking(gaps: Gaps) -> None:
    for scorer in (beam_search.BeamSearchScorer, beam_search.ConstrainedBeamSearchScorer):
        finalize = original(scorer, "finalize")

        def watched(self: Any, *rest: Any, finalize: Any = finalize, **more: Any) -> Any:
            result = finalize(self, *rest, **more)
            ranked = sorted((beam[0] for each in self._beam_hyps for beam in each.beams), reverse=True)
            ranked = ranked[: self.num_beam_hyps_to_keep + 1]
            gaps.ranking = min((a - b for a, b in pairwise(ranked)), default=MOST)
            return result

        scorer.finalize = watched


ORIGINALS: dict[tuple[Any, str], Callable[..., Any]] = {}


def original(owner: Any, name: str) -> Callable[..., Any]:
    """The peer's own function, whoever watches it already."""
    return ORIGINALS.setdefault((owner, name), getattr(owner, name))


def mend() -> None:
    """Give a copied constraint its own progress."""
    copy = DisjunctiveConstraint.copy

    def apart(self: Any, stateful: bool = False) -> Any:
        new = copy(self, stateful)
        new.current_seq = list(new.current_seq)
        return new

    DisjunctiveConstraint.copy = apart


def lead(scores: Any) -> float:
    """The best score less the next."""
    best = torch.topk(scores.double(), 2).values
    return float(best[0] - best[1])


def run(model: Any, mode: str, prompt: list[int], settings: dict[str, Any]) -> dict[str, Any]:
    """One case with what the peer makes of it."""
    gaps = Gaps()
    observe(gaps)
    given = with_constraints(settings, KINDS)
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        pad_token_id=0,
        output_scores=True,
        return_dict_in_generate=True,
        trust_remote_code=True,  # says only that one knows of the move
        **given,
    )
    if mode == "contrastive":
        note_borders(gaps, out.scores, settings["top_k"])
    if mode == "layers":
        for step, scores in enumerate(out.scores):
            gaps.note(step, min(lead(scores[0]), MOST))
    rows = [ended(row[len(prompt) :], settings["eos_token_id"]) for row in out.sequences.tolist()]
    case = {"mode": mode, "settings": settings, "prompt": prompt, "rows": rows}
    if mode in ("groups", "constrained"):
        case["scores"] = [round(score, 6) for score in out.sequences_scores.tolist()]
    case["gaps"] = [float(f"{gaps.steps[step]:.2g}") for step in sorted(gaps.steps)]
    if mode in ("groups", "constrained"):
        case["ranking_gap"] = float(f"{gaps.ranking:.2g}")
    return case


def note_borders(gaps: Gaps, scores: Any, width: int) -> None:
    """Which tokens were candidates at all."""
    for step, each in enumerate(scores):
        best = torch.topk(each[0].softmax(-1), width + 1).values
        gaps.note(step, float(best[-2] - best[-1]))


def small(family: str, folder: Path) -> Iterator[dict[str, Any]]:
    directory = write_tiny(family, folder / family)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, torch_dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    for case in small_cases(family):
        yield run(model, *case)


def real(name: str) -> Iterator[dict[str, Any]]:
    path = cache_folder() / REAL_FILES[name]
    tokenizer = AutoTokenizer.from_pretrained(path)
    load = transformers.AutoModelForCausalLM.from_pretrained
    model = load(path.parent, gguf_file=path.name, torch_dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    for case in real_cases(name, lambda text, special: tokenizer.encode(text, add_special_tokens=special)):
        yield run(model, *case)


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    mend()
    REFERENCES.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        for name in names or [*FAMILIES, *REAL_FILES]:
            cases = real(name) if name in REAL_FILES else small(name, Path(folder))
            lines = ",\n".join(json.dumps(case) for case in cases)
            peer = json.dumps({"transformers": transformers.__version__, "torch": torch.__version__})
            text = f'{{"peer": {peer},\n"cases": [\n{lines}\n]}}\n'
            (REFERENCES / f"{name}.json").write_text(text, encoding="utf-8")
            print(name, text.count("\n") - 3, "cases", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
