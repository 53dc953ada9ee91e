"""Tests of tokenizers, chat templates and streamed text."""
