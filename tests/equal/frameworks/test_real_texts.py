"""One seed, one text: every framework writes with real models what PyTorch writes."""

from __future__ import annotations

import pytest

from tests.equal.frameworks.doors import DOORS, REFERENCE
from tests.equal.frameworks.reference import new_tokens, reference_of
from tests.equal.frameworks.runs import hold_tokens
from tests.equal.frameworks.texts import MIXED, mixed_call, texts_of


@pytest.fixture(scope="module", params=["smollm2_gguf", "gemma_gguf"])
def written(request):
    """A real model's file, and what PyTorch makes of a few texts."""
    path = request.getfixturevalue(request.param)
    return path, texts_of(path), reference_of(REFERENCE.load(path), texts_of(path), mixed_call(MIXED))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", DOORS)
def test_a_real_model_writes_what_it_writes_in_pytorch(written, backend, tally):
    """Greedy rows and rows that draw in one call; of the default model also one of them alone."""
    path, (ids, mask), right = written
    door, what = DOORS[backend], f"{path.stem} {backend}"
    model, last = door.load(path), len(MIXED) - 1
    with tally.case() as case:
        for first in (0, last) if "SmolLM2" in path.stem else (0,):
            rows = ids[first:], mask[first:]
            output = door.generate(model, rows, **mixed_call(MIXED[first:]))
            hold_tokens(case, f"{what} from {first}", right.since(first), new_tokens(door.on_host(output), rows[1]))
