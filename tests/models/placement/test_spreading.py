"""Parts are spread over devices in their order, evenly or one device after the other, and never beyond the room."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as some

from fabula.errors import OutOfMemoryError
from fabula.models.placement.spreading import spread_parts

LAYERS = [30, *[10] * 12, 1, 30]  # embeddings, layers, norm, head
ROOMY = {"cuda:0": 1000, "cuda:1": 1000, "cuda:2": 1000, "cpu": None}


def held(sizes, devices):
    return {
        device: sum(size for size, place in zip(sizes, devices, strict=True) if place == device) for device in devices
    }


@pytest.mark.parametrize("how", ["auto", "balanced"])
def test_gpus_share_evenly(how):
    assert held(LAYERS, spread_parts(LAYERS, ROOMY, how)) == {"cuda:0": 60, "cuda:1": 60, "cuda:2": 61}


def test_one_after_the_other_fills_the_first():
    assert set(spread_parts(LAYERS, ROOMY, "sequential")) == {"cuda:0"}
    room = {**ROOMY, "cuda:0": 55}
    assert held(LAYERS, spread_parts(LAYERS, room, "sequential")) == {"cuda:0": 50, "cuda:1": 131}


def test_the_first_gpu_may_be_spared():
    assert held(LAYERS, spread_parts(LAYERS, ROOMY, "balanced_low_0")) == {"cuda:1": 90, "cuda:2": 91}
    room = {"cuda:0": 1000, "cuda:1": 70, "cuda:2": 71}
    assert held(LAYERS, spread_parts(LAYERS, room, "balanced_low_0")) == {"cuda:0": 40, "cuda:1": 70, "cuda:2": 71}


def test_the_cpu_takes_what_no_gpu_can_hold():
    room = {"cuda:0": 50, "cuda:1": 40, "cpu": None}
    devices = spread_parts(LAYERS, room, "auto")
    assert held(LAYERS, devices) == {"cuda:0": 50, "cuda:1": 40, "cpu": 91}
    assert [device for device, _ in groupby(devices)] == ["cuda:0", "cuda:1", "cpu"]


def test_a_gpu_without_room_for_the_next_part_is_passed_over():
    assert spread_parts([30, 5], {"cuda:0": 20, "cuda:1": 40}, "auto") == ["cuda:1", "cuda:1"]


def test_what_fits_nowhere_is_refused_with_the_room_there_is():
    with pytest.raises(OutOfMemoryError, match=r"a model of 181 bytes does not fit: cuda:0 50 bytes, cpu 100 bytes"):
        spread_parts(LAYERS, {"cuda:0": 50, "cpu": 100}, "auto")


@given(
    some.lists(some.integers(0, 50), min_size=1, max_size=12),
    some.lists(some.integers(0, 120), min_size=1, max_size=4),
    some.sampled_from(["auto", "balanced_low_0", "sequential"]),
)
def test_no_device_holds_more_than_it_has_room_for_and_parts_stay_in_order(sizes, gpus, how):
    room = {**{f"cuda:{index}": size for index, size in enumerate(gpus)}, "cpu": None}
    devices = spread_parts(sizes, room, how)
    order = [list(room).index(device) for device in devices]
    assert order == sorted(order)
    assert all(room[device] is None or size <= room[device] for device, size in held(sizes, devices).items())
