"""Writes docs/reference.md from the signatures and docstrings of what may be imported.

python docs/make_reference.py
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import fabula
from fabula.generation.settings.fields import FIELDS

PAGE = Path(__file__).parent / "reference.md"
INTRODUCTION = """# Reference

Every public name, by what it is for. `docs/make_reference.py` writes this page from signatures and docstrings. Names
without a module are imported from `fabula`; the others say where they live. Shapes are written as `Float["R V"]`:
R rows, V tokens of the vocabulary, L tokens of a row, D features, K drafts. Intervals are written `[start, end)`.
"""

# Chapter -> its names: those of `fabula`, or module:name below it.
CHAPTERS: dict[str, str] = {
    "Loading": """
        AutoModelForCausalLM AutoModelForSeq2SeqLM FlaxAutoModelForCausalLM
        FlaxAutoModelForSeq2SeqLM TFAutoModelForCausalLM TFAutoModelForSeq2SeqLM
        AutoTokenizer AutoConfig ModelConfig BitsAndBytesConfig interop:wrap
    """,
    "Generating": """
        GenerationMixin FlaxGenerationMixin TFGenerationMixin
        pipeline TextGenerationPipeline Text2TextGenerationPipeline set_seed
    """,
    "Settings": """
        GenerationConfig GenerationMode generation.settings.explain:Explanation generation.settings.explain:Explained
        CompileConfig
    """,
    "Results": """
        ModelOutput GenerateDecoderOnlyOutput GenerateBeamDecoderOnlyOutput GenerateEncoderDecoderOutput
        GenerateBeamEncoderDecoderOutput generation.batch:GenerationOutput generation.batch:RequestStatus
    """,
    "Caches": """
        Cache DynamicCache StaticCache QuantizedCache EncoderDecoderCache generation.past.handle:GeneratedPast
        generation.past.handle:KeysAndValues
    """,
    "Text and ids": """
        text.tokenizer:Tokenizer BatchEncoding
    """,
    "Streamers": """
        BaseStreamer TextStreamer TextIteratorStreamer AsyncTextIteratorStreamer generation.results.streamers:RowText
    """,
    "Logits processors": """
        LogitsProcessor LogitsProcessorList TemperatureLogitsWarper TopKLogitsWarper TopPLogitsWarper
        MinPLogitsWarper TopHLogitsWarper TypicalLogitsWarper EpsilonLogitsWarper EtaLogitsWarper
        RepetitionPenaltyLogitsProcessor EncoderRepetitionPenaltyLogitsProcessor NoRepeatNGramLogitsProcessor
        EncoderNoRepeatNGramLogitsProcessor SequenceBiasLogitsProcessor NoBadWordsLogitsProcessor
        MinLengthLogitsProcessor MinNewTokensLengthLogitsProcessor SuppressTokensLogitsProcessor
        SuppressTokensAtBeginLogitsProcessor ForcedBOSTokenLogitsProcessor ForcedEOSTokenLogitsProcessor
        ExponentialDecayLengthPenalty PrefixConstrainedLogitsProcessor HammingDiversityLogitsProcessor
        UnbatchedClassifierFreeGuidanceLogitsProcessor ClassifierFreeGuidanceLogitsProcessor LogitNormalization
        InfNanRemoveLogitsProcessor
    """,
    "Stopping criteria": """
        StoppingCriteria StoppingCriteriaList MaxLengthCriteria MaxTimeCriteria StopStringCriteria
        EosTokenCriteria ConfidenceCriteria validate_stopping_criteria
    """,
    "Constraints": """
        Constraint PhrasalConstraint DisjunctiveConstraint ConstraintListState
    """,
    "Watermarks": """
        BaseWatermarkingConfig WatermarkingConfig SynthIDTextWatermarkingConfig WatermarkLogitsProcessor
        SynthIDTextWatermarkLogitsProcessor WatermarkDetector WatermarkDetectorOutput SynthIDTextScoreDetector
        SynthIDTextScoreDetectorOutput SynthIDTextWatermarkDetector BayesianDetectorModel BayesianDetectorConfig
        BayesianWatermarkDetectorModelOutput watermark.training:train
    """,
    "Loops of your own": """
        generation.custom:next_inputs generation.custom:with_outputs
    """,
    "Errors": """
        FabulaError ArgumentError UnknownArgumentError ContextLengthError NotSupportedError ModelFileError
        DownloadError TemplateError MissingDependencyError GenerationError NumericalError OutOfMemoryError
        CancelledError
    """,
    "Inside: ways to decode": """
        decoding.strategy:Strategy decoding.strategy:Search decoding.strategy:Drafter decoding.strategy:Turn
        decoding.strategy:Choice decoding.strategy:Move decoding.strategy:Hypothesis decoding.strategy:Draftable
        decoding.strategy:Draw decoding.strategy:Tapped taps:Taps context:Context
    """,
}


def reference() -> str:
    """The page."""
    contents = "".join(f"- [{title}](#{_anchor(title)})\n" for title in CHAPTERS)
    chapters = [f"## {title}\n\n" + "\n".join(map(_entry, names.split())) for title, names in CHAPTERS.items()]
    return "\n".join([INTRODUCTION, contents, *chapters])


def _entry(name: str) -> str:
    """One name with all that belongs to it."""
    module, _, own = name.rpartition(":")
    home = import_module(f"fabula.{module}") if module else fabula
    thing = getattr(home, own)
    where = f"`fabula.{module}`\n\n" if module else ""
    lines = [f"### {own}\n\n{where}", _code(own, thing), _prose(thing)]
    if own == "GenerationConfig":
        lines.append(_settings())
    if inspect.isclass(thing):
        lines += [_fields(thing), *(_member(*pair) for pair in _members(thing))]
    return "".join(lines).rstrip("\n") + "\n"


def _code(name: str, thing: Any, prefix: str = "") -> str:
    """How it is called, as a block; of a class that takes what its base takes, the class alone."""
    kind = "class " if inspect.isclass(thing) else prefix
    plain = inspect.isclass(thing) and (
        issubclass(thing, (Enum, BaseException)) or getattr(thing, "_is_protocol", False)
    )
    bases = [base.__name__ for base in thing.__bases__ if _is_ours(base)] if inspect.isclass(thing) else []
    below = f"  # a {', '.join(bases)}" if bases else ""
    return f"```py\n{kind}{name}{'' if plain else _signature(thing)}{below}\n```\n\n"


def _signature(thing: Any) -> str:
    """What it takes and gives; nothing of a class that is not made by its own means."""
    if inspect.isclass(thing) and not any(map(inspect.isfunction, (thing.__init__, thing.__new__))):
        return ""
    signature = inspect.signature(thing)
    parts, marked = [], False
    for place, parameter in enumerate(signature.parameters.values()):
        if place == 0 and parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not marked:
            parts.append("*")
        marked = marked or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        parts.append(_parameter(parameter))
    returned = signature.return_annotation
    arrow = "" if returned in (signature.empty, "None", None) or inspect.isclass(thing) else f" -> {_type(returned)}"
    line = f"({', '.join(parts)}){arrow}"
    return line if len(line) <= 90 else "(\n" + "".join(f"    {part},\n" for part in parts) + f"){arrow}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    typed = "" if parameter.annotation is parameter.empty else f": {_type(parameter.annotation)}"
    if parameter.default is parameter.empty:
        return f"{stars}{parameter.name}{typed}"
    shown = repr(parameter.default)
    shown = "..." if len(shown) > 40 or shown.startswith("<") else shown
    return f"{parameter.name}{typed} = {shown}"


def _type(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _prose(thing: Any) -> str:
    """The docstring of a thing's own, with what Markdown would take for markup escaped outside of code."""
    own = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    if not own or own.startswith(f"{getattr(thing, '__name__', '')}("):  # what dataclasses make up
        return ""
    pieces = re.split(r"(`[^`]*`)", inspect.cleandoc(own))
    return "".join(piece if piece.startswith("`") else re.sub(r"([*<|])", r"\\\1", piece) for piece in pieces) + "\n\n"


def _fields(owner: type) -> str:
    """The fields of a dataclass or a protocol with their comments, the members of an enumeration."""
    if issubclass(owner, Enum):
        return "".join(f"- `{member.name}`: {member.value!r}\n" for member in owner) + "\n"
    if not is_dataclass(owner):
        return ""
    lines = textwrap.dedent(inspect.getsource(owner)).splitlines()
    (tree,) = ast.parse("\n".join(lines)).body
    assert isinstance(tree, ast.ClassDef)
    found = ""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and not ast.unparse(node.target).startswith("_"):
            assert node.end_lineno is not None
            comment = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode().strip(" #")
            typed = "" if node.annotation is None else f": {ast.unparse(node.annotation)}"
            found += f"- `{ast.unparse(node.target)}{typed}`" + (f": {comment}" if comment else "") + "\n"
    return f"{found}\n" if found else ""


def _members(owner: type) -> Iterator[tuple[str, Any]]:
    """What a class, or a base of it that has no name for others, defines and explains."""
    if issubclass(owner, BaseException):
        return
    seen = set()
    for place in owner.__mro__:
        if place is owner or (place.__name__.startswith("_") and _is_ours(place)):
            for name, value in vars(place).items():
                meant = getattr(value, "__name__", name)  # not that of another, such as a refusal for many names
                if name in seen or not _doc(value) or any(map(_hidden, (name, meant))):
                    continue
                seen.add(name)
                yield name, value


def _hidden(name: str) -> bool:
    return name.startswith("_") and name != "__call__"


def _doc(value: Any) -> str | None:
    explained = (property, cached_property, classmethod, staticmethod)
    return value.__doc__ if isinstance(value, explained) or inspect.isfunction(value) else None


def _member(name: str, value: Any) -> str:
    if isinstance(value, (property, cached_property)):
        made = value.fget if isinstance(value, property) else value.func
        typed = getattr(made, "__annotations__", {}).get("return")
        return f"**`.{name}`**{f' `{_type(typed)}`' if typed else ''}: {_prose(value)}"
    function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
    return _code(name, function, ".") + _prose(function)


def _settings() -> str:
    """The table of GenerationConfig's fields."""
    rows = ""
    for field in FIELDS.values():
        cells = (f"`{field.name}`", field.group, f"`{field.default!r}`", field.check.allowed, field.meaning)
        rows += f"| {' | '.join(map(_cell, cells))} |\n"
    return f"| field | group | default | must be | meaning |\n|---|---|---|---|---|\n{rows}\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("anything", "").replace("*", "\\*")


def _is_ours(thing: type) -> bool:
    return thing.__module__.startswith("fabula.")


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


def main() -> None:
    """Writes the page."""
    PAGE.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
