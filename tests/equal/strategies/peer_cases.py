"""The committed cases of the modes that left transformers, run by Fabula and held against what the peer gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fabula import DisjunctiveConstraint, PhrasalConstraint
from tests.equal.comparison import Tally
from tests.equal.strategies.cases import with_constraints
from tests.equal.strategies.runs import generated

KINDS = {"phrasal": PhrasalConstraint, "disjunctive": DisjunctiveConstraint}


def hold_case(tally: Tally, name: str, model: Any, case: Mapping[str, Any], **more: Any) -> None:
    """One case of the committed references; `more` is given to generate() too."""
    what = f"{name} {case['settings']} after {len(case['prompt'])} ids"
    settings = with_constraints(case["settings"], KINDS)
    if "ranking_gap" not in case:
        row = generated(model, case["prompt"], **settings, **more).rows[0]
        tally.stepwise(what, case["rows"][0], case["gaps"], row)
        return
    ours = generated(model, case["prompt"], output_scores=True, **settings)
    if tally.searched(what, case["rows"], [*case["gaps"], case["ranking_gap"]], ours.rows):
        tally.scored(what, case["scores"], ours.scores)
