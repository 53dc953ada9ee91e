"""One table of cases: every array function gives on every framework what plain NumPy gives."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import pytest

from fabula import arrays
from fabula.arrays import numpy as reference
from fabula.errors import ArgumentError, NotSupportedError

INFINITY = float("inf")
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(0, 3, (4, 9)).astype(np.float32)
Y = GENERATOR.normal(0, 3, (4, 9)).astype(np.float32)
HOLES = np.where(X > 1, np.float32(-INFINITY), X)
TIES = np.array([[1, 3, 3, 0, 3], [2, 2, 2, 2, 2]], dtype=np.float32)
WORDS = np.array([[0, 1, -1], [0x7FFFFFFF, -0x80000000, 12345]], dtype=np.int32)
COLUMNS = np.array([[0, 3], [8, 8], [2, 1], [5, 4]], dtype=np.int32)
TRUTHS = X > 0
EVEN = np.array([[True, False], [False, True], [False, False], [True, True]])
ROWS = np.array([2, 0], dtype=np.int32)


def exact_softmax(x):
    raised = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def put(x, rows, columns, values):
    result = x.copy()
    result[rows, columns] = values
    return result


def added(x, columns, values):
    result = x.copy()
    np.add.at(result, (np.arange(len(x))[:, None], columns), values)
    return result


def set_where(x, columns, chosen, value):
    result = x.copy()
    for row, column in np.argwhere(chosen):
        result[row, columns[row, column]] = value if np.isscalar(value) else value[row, column]
    return result


EACH = np.arange(4)[:, None]

# function, its arguments (arrays are converted to the framework), what must come out
CASES = [
    ("asarray", ([1, 2], "float32"), np.array([1, 2], np.float32)),
    ("asarray", (X, "float32"), X),
    ("arange", (5,), np.arange(5, dtype=np.int32)),
    ("zeros", ((2, 3), "bool"), np.zeros((2, 3), bool)),
    ("full", ((2,), 7, "int32"), np.full(2, 7, np.int32)),
    ("zeros_like", (WORDS,), np.zeros_like(WORDS)),
    ("astype", (X, "int32"), X.astype(np.int32)),
    ("astype", (TRUTHS, "float32"), TRUTHS.astype(np.float32)),
    ("as_indices", (COLUMNS,), COLUMNS.astype(np.int64)),
    ("reshape", (X, (9, 4)), X.reshape(9, 4)),
    ("reshape", (X, (-1,)), X.reshape(-1)),
    ("matrix_transpose", (X,), X.T),
    ("matmul", (np.stack([X, Y]), np.stack([Y.T, X.T])), np.stack([X @ Y.T, Y @ X.T])),
    ("broadcast_to", (X[:1], (3, 9)), np.repeat(X[:1], 3, axis=0)),
    ("concat", ([X, Y],), np.concatenate([X, Y], axis=-1)),
    ("concat", ([X, Y], 0), np.concatenate([X, Y], axis=0)),
    ("where", (TRUTHS, X, Y), np.where(TRUTHS, X, Y)),
    ("where", (TRUTHS, X, -INFINITY), np.where(TRUTHS, X, -INFINITY).astype(np.float32)),
    ("where", (TRUTHS, 0.5, Y), np.where(TRUTHS, 0.5, Y).astype(np.float32)),
    ("where", (TRUTHS[:, :3], -1, WORDS[:1]), np.where(TRUTHS[:, :3], np.int32(-1), WORDS[:1])),
    ("exp", (X,), np.exp(X)),
    ("log", (np.array([0.0, 1.0, 10.0], np.float32),), np.array([-INFINITY, 0, np.log(10.0)], np.float32)),
    ("sqrt", (X * X,), np.abs(X)),
    ("abs", (X,), np.abs(X)),
    ("minimum", (X, Y), np.minimum(X, Y)),
    ("minimum", (COLUMNS, 3), np.minimum(COLUMNS, 3)),
    ("maximum", (X, 0.5), np.maximum(X, np.float32(0.5))),
    ("maximum", (X, Y), np.maximum(X, Y)),
    ("power", (np.abs(X), 2.0), X * X),
    ("power", (np.abs(X), np.abs(Y)), np.abs(X) ** np.abs(Y)),
    ("isfinite", (HOLES,), np.isfinite(HOLES)),
    ("isnan", (np.array([np.nan, 1, INFINITY], np.float32),), np.array([True, False, False])),
    ("left_shift", (WORDS, 13), (WORDS.view(np.uint32) << 13).view(np.int32)),
    ("right_shift", (WORDS, 9), WORDS >> 9),
    ("sum", (X,), X.sum(axis=-1)),
    ("sum", (TRUTHS, -1, True), TRUTHS.sum(axis=-1, keepdims=True).astype(np.int32)),
    ("sum", (COLUMNS, 0), COLUMNS.sum(axis=0).astype(np.int32)),
    ("max", (X, -1, True), X.max(axis=-1, keepdims=True)),
    ("any", (X > 3,), (X > 3).any(axis=-1)),
    ("all", (X < 5, -1, True), (X < 5).all(axis=-1, keepdims=True)),
    ("argmax", (TIES,), np.array([1, 0], np.int32)),
    ("cumulative_sum", (X,), np.cumsum(X.astype(np.float64), axis=-1).astype(np.float32)),
    ("cumulative_sum", (TRUTHS,), np.cumsum(TRUTHS, axis=-1).astype(np.int32)),
    ("softmax", (X,), exact_softmax(X).astype(np.float32)),
    ("softmax", (HOLES,), exact_softmax(HOLES).astype(np.float32)),
    ("log_softmax", (X,), np.log(exact_softmax(X)).astype(np.float32)),
    ("log_softmax", (TIES * 100,), (TIES * 100 - np.log(np.array([[3.0], [5.0]])) - [[300], [200]]).astype(np.float32)),
    ("logsumexp", (X * 40,), np.logaddexp.reduce(X.astype(np.float64) * 40, axis=-1).astype(np.float32)),
    ("logsumexp", (np.full((2, 3), -INFINITY, np.float32), -1, True), np.full((2, 1), -INFINITY, np.float32)),
    ("take", (X, ROWS), X[ROWS]),
    ("take_along_axis", (X, COLUMNS), np.take_along_axis(X, COLUMNS, axis=-1)),
    ("scatter_set", (X, COLUMNS, -1.0), put(X, EACH, COLUMNS, -1)),
    ("scatter_set", (X, COLUMNS[:, :1], Y[:, :1]), put(X, EACH, COLUMNS[:, :1], Y[:, :1])),
    ("scatter_set", (TRUTHS, COLUMNS, True), put(TRUTHS, EACH, COLUMNS, True)),
    ("scatter_add", (X, COLUMNS, Y[:, :2]), added(X, COLUMNS, Y[:, :2])),
    ("scatter_where", (X, COLUMNS, COLUMNS > 2, -1.0), set_where(X, COLUMNS, COLUMNS > 2, -1)),
    ("scatter_where", (X, COLUMNS, EVEN, Y[:, :2]), set_where(X, COLUMNS, EVEN, Y)),
    ("scatter_where", (X, COLUMNS, COLUMNS > 99, -1.0), X),
    ("without", (X, TRUTHS, -INFINITY), np.where(TRUTHS, np.float32(-INFINITY), X)),
    ("without", (X, TRUTHS, 2.5), np.where(TRUTHS, np.float32(2.5), X)),
    ("without", (X.astype(np.float64), TRUTHS, 2.5), np.where(TRUTHS, 2.5, X.astype(np.float64))),
    ("mass_reach", (TIES, np.full_like(TIES, 0.2), 0.3), np.array([[1], [2]], np.float32)),
    ("ones_like", (COLUMNS,), np.ones_like(COLUMNS)),
    ("repeat", (X, 2), np.repeat(X, 2, axis=0)),
    ("set_rows", (X, ROWS, Y[:2]), put(X, ROWS, slice(None), Y[:2])),
    ("kth_value", (X, 3), np.sort(X, axis=-1)[:, -3:-2]),
    ("kth_value", (TIES, 2), np.array([[3], [2]], np.float32)),
    (
        "top_mass",
        (np.log(np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)), 0.25, 1),
        np.array([[False, True, True, True]]),
    ),
    (
        "top_mass",
        (np.log(np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)), 0.99, 2),
        np.array([[False, False, True, True]]),
    ),
    ("top_mass", (HOLES, -1.0, 1), np.ones_like(HOLES, bool)),
    ("top_mass", (TIES, 0.5, 1), np.array([[False, True, True, False, False], [True, True, True, False, False]])),
]


def convert(xp, value):
    """A NumPy array of a case as the framework's; lists of them too."""
    if isinstance(value, np.ndarray):
        return xp.asarray(value.copy(), value.dtype.name)
    return [convert(xp, part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("name", "arguments", "expected"), CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)]
)
def test_a_function_gives_what_numpy_gives_and_leaves_its_arguments_alone(xp, name, arguments, expected):
    given = [convert(xp, argument) for argument in arguments]
    got = xp.to_host(getattr(xp, name)(*given))
    narrowed = xp.to_host(xp.zeros((1,), expected.dtype.name)).dtype  # JAX has no 64 bits by default
    assert got.dtype in ((np.int32, np.int64) if name == "as_indices" else (narrowed,))
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6)
    for before, after in zip(arguments, given, strict=True):
        if isinstance(before, np.ndarray):
            np.testing.assert_array_equal(xp.to_host(after), before)


def test_top_k_gives_falling_values_and_equal_ones_in_column_order(xp):
    values, columns = (xp.to_host(part) for part in xp.top_k(convert(xp, TIES), 3))
    assert values.tolist() == [[3, 3, 3], [2, 2, 2]]
    assert columns.tolist() == [[1, 2, 4], [0, 1, 2]]
    assert columns.dtype == np.int32


@pytest.mark.parametrize("k", [1, 5, 50])
@pytest.mark.parametrize("holes", [False, True])
def test_top_k_gives_what_a_whole_sort_gives(xp, k, holes):
    scores = np.round(np.random.default_rng(k).normal(0, 2, (3, 4000)), 1).astype(np.float32)  # with many ties
    if holes:
        scores[1, 7:] = -INFINITY
    columns = np.argsort(-scores, axis=-1, kind="stable")[:, :k]
    values, found = (xp.to_host(part) for part in xp.top_k(convert(xp, scores), k))
    assert np.array_equal(found, columns)
    assert np.array_equal(values, np.take_along_axis(scores, columns, axis=-1))


def test_nothing_is_surely_none_where_something_holds(xp):
    assert xp.surely_none(convert(xp, X > 99)) is True
    assert xp.surely_none(convert(xp, X > 0)) is False


def test_what_nothing_is_set_in_stays_the_array_it_was(xp):
    given = convert(xp, X)
    assert xp.scatter_where(given, convert(xp, COLUMNS), convert(xp, COLUMNS > 99), 1.0) is given


@pytest.mark.parametrize("kind", ["ordinary", "steep", "with ties", "all equal", "with holes"])
@pytest.mark.parametrize("vocabulary", [7, 5000])
def test_masses_are_those_of_a_whole_sort(xp, kind, vocabulary):
    """Bins only say what need not be sorted."""
    x = np.random.default_rng(1).normal(0, 3, (3, vocabulary)).astype(np.float32)
    change = {"steep": lambda: x * 30, "with ties": lambda: np.round(x), "all equal": lambda: np.zeros_like(x)}
    x = change.get(kind, lambda: x)()
    if kind == "with holes":
        x[:, 3::2] = -INFINITY
    chances = exact_softmax(x).astype(np.float32)
    for mass in (0.01, 0.3, 0.9, 0.999):
        order = np.argsort(-x, axis=-1, kind="stable")
        falling = np.take_along_axis(chances, order, axis=-1).astype(np.float64)
        held = np.cumsum(falling[:, ::-1], axis=-1)[:, ::-1].astype(np.float32)
        expected = np.zeros_like(x, dtype=bool)
        np.put_along_axis(expected, order, (held > 1 - mass) | (np.arange(vocabulary) < 2), axis=-1)
        got = xp.to_host(xp.top_mass(convert(xp, x), 1 - mass, 2))
        np.testing.assert_array_equal(got & (x > -INFINITY), expected & (x > -INFINITY))
        up_to = np.cumsum(falling, axis=-1).astype(np.float32)
        place = np.minimum((up_to < mass).sum(-1, keepdims=True), vocabulary - 1)
        reach = xp.to_host(xp.mass_reach(convert(xp, -x), convert(xp, chances), mass))
        np.testing.assert_array_equal(reach, -np.take_along_axis(np.take_along_axis(x, order, -1), place, -1))


def test_the_kth_value_may_differ_by_row(xp):
    ranks = np.array([[1], [9], [4], [4]], dtype=np.int32)
    expected = np.take_along_axis(-np.sort(-X, axis=-1), ranks - 1, axis=-1)
    assert np.array_equal(xp.to_host(xp.kth_value(convert(xp, X), ranks)), expected)


def test_mass_and_count_may_differ_by_row(xp):
    scores = np.log(np.array([[0.1, 0.2, 0.3, 0.4]] * 3, dtype=np.float32))
    tail = convert(xp, np.array([[0.25], [-1.0], [0.95]], dtype=np.float32))
    keep = convert(xp, np.array([[1], [1], [3]], dtype=np.int32))
    got = xp.to_host(xp.top_mass(convert(xp, scores), tail, keep))
    assert got.tolist() == [[False, True, True, True], [True] * 4, [False, True, True, True]]


@pytest.mark.parametrize("scores", [X, HOLES, np.full((2, 3), -INFINITY, np.float32), X[:, :1]])
def test_survivors_hold_every_finite_score_once_in_rising_order(xp, scores):
    tokens, values = (xp.to_host(part) for part in xp.survivors(convert(xp, scores)))
    assert tokens.dtype == np.int32
    for row, row_tokens, row_values in zip(scores, tokens, values, strict=True):
        alive = row_values > -INFINITY
        assert row_tokens[alive].tolist() == np.flatnonzero(row > -INFINITY).tolist()
        assert np.array_equal(row_values[alive], row[row > -INFINITY])


def test_a_loop_goes_on_as_long_as_its_condition_holds(xp):
    class Turn(NamedTuple):
        count: Any
        powers: dict[str, Any]

    def double(turn):
        return Turn(turn.count + 1, {"of two": turn.powers["of two"] * 2})

    begin = Turn(xp.asarray(0, "int32"), {"of two": convert(xp, np.ones(3, np.float32))})
    end = xp.while_loop(lambda turn: turn.count < 5, double, begin)
    assert xp.to_host(end.powers["of two"]).tolist() == [32.0] * 3
    assert int(xp.while_loop(lambda turn: turn.count < 0, double, begin).count) == 0


def test_every_framework_has_the_same_functions_with_the_same_parameters():
    def surface(name):
        module = import_module(f"fabula.arrays.{name}")
        functions = {key: value for key, value in vars(module).items() if inspect.isfunction(value) and key[0] != "_"}
        return {key: list(inspect.signature(value).parameters) for key, value in functions.items()}

    for name in ("torch", "jax", "tensorflow"):
        pytest.importorskip(name)
        assert surface(name) == surface("numpy")


def test_every_function_has_a_case():
    covered = {name for name, _, _ in CASES} | {"top_k", "surely_none", "survivors", "to_host", "while_loop"}
    functions = {key for key, value in vars(reference).items() if inspect.isfunction(value) and key[0] != "_"}
    assert functions == covered
    assert len(functions) <= 50


def test_of_finds_the_framework_of_an_array(xp):
    assert arrays.of(xp.zeros((2,), "float32")) is xp
    assert arrays.framework(xp.zeros((2,), "float32")) == xp.__name__.rpartition(".")[2]


def test_of_finds_the_framework_of_a_subclass():
    torch = pytest.importorskip("torch")
    assert arrays.framework(torch.nn.Parameter(torch.zeros(1))) == "torch"
    assert arrays.framework(np.ma.masked_array([1])) == "numpy"


def test_what_is_no_array_is_refused():
    with pytest.raises(ArgumentError, match="got list"):
        arrays.of([1.0])


def test_a_framework_without_a_part_is_refused_by_name():
    with pytest.raises(NotSupportedError, match=r"fabula\.processors.*numpy"):
        arrays.part(X, "fabula.processors")
