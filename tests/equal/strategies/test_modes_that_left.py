"""Contrastive search, DoLa, diverse and constrained beams: token for token what transformers 4.55 gives.

make_references.py wrote the references and says how.
"""

import pytest

from tests.equal.comparison import Tally
from tests.equal.strategies.cases import SMALL, references
from tests.equal.strategies.peer_cases import hold_case
from tests.equal.strategies.runs import BACKENDS
from tests.equal.strategies.tiny import FAMILIES, prompts


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", SMALL)
def test_small_models_of_every_family_equal_the_peer(mode, backend, tiny):
    """All prompts in one backend, the longest of them in the other too."""
    tally = Tally()
    for family in FAMILIES:
        given = prompts(family) if backend == "native" else prompts(family)[-1:]
        for case in references(family)["cases"]:
            if case["mode"] == mode and case["prompt"] in given:
                hold_case(tally, family, tiny(family, backend), case)
    tally.settle()
