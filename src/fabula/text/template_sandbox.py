"""Templates of models, rendered: Jinja's immutable sandbox, with bounds on time, memory and output.

The sandbox keeps a template from Python's internals; it does not keep it from `'a' * 10**9` or from loops that emit
nothing. So the syntax tree is rewritten before it is compiled: every loop, literal, slice and concatenation passes
through the budget, as calls, filters, tests and operators do by Jinja's own hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache, partial, wraps
from itertools import islice
from types import CodeType
from typing import Any

from jinja2 import Template, nodes, pass_environment, pass_eval_context
from jinja2 import TemplateError as JinjaError
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from fabula.errors import TemplateError
from fabula.text import template_operations as operations
from fabula.text.template_budget import SECONDS, WRITTEN, Budget

LONGEST_SOURCE = 128 * 1024  # characters of a template; the longest of known models have 40,000,
MOST_TOKENS = 20_000  # and 8,000 tokens; compiling takes time and memory in proportion
_LONGEST_MESSAGE = 1000


def render(source: str, variables: Mapping[str, Any], input_characters: int, seconds: float = SECONDS) -> str:
    """The text that the template makes of `variables`; raises TemplateError if it fails or exceeds its bounds."""
    try:
        code = _compile(source)
        environment = Sandbox(Budget(input_characters, seconds))
        template = Template.from_code(environment, code, environment.globals)
        return _collect(template, variables)
    except TemplateError:
        raise
    except RecursionError as error:
        raise TemplateError("The chat template must not nest so deeply: it calls itself without end.") from error
    except JinjaError as error:
        raise TemplateError(f"The chat template failed: {_short(error)}") from error
    except Exception as error:  # a template may provoke any error of Python's operators and methods
        raise TemplateError(f"The chat template failed with {type(error).__name__}: {_short(error)}") from error


def _collect(template: Template, variables: Mapping[str, Any]) -> str:
    pieces, written = [], 0
    for piece in template.generate(variables):
        written += len(piece)
        if written > WRITTEN:
            raise TemplateError(f"The chat template must write at most {WRITTEN} characters. Shorten the conversation.")
        pieces.append(piece)
    return "".join(pieces)


def _short(error: Exception) -> str:
    message = str(error) or type(error).__name__
    return message if len(message) <= _LONGEST_MESSAGE else message[:_LONGEST_MESSAGE] + "..."


@lru_cache(maxsize=32)
def _compile(source: str) -> CodeType:
    """The template's code, which any Sandbox can run."""
    if len(source) > LONGEST_SOURCE:
        raise TemplateError(f"The chat template must have at most {LONGEST_SOURCE} characters, got {len(source)}.")
    environment = Sandbox(Budget(len(source)))
    if sum(1 for _ in islice(environment.lex(source), MOST_TOKENS + 1)) > MOST_TOKENS:
        raise TemplateError(f"The chat template must have at most {MOST_TOKENS} tokens. Simplify it.")
    tree = _Rewriter().visit(environment.parse(source))
    tree.set_environment(environment)
    return environment.compile(tree)


class _Rewriter(NodeTransformer):
    """Passes what makes values or repeats through the budget's filters."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_each")
        node.body.insert(0, nodes.ExprStmt(_filtered(nodes.Const(None), "_tick"), lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        operands = nodes.Tuple(node.nodes, "load", lineno=node.lineno)
        return _filtered(operands, "_concatenate")

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "_weigh") if isinstance(node.arg, nodes.Slice) and node.ctx == "load" else node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "_weigh")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "_weigh")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "_weigh") if node.ctx == "load" else node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:
        self.generic_visit(node)
        node.filter = nodes.Filter(node.filter, "_weigh", [], [], None, None, lineno=node.lineno)
        return node


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}` marks what the assistant wrote, for training; here it only scopes."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one rendering."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, budget: Budget) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[GenerationTag, LoopControlExtension],
            optimized=False,
            finalize=budget.weigh,
        )
        self.budget = budget
        self.globals.pop("lipsum")
        self.globals |= {
            "dict": _Dictionary(),
            "namespace": _Namespace,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }
        self.filters |= {
            "tojson": partial(operations.write_json, budget),
            "join": pass_eval_context(partial(operations.join_filter, budget)),
            "sum": pass_environment(partial(operations.sum_filter, budget)),
        }
        self.filters = {name: _bounded(name, function, budget) for name, function in self.filters.items()}
        self.filters |= {
            "_each": budget.each,
            "_tick": budget.tick,
            "_weigh": budget.weigh,
            "_concatenate": partial(_concatenate, budget),
        }
        self.tests = {name: _ticking(function, budget) for name, function in dict[str, Any](self.tests).items()}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        return operations.apply_operator(self.budget, operator, left, right)

    def call(__self, __context: Any, __function: Any, *arguments: Any, **named: Any) -> Any:
        budget = __self.budget
        own = {name: value for name, value in named.items() if name not in ("_loop_vars", "_block_vars")}
        arguments = operations.guard_method(budget.tick(budget), __function, arguments, own)
        return budget.weigh(super().call(__context, __function, *arguments, **named))

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        raise SecurityError(f"access to attribute {attribute!r} of {type(obj).__name__!r} object is unsafe.")

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        format_safely = super().wrap_str_format(value)
        if format_safely is None:
            return None

        def wrapper(*arguments: Any, **named: Any) -> str:
            operations.check_format(self.budget, value.__self__, arguments, named)
            return format_safely(*arguments, **named)

        return wrapper


def _bounded(name: str, function: Callable[..., Any], budget: Budget) -> Callable[..., Any]:
    """The filter, its argument and result charged."""
    skipped = 1 if hasattr(function, "jinja_pass_arg") else 0
    check = operations.FILTER_CHECKS.get(name)

    @wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        before, rest = arguments[:skipped], arguments[skipped:]
        if rest and name in operations.WRITING and not isinstance(rest[0], str):
            budget.weigh(rest[0])
        if name in operations.WALKING and rest and not isinstance(rest[0], list | tuple | Mapping):
            rest = (_walked(rest[0], name, budget), *rest[1:])
        if check is not None:
            check(budget, *rest, **named)
        return budget.weigh(function(*before, *rest, **named))

    return wrapper


def _walked(value: Any, name: str, budget: Budget) -> Any:
    """What a filter may walk through: the clock is looked at for each entry of a generator, a string is charged."""
    if isinstance(value, str):
        if name not in ("reverse", "first", "last"):
            budget.charge_entries(len(value))
        return value
    return budget.entries(value) if hasattr(value, "__next__") or isinstance(value, range) else value


def _ticking(function: Callable[..., Any], budget: Budget) -> Callable[..., Any]:
    @wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        budget.tick()
        return function(*arguments, **named)

    return wrapper


def _concatenate(budget: Budget, values: tuple[Any, ...]) -> str:
    """`~`: texts joined."""
    budget.weigh(values)
    return "".join([str(value) for value in values])


def _raise_exception(message: Any) -> None:
    raise JinjaError(str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern[:_LONGEST_MESSAGE])


class _Dictionary:
    """`dict`, without the attributes of the class."""

    def __call__(self, *arguments: Any, **named: Any) -> dict[Any, Any]:
        return dict(*arguments, **named)

    def fromkeys(self, keys: Any, value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


class _Namespace(Namespace):
    """`namespace`, which takes no name that starts with an underscore."""

    def __init__(*arguments: Any, **named: Any) -> None:  # `self` is a name that a template may use
        attributes = dict(*arguments[1:], **named)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(arguments[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"namespace attributes must not start with an underscore, got {name!r:.100}")
