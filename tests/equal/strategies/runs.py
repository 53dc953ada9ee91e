"""What Fabula gives for one row of ids, held against what the installed transformers gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.equal.strategies.cases import ended
from tests.equal.strategies.comparison import Tally
from tests.equal.strategies.live import Outcome, beams, one_token_a_step
from tests.equal.strategies.tiny import FAMILIES, prompts

BACKENDS = ("native", "torch")
NEW = 20
Load = Callable[..., Any]


def generated(model: Any, prompt: list[int], **settings: Any) -> Outcome:
    """What Fabula gives for one row of ids, without end tokens unless settings name one."""
    given = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None, "return_dict_in_generate": True, **settings}
    out = model.generate([prompt], **given)
    rows = [ended([int(token) for token in row[len(prompt) :]], given["eos_token_id"]) for row in out.sequences]
    return Outcome(rows, [], getattr(out, "sequences_scores", None))


def hold_live(
    tally: Tally,
    what: str,
    models: tuple[Any, Any],
    prompt: list[int],
    settings: Mapping[str, Any],
    extra: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {}),
) -> None:
    """One prompt in transformers and in Fabula: models and extra arguments are theirs and ours."""
    theirs, ours = models
    if settings.get("num_beams", 1) == 1:
        reference = one_token_a_step(theirs, prompt, **settings, **extra[0])
        row = generated(ours, prompt, **settings, **extra[1]).rows[0]
        tally.stepwise(what, reference.rows[0], reference.gaps, row)
        return
    reference = beams(theirs, prompt, **settings, **extra[0])
    found = generated(ours, prompt, **settings, output_scores=True, **extra[1])
    if tally.searched(what, reference.rows, reference.gaps, found.rows):
        tally.scored(what, reference.scores or [], found.scores)


def hold_families(
    tally: Tally,
    backend: str,
    tiny: Load,
    theirs: Load,
    variants: Sequence[Mapping[str, Any]],
    reading: Callable[[list[int]], list[int]] = list,
) -> None:
    """Every family, two prompts and every variant; `reading` makes the prompt that is given."""
    for family in FAMILIES:
        for prompt in prompts(family, 2):
            for settings in variants:
                given = {"max_new_tokens": NEW, **settings}
                models = theirs(family), tiny(family, backend)
                hold_live(tally, f"{family} {settings}", models, reading(prompt), given)
