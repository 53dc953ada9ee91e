"""Makes the guide's pictures from runs of the default model: a beam search, a sampled text, marked and plain texts.

python docs/make_pictures.py
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
from drawing import Drawing

from fabula import AutoModelForCausalLM, AutoTokenizer, WatermarkDetector, WatermarkingConfig

FOLDER = Path(__file__).parent / "pictures"
OPENING = "The old lighthouse keeper opened the door and"
STORIES = ["The history of the old city begins with", OPENING, "Our trip to the mountains was", "The machine learned"]
COLUMN, ROW, BOX = 142, 42, 112


@dataclass
class Node:
    """A token of a search's tree."""

    text: str
    chance: float  # of the token after those before it
    ways: list[Node] = field(default_factory=list)
    kept: bool = False  # whether a beam that was returned goes through it
    won: bool = False
    y: float = 0.0


def beam_tree(model: Any, tokenizer: Any, beams: int = 3, steps: int = 5) -> Drawing:
    """The beams of a search, and the continuations of each that were not taken."""
    inputs = tokenizer([OPENING], return_tensors="np")
    output = model.generate(
        **inputs,
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=steps,
        return_dict_in_generate=True,
        output_scores=True,
    )
    root = Node("… " + " ".join(OPENING.split()[-2:]), 1.0, kept=True, won=True)
    start = inputs["input_ids"].shape[1]
    for place, (row, came_from) in enumerate(zip(output.sequences, output.beam_indices, strict=True)):
        node = root
        for step, (token, beam) in enumerate(zip(row[start:].tolist(), came_from.tolist(), strict=True)):
            node = _follow(node, token, output.scores[step][beam], tokenizer, won=place == 0)
    drawing = Drawing((steps + 1) * COLUMN + 16, _place(root, 0) * ROW + 52, "The tree of a beam search")
    drawing.text(16, 24, f"{beams} beams, {steps} tokens: the likeliest text as a whole wins", "soft", "start")
    _draw(drawing, root, 0)
    return drawing


def _follow(node: Node, token: int, scores: np.ndarray, tokenizer: Any, won: bool) -> Node:
    """The node's continuation by a token; the first visit adds the two likeliest ones too."""
    if not node.ways:
        likeliest = np.argsort(-scores, kind="stable")[:2].tolist()
        node.ways = [Node(_shown(tokenizer, one), exp(scores[one])) for one in likeliest]
    text = _shown(tokenizer, token)
    found = next((way for way in node.ways if way.text == text), None)
    if found is None:
        found = Node(text, exp(scores[token]))
        node.ways.append(found)
    found.kept, found.won = True, found.won or won
    return found


def _place(node: Node, first: int) -> int:
    """Puts the leaves on lines of their own from `first` on, and each node between its own; the next free line."""
    if not node.ways:
        node.y = first
        return first + 1
    for way in node.ways:
        first = _place(way, first)
    node.y = (node.ways[0].y + node.ways[-1].y) / 2
    return first


def _draw(drawing: Drawing, node: Node, depth: int) -> None:
    x, y = 16 + depth * COLUMN, 60 + node.y * ROW
    for way in node.ways:
        colour, width = ("first", 2.5) if way.won else ("soft", 1.5) if way.kept else ("line", 1)
        drawing.curve((x + BOX, y), (x + COLUMN, 60 + way.y * ROW), colour, width)
        _draw(drawing, way, depth + 1)
    drawing.box(x, y - 15, BOX, 30, "pale" if node.won else "page", "first" if node.won else "line")
    drawing.text(x + 8, y + 4, node.text, "bold" if node.won else "" if node.kept else "soft", "start")
    if depth:
        drawing.text(x + BOX - 8, y + 4, _percent(node.chance), "small soft", "end")


def token_probabilities(model: Any, tokenizer: Any, count: int = 11) -> Drawing:
    """The probability of each token of a sampled text, and of the likeliest other one."""
    inputs = tokenizer([OPENING], return_tensors="np")
    start = inputs["input_ids"].shape[1]
    output = model.generate(
        **inputs,
        do_sample=True,
        temperature=0.8,
        top_p=0.95,
        seed=7,
        max_new_tokens=count,
        return_dict_in_generate=True,
        output_log_probabilities=True,
        top_log_probabilities=2,
    )
    drawing = Drawing(count * 78 + 32, 268, "Probabilities of the tokens of a sampled text")
    drawing.text(16, 24, "what was drawn", "first bold", "start")
    drawing.text(164, 24, "and the likeliest other token", "soft", "start")
    chosen = zip(output.sequences[0, start:].tolist(), output.log_probabilities[0].tolist(), strict=True)
    for place, ((token, value), top) in enumerate(zip(chosen, output.top_log_probabilities[0], strict=True)):
        other, other_value = next(pair for pair in top if pair[0] != token)
        x = 16 + place * 78
        _bar(drawing, x + 10, exp(value), "first", _shown(tokenizer, token), 232)
        _bar(drawing, x + 42, exp(other_value), "line", _shown(tokenizer, other), 250)
    return drawing


def _bar(drawing: Drawing, x: float, chance: float, colour: str, token: str, line: float) -> None:
    height = max(1.0, 150 * chance)
    kind = "first bold" if colour == "first" else "soft small"
    drawing.box(x, 206 - height, 26, height, colour)
    drawing.text(x + 13, 200 - height, _percent(chance), f"small {kind}")
    drawing.text(x + (29 if colour == "first" else -3), line, token, kind)


def watermark_score(model: Any, tokenizer: Any, most: int = 120) -> Drawing:
    """z-scores of marked and plain texts as they grow."""
    mark = WatermarkingConfig(hashing_key=8191)
    detector = WatermarkDetector(model.config, "cpu", mark, ignore_repeated_ngrams=True)
    drawing = Drawing(820, 380, "z-scores of marked and plain texts")
    x_of, y_of = (lambda tokens: 56 + 640 * tokens / most), (lambda z: 300 - 26 * z)
    for z in range(-2, 11, 2):
        drawing.path([(56, y_of(z)), (696, y_of(z))], "line", 1)
        drawing.text(46, y_of(z) + 4, str(z), "soft small", "end")
    for tokens in range(0, most + 1, 20):
        drawing.text(x_of(tokens), 372, str(tokens), "soft small")
    drawing.path([(56, y_of(3)), (696, y_of(3))], "ink", 1, "5 4")
    drawing.text(704, y_of(3) + 4, "z = 3", "small", "start")
    drawing.text(16, 24, "z-score: green tokens beyond chance, against the tokens read", "soft", "start")
    for config, colour, words in ((None, "second", "without"), (mark, "first", "with the mark")):
        ends = []
        for text in STORIES:
            ids = tokenizer(text)["input_ids"]
            call = dict(do_sample=True, seed=[7], max_new_tokens=most, eos_token_id=None)
            new = model.generate([ids], watermarking_config=config, **call)[0][len(ids) :]
            scores = [(n, float(detector([new[:n]], return_dict=True).z_score[0])) for n in range(8, most + 1, 4)]
            drawing.path([(x_of(n), y_of(z)) for n, z in scores], colour, 2)
            ends.append(scores[-1][1])
        drawing.text(704, y_of(float(np.mean(ends))) + 4, words, f"{colour} bold", "start")
    return drawing


def _percent(chance: float) -> str:
    return "<1%" if chance < 0.005 else f"{chance:.0%}"


def _shown(tokenizer: Any, token: int) -> str:
    """A token's text without its space; what cannot be seen by name."""
    return tokenizer.decode([token]).strip() or "↵"


def main() -> None:
    """Writes the pictures."""
    model = AutoModelForCausalLM.from_pretrained("SmolLM2-135M-Instruct")
    tokenizer = AutoTokenizer.from_pretrained("SmolLM2-135M-Instruct")
    FOLDER.mkdir(exist_ok=True)
    for draw in (beam_tree, token_probabilities, watermark_score):
        name = draw.__name__.replace("_", "-")
        (FOLDER / f"{name}.svg").write_text(draw(model, tokenizer).svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
