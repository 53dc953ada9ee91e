"""PyTorch's models whose bursts are watched: what each gave, and that no operation within waits for the device."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fabula import processors
from fabula.models.torch import TorchCausalLM
from fabula.watermark.synthid import SynthIDTextWatermarkLogitsProcessor
from tests.models.bursts.cases import ASK, prompts
from tests.models.configurations import read_parts

WAITS = {  # operations that bring a number to the host, or whose result's size is one
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "unique",
    "unique_consecutive",
    "_unique2",
}


class StepByStep(TorchCausalLM):
    burst = burst_beams = None


class InBursts(TorchCausalLM):
    """Notes of each burst how many tokens each row got; of beams, how many turns each group made, and if it ended.

    Beams go on in bursts on a CPU too.
    """

    bursts: list

    def burst(self, *arguments):
        new = super().burst(*arguments)
        self.bursts.append([len(part) for part in new])
        return new

    def burst_beams(self, *arguments):
        made = self.search_far(*arguments)
        self.bursts.append([(len(own), all(own.over)) for own in made])
        return made


def both(written, **settings):
    """A small model with bursts, and the same without."""
    parts = read_parts(written.directory)
    model, reference = (kind.from_tensors(*parts, **settings) for kind in (InBursts, StepByStep))
    model.bursts = []
    return model, reference


def hold_later_calls(model, reference, **call):
    """What a call's bursts leave in the cache, as blocks to be found and as a past, serves the calls after it."""
    ids, _ = prompts()
    once = model.generate(torch.as_tensor(ids), return_dict_in_generate=True, **{**ASK, **call})
    assert model.bursts
    later = {"max_new_tokens": 30, "do_sample": False, **ASK}
    expected = reference.generate(once.sequences, **later).tolist()
    assert model.generate(once.sequences, **later).tolist() == expected, "its prefix was found"
    assert model.generate(once.sequences, past_key_values=once.past_key_values, **later).tolist() == expected


class Unwaited(TorchDispatchMode):
    """Raises where an operation would have the host wait for a device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.partition(".")[0]
        assert name not in WAITS, f"{function} waits for the device"
        if name in ("index", "index_put", "index_put_"):
            assert all(each is None or each.dtype != torch.bool for each in args[1]), f"{function} counts what is true"
        result = function(*args, **(kwargs or {}))
        if name in ("_to_copy", "copy_"):
            assert result.device == args[-1].device, f"{function} goes from device to device"
        return result


def never_looking(condition, body, state):
    for _ in range(3):
        condition(state)
        state = body(state)
    return state


def unwaited_asarray(x, dtype, like=None):
    """On a GPU `asarray` sends from pinned memory, without waiting; here what is sent is nothing."""
    if isinstance(x, torch.Tensor) and x.device.type != "cpu":
        return x.to(getattr(torch, dtype))
    return torch.empty(np.shape(x), dtype=getattr(torch, dtype), device="meta")


def every_processor(number):
    """One of each kind that goes on by itself, with numbers of its own."""
    return processors.LogitsProcessorList(
        [
            processors.SequenceBiasLogitsProcessor({(3,): 1.0, (4, 5): -2.0}),
            processors.RepetitionPenaltyLogitsProcessor(1.0 + number / 10),
            processors.NoRepeatNGramLogitsProcessor(3),
            processors.NoBadWordsLogitsProcessor([[5], [6, 7]], [2]),
            processors.EncoderRepetitionPenaltyLogitsProcessor(1.0 + number / 10, [[3, 10 + number]]),
            processors.EncoderNoRepeatNGramLogitsProcessor(2, [[3, 10 + number, 11]]),
            processors.MinLengthLogitsProcessor(4 + number, [2]),
            processors.MinNewTokensLengthLogitsProcessor(3, 4 + number, [2]),
            processors.ForcedBOSTokenLogitsProcessor(1),
            processors.ForcedEOSTokenLogitsProcessor(50 + number, [2]),
            processors.InfNanRemoveLogitsProcessor(),
            processors.ExponentialDecayLengthPenalty((5, 1.0 + number / 10), [2], 3),
            processors.SuppressTokensLogitsProcessor([8]),
            processors.SuppressTokensAtBeginLogitsProcessor([9], 3 + number),
            processors.TemperatureLogitsWarper(0.5 + number),
            processors.TopKLogitsWarper(50 + number),
            processors.TopPLogitsWarper(0.9 - number / 100),
            processors.MinPLogitsWarper(0.01 * number),
            processors.TypicalLogitsWarper(0.9 - number / 100),
            processors.EpsilonLogitsWarper(0.0001 * number),
            processors.EtaLogitsWarper(0.0001 * number),
            processors.TopHLogitsWarper(0.5 + number / 100),
            processors.LogitNormalization(),
            SynthIDTextWatermarkLogitsProcessor(3, [11, 12, 13], 2**10, 0, 64),
        ]
    )
