"""The real models, their weights dequantized to float32: greedy tokens equal transformers', in both backends."""

import numpy as np
import pytest

from fabula import AutoModelForCausalLM, AutoTokenizer
from tests.equal.comparison import Tally
from tests.equal.prompts import PROMPTS

NEW = 64
pytestmark = pytest.mark.timeout(1200)  # the reference decodes 1,280 tokens of each model in float32
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module", params=["smollm2_gguf", "gemma_gguf"])
def reference(request):
    """The model's file, its prompts as ids, and what transformers makes of them: tokens, and how far each step's best
    score is above the next.
    """
    path = request.getfixturevalue(request.param)
    tokenizer = AutoTokenizer.from_pretrained(path)
    prompts = [tokenizer.encode(prompt) for prompt in PROMPTS]
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    settings = dict(
        max_new_tokens=NEW, do_sample=False, eos_token_id=None, output_scores=True, return_dict_in_generate=True
    )
    model.generation_config.eos_token_id = None
    out = model.generate(input_ids=ids, attention_mask=mask, pad_token_id=0, **settings)
    tokens = out.sequences[:, longest:].tolist()
    best = torch.stack([torch.topk(scores, 2).values for scores in out.scores], 1)
    return path, prompts, tokens, (best[..., 0] - best[..., 1]).tolist()


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_greedy_tokens_equal_those_of_transformers(reference, backend):
    path, prompts, tokens, gaps = reference
    model = AutoModelForCausalLM.from_pretrained(path, dtype="float32", backend=backend)
    model.generation_config.eos_token_id = None
    rows = model.generate(prompts, max_new_tokens=NEW, do_sample=False)
    tally = Tally()
    for place, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        tally.stepwise(f"row {place}", tokens[place], gaps[place], row[len(prompt) :])
    tally.settle()


def test_logits_of_packed_weights_point_where_the_dequantized_ones_do(reference):
    """Activations are rounded to 8 bits, or twice 8 in the first layers and where they stand out."""
    path, prompts, tokens, _ = reference
    exact = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
    packed = AutoModelForCausalLM.from_pretrained(path)
    cosines = []
    for prompt, new in zip(prompts, tokens, strict=True):
        ids = np.array([prompt + new])
        a, b = (model(ids).logits[0].astype(np.float64) for model in (exact, packed))
        cosines.extend((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1))
    print(f"cosine: mean {np.mean(cosines):.5f}, least {np.min(cosines):.5f} of {len(cosines)} steps")
    assert np.mean(cosines) >= 0.9998 and np.min(cosines) >= 0.995
