"""The installed command as a process: pipes that close, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "fabula"]


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_ctrl_c_ends_a_run_with_130_and_one_line(tiny):
    words = [*COMMAND, "generate", "hello", "-m", tiny, "--max-new-tokens", "500", "--eos-token-id", "-1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told == "fabula: interrupted\n"


@pytest.mark.skipif(os.name == "nt", reason="pipes are POSIX's")
def test_a_reader_that_goes_away_ends_the_run_without_a_word(tiny):
    words = [*COMMAND, "generate", "hello", "-m", tiny, "--max-new-tokens", "500", "--eos-token-id", "-1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        told = process.stderr.read()
        process.wait(timeout=60)
    assert process.returncode == 141
    assert told == ""
