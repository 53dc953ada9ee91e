"""DoLa: a token is worth how much likelier the last layer finds it than an earlier one does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

from fabula import arrays
from fabula.decoding.sample import check_chosen, choose_tokens
from fabula.decoding.strategy import Choice, Turn
from fabula.errors import ArgumentError
from fabula.taps import Taps

__all__ = ["LayerContrast", "premature_layers"]

SHARE = 0.1  # of the likeliest token's probability: what is less likely is no candidate
BASE = -1e-3  # what the earlier layer's log-probability counts as there


@dataclass(frozen=True, slots=True)
class LayerContrast:
    """Chuang et al. 2023, "DoLa: decoding by contrasting layers improves factuality", section 2.

    Of the layers, each row takes the one whose distribution lies farthest from the last layer's; the scores are the
    difference of the two log-probabilities where the last layer gives a token at least a share of its likeliest one's
    probability, else -inf; where the processors forbid all of those, any token they allow is a candidate. The
    divergence is that of transformers 4: KL(M, P) + KL(M, Q) with M the mean of the two.
    """

    layers: tuple[int, ...]  # after which so many layers the head is asked too; 0: the embeddings
    share: float = SHARE

    @property
    def taps(self) -> Taps:
        """The head's answers after these layers."""
        return Taps(layer_logits=self.layers)

    def choose(self, turn: Turn) -> Choice:
        """The tokens of R rows. Raises NumericalError where a row's scores hold no finite number."""
        xp = arrays.of(turn.logits)
        assert turn.tapped.layer_logits is not None
        early = [xp.astype(turn.tapped.layer_logits[layer], "float32") for layer in self.layers]
        logits = xp.astype(turn.logits, "float32")
        last, base = _compared(xp, logits, early)
        scores = turn.processed(self._likely(xp, last, base))
        lost = xp.max(scores, keepdims=True) == float("-inf")
        if xp.to_host(lost).any():  # what is likely enough is forbidden: then any token that is not will do
            scores = xp.where(lost, turn.processed(last - base), scores)
        tokens = choose_tokens(xp, scores, turn.draw)
        check_chosen(xp, scores, tokens)
        return Choice(tokens, scores)

    def contrasted(self, xp: Any, logits: Any, early: Sequence[Any]) -> Any:
        """Float32["R V"]: the scores of likely tokens, from float32 logits after the last layer and these layers."""
        return self._likely(xp, *_compared(xp, logits, early))

    def _likely(self, xp: Any, last: Any, base: Any) -> Any:
        """Float["R V"], from the two layers' log-probabilities."""
        dropped = last < xp.max(last, keepdims=True) + log(self.share)
        return xp.where(dropped, float("-inf"), last) - xp.where(dropped, BASE, base)


def _compared(xp: Any, logits: Any, early: Sequence[Any]) -> tuple[Any, Any]:
    """Float["R V"] twice: the log-probabilities of the last layer, and of the one that each row is contrasted with."""
    return xp.log_softmax(logits), xp.log_softmax(_farthest(xp, logits, early))


def _farthest(xp: Any, logits: Any, early: Sequence[Any]) -> Any:
    """Float["R V"]: for each row, of the early logits those that lie farthest from its own; the first of equals."""
    if len(early) == 1:
        return early[0]
    chosen, distance = early[0], _divergence(xp, logits, early[0])
    for candidate in early[1:]:
        further = _divergence(xp, logits, candidate)
        farther = further > distance
        chosen = xp.where(farther[:, None], candidate, chosen)
        distance = xp.where(farther, further, distance)
    return chosen


def _divergence(xp: Any, x: Any, y: Any) -> Any:
    """Float["R"]: how far the distributions of two logits lie apart."""
    middle = (xp.softmax(x) + xp.softmax(y)) * 0.5
    away = xp.log(middle) * 2 - xp.log_softmax(x) - xp.log_softmax(y)
    return xp.sum(xp.where(middle > 0, middle * away, 0.0))


def premature_layers(asked: str | Sequence[int], layers: int, tied: bool) -> tuple[int, ...]:
    """The layers that `dola_layers` means in a model of so many: every second of the lower or of the upper ones, or
    those listed. Where the embeddings are the head, after none of the layers the head gives the input back: then the
    lower ones start at 2 (at 1 or 0 in models of two layers or one).

    Raises ArgumentError where none of those listed comes before the last.
    """
    half, reach = layers // 2, 20
    if asked == "low":
        start = (2 if layers > 2 else layers - 1) if tied else 0
        return tuple(range(start, half if layers <= 2 * reach else reach, 2)) or (start,)
    if asked == "high":
        return tuple(range(half if layers <= 2 * reach else layers - reach, layers, 2))
    chosen = () if isinstance(asked, str) else tuple(dict.fromkeys(layer for layer in asked if 0 <= layer < layers))
    if not chosen:
        raise ArgumentError(
            f"`dola_layers` must be 'low', 'high' or a list of layers in [0, {layers}), got {asked!r}. Try 'high'."
        )
    return chosen
