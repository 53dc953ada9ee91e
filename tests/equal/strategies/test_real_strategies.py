"""The real models, their weights dequantized to float32: every strategy equals transformers', token for token.

make_references.py and make_real_references.py wrote what it gives. Greedy rows are held against it as the tests run.
"""

import json
from itertools import groupby

import pytest

from fabula import AutoModelForCausalLM
from tests.equal.comparison import Tally
from tests.equal.strategies.cases import references
from tests.equal.strategies.peer_cases import hold_case


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["smollm2", "gemma"])
def test_every_strategy_equals_transformers(name, request):
    """Each variant after one of its prompts, the next one each time."""
    path = request.getfixturevalue(f"{name}_gguf")
    model = AutoModelForCausalLM.from_pretrained(path, dtype="float32", backend="native", threads=1)
    tally, kept = Tally(), [*references(name)["cases"], *references(f"{name}-5")["cases"]]
    for turn, (_, cases) in enumerate(groupby(kept, key=lambda case: json.dumps(case["settings"]))):
        prompts = list(cases)
        case = prompts[turn % len(prompts)]
        drafter = {"assistant_model": model} if "num_assistant_tokens" in case["settings"] else {}
        hold_case(tally, name, model, case, **drafter)
    tally.settle()
