"""The detector's numbers are transformers', on the same ids; what it cannot judge it refuses."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from fabula.errors import ArgumentError
from fabula.generation.settings.watermarking_config import WatermarkingConfig
from fabula.watermark.green_detector import WatermarkDetector

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

MODEL = SimpleNamespace(vocab_size=500, bos_token_id=1, is_encoder_decoder=False)
SETTINGS = [
    {},
    {"greenlist_ratio": 0.5, "hashing_key": 77},
    {"context_width": 3},
    {"seeding_scheme": "selfhash"},
    {"seeding_scheme": "selfhash", "context_width": 3},
]


def texts(rows=4, length=60, high=40):
    return np.random.default_rng(0).integers(2, high, (rows, length))  # few tokens, so that n-grams repeat


def both(settings, ids, **options):
    mine = WatermarkDetector(MODEL, "cpu", WatermarkingConfig(**settings), **options)
    other = transformers.WatermarkDetector(MODEL, "cpu", transformers.WatermarkingConfig(**settings), **options)
    return mine(ids, return_dict=True), other(torch.tensor(np.asarray(ids)), return_dict=True)


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("begins", [False, True])
def test_every_number_equals_transformers(settings, ignore, begins):
    ids = texts()
    if begins:
        ids[:, 0] = 1
    mine, other = both(settings, ids, ignore_repeated_ngrams=ignore)
    for name in ("num_tokens_scored", "num_green_tokens", "prediction"):
        assert np.array_equal(getattr(mine, name), getattr(other, name)), name
    for name in ("green_fraction", "z_score", "p_value", "confidence"):
        np.testing.assert_allclose(getattr(mine, name), getattr(other, name), rtol=1e-9, atol=1e-12, err_msg=name)


def test_texts_may_come_as_tensors_arrays_or_lists_of_any_length():
    detector = WatermarkDetector(MODEL, "cpu", {**WatermarkingConfig().to_dict()})
    ids = texts(3)
    expected = detector(ids, return_dict=True).z_score
    assert np.array_equal(detector(torch.tensor(ids), return_dict=True).z_score, expected)
    ragged = [ids[0].tolist(), ids[1, :30].tolist(), ids[2].tolist()]
    got = detector(ragged, return_dict=True)
    assert got.z_score[[0, 2]].tolist() == expected[[0, 2]].tolist()
    assert got.num_tokens_scored.tolist() == [59, 29, 59]


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import numpy as np
from types import SimpleNamespace
from fabula import SynthIDTextScoreDetector, SynthIDTextWatermarkingConfig, WatermarkDetector, WatermarkingConfig
model, ids = SimpleNamespace(vocab_size=500, bos_token_id=1), np.arange(2, 62)[None]
for scheme in ("lefthash", "selfhash"):
    mark = WatermarkingConfig(seeding_scheme=scheme)
    mark.construct_processor(500)(ids, np.zeros((1, 500), np.float32))
    print(int(WatermarkDetector(model, "cpu", mark)(ids, return_dict=True).num_green_tokens[0]))
mark = SynthIDTextWatermarkingConfig(ngram_len=3, keys=[1, 2, 3]).construct_processor()
mark(ids, np.zeros((1, 500), np.float32))
print(int(SynthIDTextScoreDetector(mark)(ids, return_dict=True).num_tokens_scored[0]))
"""


def test_marks_and_detectors_work_where_torch_is_absent():
    told = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=True).stdout
    ids = np.arange(2, 62)[None]
    expected = [
        int(both({"seeding_scheme": scheme}, ids)[1].num_green_tokens[0]) for scheme in ("lefthash", "selfhash")
    ]
    assert [int(line) for line in told.split()] == [*expected, 58]


def test_without_return_dict_it_says_which_texts_are_marked():
    detector = WatermarkDetector(MODEL, "cpu", WatermarkingConfig())
    ids = texts(2, 40, 500)
    for place in range(1, 40):  # the second text takes nothing but green tokens
        ids[1, place] = np.flatnonzero(detector.processor.lists(500).greens_after(int(ids[1, place - 1])))[place]
    assert detector(ids).tolist() == [False, True]
    assert detector(ids, z_threshold=100.0).tolist() == [False, False]


def test_texts_of_which_only_some_begin_as_texts_do_are_refused():
    ids = texts(2)
    ids[0, 0] = 1
    with pytest.raises(ArgumentError, match="beginning-of-text token in some only"):
        WatermarkDetector(MODEL, "cpu", WatermarkingConfig())(ids)


@pytest.mark.parametrize("ids", [[[5, 6, 7]], [[1, 5, 6, 7]], [[]]])
def test_a_text_that_is_too_short_is_refused(ids):
    with pytest.raises(ArgumentError, match="at least `1` token"):
        WatermarkDetector(MODEL, "cpu", WatermarkingConfig(context_width=3))(ids)


@pytest.mark.parametrize("ids", [[5, 6, 7], [], [["a"]], 5])
def test_what_is_no_list_of_texts_is_refused(ids):
    with pytest.raises(ArgumentError, match="input_ids"):
        WatermarkDetector(MODEL, "cpu", WatermarkingConfig())(ids)
