"""One seed, one text: models with an encoder, in every way to decode that they know, give what PyTorch gives."""

from __future__ import annotations

import pytest

from tests.equal.frameworks.doors import DOORS
from tests.equal.frameworks.ways import OF_ENCODERS
from tests.equal.strategies.tiny import ENCODERS


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize("way", OF_ENCODERS)
@pytest.mark.parametrize("family", ENCODERS)
def test_every_way_to_decode_gives_what_it_gives_in_pytorch(family, way, backend, table):
    table.hold_steps(family, way, backend)


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize("way", ["drawn", "drawn beams"])
@pytest.mark.parametrize("family", ENCODERS)
def test_many_steps_in_one_call_write_the_same_texts(family, way, backend, table):
    table.hold_texts(family, way, backend)


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize("family", ENCODERS)
def test_a_row_alone_is_what_it_is_in_a_batch(family, backend, table):
    table.hold_row_alone(family, backend)


@pytest.mark.parametrize("backend", DOORS)
@pytest.mark.parametrize("family", ENCODERS)
def test_texts_may_be_padded_on_the_right(family, backend, table):
    table.hold_padded_on_the_right(family, backend)
