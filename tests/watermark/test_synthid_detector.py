"""SynthID's detectors: posteriors, losses, files and training equal transformers'; the score's p-values hold."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from fabula.errors import ArgumentError, ModelFileError
from fabula.generation.settings.watermarking_config import SynthIDTextWatermarkingConfig
from fabula.watermark.bayesian import BayesianDetectorConfig, BayesianDetectorModel, Parameters
from fabula.watermark.synthid_detector import SynthIDTextScoreDetector, SynthIDTextWatermarkDetector
from fabula.watermark.training import train

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
watermarking = pytest.importorskip("transformers.generation.watermarking")

KEYS = [654, 400, 836, 123, 340, 443]
DEPTH = len(KEYS)
MARK = SynthIDTextWatermarkingConfig(ngram_len=3, keys=KEYS)
TOKENIZER = SimpleNamespace(eos_token_id=2)


def parameters(seed=0):
    numbers = np.random.default_rng(seed)
    beta, delta = numbers.normal(-1, 0.5, DEPTH), numbers.normal(0, 0.5, (DEPTH, DEPTH))
    return Parameters(beta.astype(np.float32), delta.astype(np.float32), np.array([0.4], dtype=np.float32))


def their_model(ours: Parameters):
    model = watermarking.BayesianDetectorModel(watermarking.BayesianDetectorConfig(watermarking_depth=DEPTH))
    with torch.no_grad():
        model.likelihood_model_watermarked.beta.copy_(torch.tensor(ours.beta).reshape(1, 1, DEPTH))
        model.likelihood_model_watermarked.delta.copy_(torch.tensor(ours.delta).reshape(1, 1, DEPTH, DEPTH))
        model.prior.copy_(torch.tensor(ours.prior))
    return model


def our_model(ours: Parameters):
    return BayesianDetectorModel(BayesianDetectorConfig(watermarking_depth=DEPTH), ours)


def g_values_of(rows, length, seed=0, chance=0.5):
    numbers = np.random.default_rng(seed)
    mask = numbers.random((rows, length)) < 0.8
    return (numbers.random((rows, length, DEPTH)) < chance).astype(np.int64), mask


def test_posteriors_of_texts_equal_transformers(xp):
    ids = np.random.default_rng(0).integers(0, 60, (5, 40))
    theirs = transformers.generation.logits_process.SynthIDTextWatermarkLogitsProcessor(**MARK.to_dict(), device="cpu")
    other = watermarking.SynthIDTextWatermarkDetector(their_model(parameters()), theirs, TOKENIZER)
    mine = SynthIDTextWatermarkDetector(our_model(parameters()), MARK.construct_processor(), TOKENIZER)
    (expected,), (got,) = other(torch.tensor(ids)), mine(xp.asarray(ids, "int64"))
    np.testing.assert_allclose(xp.to_host(got), expected.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_the_loss_equals_transformers(xp):
    g_values, mask = g_values_of(6, 20)
    labels = np.array([1, 0, 1, 0, 1, 1], dtype=np.float32)
    _, expected = their_model(parameters())(torch.tensor(g_values), torch.tensor(mask), torch.tensor(labels), 0.3)
    found = our_model(parameters())(
        xp.asarray(g_values, "int64"), xp.asarray(mask, "bool"), xp.asarray(labels, "float32"), 0.3, return_dict=True
    )
    assert float(found.loss) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_training_goes_where_adam_takes_the_model_of_transformers():
    g_values, mask = g_values_of(12, 25, seed=3)
    g_values[:6] |= g_values_of(6, 25, seed=4, chance=0.2)[0]
    labels = np.array([1.0] * 6 + [0.0] * 6)
    other = their_model(parameters())
    adam = torch.optim.Adam(other.parameters(), lr=0.01)
    for _ in range(30):
        adam.zero_grad()
        _, loss = other(torch.tensor(g_values), torch.tensor(mask), torch.tensor(labels, dtype=torch.float32), 0.01)
        loss.backward()
        adam.step()
    trained = train(
        our_model(parameters()), g_values, mask, labels, steps=30, learning_rate=0.01, loss_batch_weight=0.01
    )
    beta, delta = other.likelihood_model_watermarked.beta, other.likelihood_model_watermarked.delta
    np.testing.assert_allclose(trained.parameters.beta, beta.detach().numpy().reshape(-1), atol=1e-4)
    lower = np.tril_indices(DEPTH, -1)
    np.testing.assert_allclose(trained.parameters.delta[lower], delta.detach().numpy()[0, 0][lower], atol=1e-4)
    np.testing.assert_allclose(trained.parameters.prior, other.prior.detach().numpy(), atol=1e-4)


def test_a_trained_detector_tells_marked_from_plain_texts():
    plain, mask = g_values_of(40, 30, seed=1)
    marked = np.concatenate([plain[:20], plain[20:] | g_values_of(20, 30, seed=2, chance=0.3)[0]])
    labels = np.array([0.0] * 20 + [1.0] * 20)
    untrained = BayesianDetectorModel(BayesianDetectorConfig(watermarking_depth=DEPTH))
    posterior = train(untrained, marked, mask, labels).posterior(marked, mask)
    assert posterior[:20].mean() < 0.2
    assert posterior[20:].mean() > 0.8
    assert ((posterior > 0.5) == labels).sum() >= 38


def test_training_needs_texts_of_both_kinds():
    g_values, mask = g_values_of(2, 5)
    with pytest.raises(ArgumentError, match="labels"):
        train(our_model(parameters()), g_values, mask, np.ones(2))


def test_files_are_those_of_transformers_both_ways(tmp_path):
    config = BayesianDetectorConfig(DEPTH, 0.4)
    config.set_detector_information("model", MARK)
    BayesianDetectorModel(config, parameters()).save_pretrained(tmp_path / "ours")
    g_values, mask = g_values_of(3, 10)
    other = watermarking.BayesianDetectorModel.from_pretrained(tmp_path / "ours")
    (expected,) = other(torch.tensor(g_values), torch.tensor(mask))
    np.testing.assert_allclose(our_model(parameters()).posterior(g_values, mask), expected.detach().numpy(), rtol=1e-5)
    other.save_pretrained(tmp_path / "theirs")
    for folder in ("ours", "theirs"):
        again = BayesianDetectorModel.from_pretrained(tmp_path / folder)
        assert np.array_equal(again.parameters.delta, parameters().delta)
        assert (again.config.watermarking_depth, again.config.base_rate) == (DEPTH, 0.4)
    saved = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert SynthIDTextWatermarkingConfig.from_dict(saved["watermarking_config"]) == MARK


def test_a_folder_without_a_detector_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"model\.safetensors"):
        BayesianDetectorModel.from_pretrained(tmp_path)


def test_p_values_of_the_score_are_even_without_a_mark():
    ids = np.random.default_rng(0).integers(3, 50_000, (400, 60))
    found = SynthIDTextScoreDetector(MARK.construct_processor(), TOKENIZER)(ids, return_dict=True)
    assert found.num_tokens_scored.tolist() == [58.0] * 400
    for chance in (0.05, 0.25, 0.5, 0.75):  # within four standard deviations of so many texts
        assert abs((found.p_value < chance).mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / 400)


def test_the_score_leaves_out_what_follows_an_end_and_repeats():
    ids = np.random.default_rng(0).integers(3, 50_000, (2, 60))
    detector = SynthIDTextScoreDetector(MARK.construct_processor(), TOKENIZER)
    whole = detector(ids[:, :30], return_dict=True)
    ids[:, 30] = 2
    np.testing.assert_allclose(detector(ids, return_dict=True).score, whole.score, rtol=1e-12)
    ids[:, 30:] = ids[:, :30]
    twice = detector(ids, return_dict=True).num_tokens_scored
    assert twice.tolist() == [30.0, 30.0]  # the contexts of the second half are known, but those across the seam


def test_the_score_refuses_texts_and_weights_that_it_cannot_use():
    processor = MARK.construct_processor()
    with pytest.raises(ArgumentError, match="before an end token"):
        SynthIDTextScoreDetector(processor, TOKENIZER)(np.full((1, 9), 2))
    with pytest.raises(ArgumentError, match="at least 3 tokens"):
        SynthIDTextScoreDetector(processor)([[5, 6]])
    with pytest.raises(ArgumentError, match="weights"):
        SynthIDTextScoreDetector(processor, weights=[1.0])
    with pytest.raises(ArgumentError, match="watermarking_depth"):
        BayesianDetectorModel(BayesianDetectorConfig())
