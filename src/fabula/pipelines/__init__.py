"""Text in, text out: a model and its tokenizer behind one call."""

from fabula.pipelines.tasks import pipeline as pipeline
