"""One seed, one text: families whose every way test_every_way.py does not ask for give what PyTorch gives."""

from __future__ import annotations

import pytest

from tests.equal.frameworks.doors import DOORS
from tests.equal.frameworks.ways import CLOSED, CROSS_SECTION, OF_ENCODERS, WHOLE
from tests.equal.strategies.tiny import CONFIGURATIONS, ENCODERS

OTHERS = [family for family in CONFIGURATIONS if family != WHOLE]
STEPS = [(family, way) for family in OTHERS for way in (OF_ENCODERS if family in ENCODERS else CROSS_SECTION)]
TEXTS = [(family, way) for family in OTHERS for way in (("drawn", "drawn beams") if family in ENCODERS else CLOSED[:1])]


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize(("family", "way"), STEPS)
def test_ways_to_decode_give_what_they_give_in_pytorch(family, way, backend, table):
    table.hold_steps(family, way, backend)


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize(("family", "way"), TEXTS)
def test_many_steps_in_one_call_write_the_same_texts(family, way, backend, table):
    table.hold_texts(family, way, backend)


@pytest.mark.parametrize("backend", DOORS)
def test_a_decoders_keys_and_values_as_codes_write_the_same_texts(backend, table):
    table.hold_texts("t5", "codes of 4 bits", backend)


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize("family", OTHERS)
def test_a_row_alone_is_what_it_is_in_a_batch(family, backend, table):
    table.hold_row_alone(family, backend)


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize("family", OTHERS)
def test_texts_may_be_padded_on_the_right(family, backend, table):
    table.hold_padded_on_the_right(family, backend)
