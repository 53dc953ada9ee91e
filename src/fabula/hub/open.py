"""Opens a source by what it is: a directory, a .gguf file, the default model's name, or a hub id."""

from __future__ import annotations

from pathlib import Path

from fabula.hub.checkpoint import Checkpoint
from fabula.hub.gguf import read_gguf
from fabula.hub.gguf_config import architecture, generation_config, model_config
from fabula.hub.gguf_names import GgufTensors
from fabula.text.files import TokenizerFiles


def open_checkpoint(
    source: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Checkpoint:
    """The checkpoint that `source` names."""
    return open_gguf(Path(source), str(source))


def open_gguf(path: Path, source: str) -> Checkpoint:
    """A .gguf file."""
    file = read_gguf(path)
    config = model_config(file)
    tokenizer = {key: value for key, value in file.metadata.items() if key.startswith("tokenizer.")}
    template = tokenizer.get("tokenizer.chat_template")
    return Checkpoint(
        source=source,
        path=path,
        config=config,
        generation_config=generation_config(config),
        tensors=GgufTensors(file, architecture(file), config),
        tokenizer=TokenizerFiles(
            gguf=tokenizer or None, chat_template=template if isinstance(template, str) else None, source=source
        ),
        metadata=file.metadata,
    )
