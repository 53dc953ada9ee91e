"""pipeline("text2text-generation"): texts in, what an encoder and a decoder make of them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from fabula.errors import ArgumentError
from fabula.pipelines.records import Encoded, record_of
from fabula.pipelines.settings import ReturnType, Settings
from fabula.pipelines.text_generation import TextGenerationPipeline

ANSWER: Mapping[str, Any] = {"max_new_tokens": 256, "num_beams": 4}


class Text2TextGenerationPipeline(TextGenerationPipeline):
    """Answers texts with texts: translations, summaries, whatever the model was trained for."""

    defaults: ClassVar[Mapping[str, Any]] = ANSWER
    task_name: ClassVar[str] = "text2text-generation"
    reads_with_encoder: ClassVar[bool] = True

    def __call__(self, text_inputs: Any, **settings: Any) -> Any:
        """Records of what was generated: a list for a text; for a list of texts one record each, in one list.

        With several `num_return_sequences` a list of texts gives a list of lists. A record holds `generated_text`, or
        with `return_tensors=True` `generated_token_ids`. Otherwise as TextGenerationPipeline.
        """
        for name in ("return_full_text", "handle_long_generation"):
            if settings.get(name) is not None:
                raise ArgumentError(f"`{name}` must be absent: an answer never holds the text that it answers.")
        answers = super().__call__(text_inputs, **settings)
        if isinstance(text_inputs, (list, tuple)) and all(len(records) == 1 for records in answers):
            return [records[0] for records in answers]
        return answers

    def _make_room_for_prefix(self, asked: Settings, call: dict[str, Any]) -> None:
        """Lengths are the answer's: what the encoder reads is not counted."""

    def _record(self, prompt: Encoded, sequence: list[int], asked: Settings) -> dict[str, Any]:
        """What one sequence becomes; all of it is the decoder's."""
        kind = ReturnType.TENSORS if asked.return_type is ReturnType.TENSORS else ReturnType.NEW_TEXT
        return record_of(Encoded(prompt.given, []), sequence, replace(asked, return_type=kind), self.tokenizer)
