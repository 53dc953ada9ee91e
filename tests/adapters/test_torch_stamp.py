"""A module's stamp stands as long as nothing changed that its answers may depend on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from fabula.adapters.torch_stamp import module_stamp  # noqa: E402


class Adapting(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(3, 3)
        self.register_buffer("counts", torch.zeros(3))
        self.disabled, self.names, self.scales = False, ["first"], {"first": 1.0}


def _train(module: Any) -> None:
    torch.optim.SGD(module.parameters(), lr=0.1).zero_grad()
    module.inner(torch.ones(3)).sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()


CHANGES: dict[str, Callable[[Any], Any]] = {
    "a step of training": _train,
    "loaded weights": lambda module: module.load_state_dict(module.state_dict()),
    "a buffer": lambda module: module.counts.add_(1),
    "another type": lambda module: module.to(torch.float64),
    "another part": lambda module: setattr(module, "inner", torch.nn.Linear(3, 3)),
    "a switch": lambda module: setattr(module, "disabled", True),
    "a list": lambda module: module.names.append("second"),
    "a mapping": lambda module: module.scales.update(first=2.0),
    "a hook": lambda module: module.inner.register_forward_hook(lambda *given: None),
    "a hook before": lambda module: module.register_forward_pre_hook(lambda *given: None),
    "training": lambda module: module.train(not module.training),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_a_module_ends_its_stamp(change: str):
    module = Adapting()
    before = module_stamp(module)
    assert before.stands(module_stamp(module))
    CHANGES[change](module)
    assert not before.stands(module_stamp(module))


def test_a_call_changes_nothing():
    module = Adapting()
    before = module_stamp(module)
    module.inner(torch.ones(3))
    assert before.stands(module_stamp(module))


def test_marks_of_what_is_gone_mean_nothing():
    before = module_stamp(Adapting())
    assert not before.stands(before)
