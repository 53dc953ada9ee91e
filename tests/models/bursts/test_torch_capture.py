"""What is recorded is done again with the numbers of then; what cannot be recorded is noticed before."""

from __future__ import annotations

from functools import partial

import pytest

torch = pytest.importorskip("torch")

from fabula.models.bursts.torch_capture import Repeated  # noqa: E402  # needs torch
from tests.models.bursts.tape import Tape, TapeRecorder  # noqa: E402  # needs torch
from tests.models.placement.pretended_devices import PretendedDevices  # noqa: E402  # needs torch


class TestTape:
    """The tape itself: what would be wrong with a real graph is wrong with it."""

    @staticmethod
    def played(body, count=4):
        """What a state of two tensors holds after so many replays."""
        places = torch.arange(3.0), torch.zeros((), dtype=torch.int64)
        state = list(places)
        replay = TapeRecorder().capture(lambda: body(state))
        assert [place.tolist() for place in places] == [[0, 1, 2], 0], "nothing has happened yet"
        for _ in range(count):
            replay()
        return places[0].tolist(), places[1].item()

    def test_does_everything_again(self):
        def body(state):
            more = (state[0] * 2).clone()
            more.narrow(0, 1, 2).add_(state[1])
            state[0].copy_(more)
            state[1] += 1

        assert self.played(body) == ([0, 27, 43], 4)

    def test_does_not_see_numbers_of_the_host(self):
        def body(state):
            if int(state[1].numpy()) < 2:
                state[0].add_(1)
            state[1] += 1

        assert self.played(body) == ([4, 5, 6], 4), "run, it would have added twice"

    def test_does_not_see_what_takes_a_tensors_place(self):
        def body(state):
            state[1] = state[1] + 1
            state[0].copy_(state[0] + state[1])

        taped, _ = self.played(body)
        assert taped == [4, 5, 6], "run, it would have added 1, 2, 3 and 4"

    def test_leaves_nonsense_where_a_step_kept_what_it_made(self):
        kept = []

        def body(state):
            kept.append(state[0] + 1)
            state[1] += 1

        self.played(body)
        assert torch.isnan(kept[0]).all()

    def test_refuses_what_a_capture_refuses(self):
        with PretendedDevices():
            there = torch.zeros(3, device="cuda:0")
            sent = partial(torch.ones(2).to, "cuda:0")
            for step in (there.sum().item, there.cpu, sent):
                with pytest.raises(RuntimeError, match="not permitted"), Tape():
                    step()


def test_what_is_sent_from_the_host_is_sent_once():
    with PretendedDevices():
        step, there = Repeated(), torch.zeros(2, device="cuda:0")
        for _ in range(3):
            with step:
                there += torch.tensor([1.0, 2.0]).pin_memory().to("cuda:0", non_blocking=True)
        with Tape(), step:
            there += torch.tensor([1.0, 2.0]).pin_memory().to("cuda:0", non_blocking=True)
    assert step.obstacle is None and len(step.sent) == 1 and there.held.tolist() == [3, 6]
