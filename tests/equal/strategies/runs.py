"""What Fabula gives for one row of ids, held against what the installed transformers gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.equal.comparison import Tally
from tests.equal.strategies.cases import ended
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
    theirs: Any,
    ours: Sequence[Any],
    prompt: list[int],
    settings: Mapping[str, Any],
    extra: tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]] | None = None,
) -> None:
    """One prompt in transformers and in models of Fabula; `extra` arguments are theirs and those of each of ours."""
    more, own = extra or ({}, [{}] * len(ours))
    searching = settings.get("num_beams", 1) > 1
    reference = (beams if searching else one_token_a_step)(theirs, prompt, **settings, **more)
    for model, mine in zip(ours, own, strict=True):
        found = generated(model, prompt, **settings, **mine, **({"output_scores": True} if searching else {}))
        seen = f"{what} on {type(model).__name__}"
        if not searching:
            tally.stepwise(seen, reference.rows[0], reference.gaps, found.rows[0])
        elif tally.searched(seen, reference.rows, reference.gaps, found.rows):
            tally.scored(seen, reference.scores or [], found.scores)


def hold_families(
    tiny: Load,
    theirs: Load,
    variants: Sequence[Mapping[str, Any]],
    reading: Callable[[list[int]], list[int]] = list,
) -> None:
    """Every family and variant, one prompt in both backends and another in one; `reading` makes what is given."""
    tally = Tally()
    for family in FAMILIES:
        for prompt, backends in zip(prompts(family, 2), (BACKENDS, BACKENDS[:1]), strict=True):
            ours = [tiny(family, backend) for backend in backends]
            for settings in variants:
                given = {"max_new_tokens": NEW, **settings}
                hold_live(tally, f"{family} {settings}", theirs(family), ours, reading(prompt), given)
    tally.settle()
