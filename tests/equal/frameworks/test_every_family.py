"""One seed, one text: families whose every way test_every_way.py does not ask for give what PyTorch gives."""

from __future__ import annotations

import pytest

from tests.equal.frameworks.doors import DOORS
from tests.equal.frameworks.ways import CLOSED, CROSS_SECTION, WHOLE
from tests.equal.strategies.tiny import FAMILIES

OTHERS = [family for family in FAMILIES if family != WHOLE]


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize("way", CROSS_SECTION)
@pytest.mark.parametrize("family", OTHERS)
def test_a_cross_section_of_ways_gives_what_it_gives_in_pytorch(family, way, backend, table):
    table.hold_steps(family, way, backend)


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize("family", OTHERS)
def test_many_steps_in_one_call_write_the_same_texts(family, backend, table):
    table.hold_texts(family, CLOSED[0], backend)


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize("family", OTHERS)
def test_a_row_alone_is_what_it_is_in_a_batch(family, backend, table):
    table.hold_row_alone(family, backend)


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize("family", OTHERS)
def test_prompts_may_be_padded_on_the_right(family, backend, table):
    table.hold_padded_on_the_right(family, backend)
