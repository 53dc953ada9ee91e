"""Between text and token ids: tokenizers, chat templates, streaming text. Nothing here sees an array."""
