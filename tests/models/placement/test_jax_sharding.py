"""Weights that are spread over four devices give the tokens that they give on one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fabula.testing.tiny_model import write_tiny_model

pytest.importorskip("jax")
pytest.importorskip("flax")


def test_four_devices_give_the_tokens_of_one(tmp_path):
    write_tiny_model(tmp_path, num_attention_heads=8, num_key_value_heads=4, vocab_size=260)
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, str(root / "tests/models/placement/sharded_model.py"), str(tmp_path)],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip().endswith("equal")
