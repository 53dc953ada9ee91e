"""Every code block of "Generation with LLMs" with only the import, the model's name and the device changed."""

import pytest

from fabula import AutoModelForCausalLM, AutoTokenizer, set_seed

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def name(smollm2_gguf):
    return "SmolLM2-135M-Instruct"


@pytest.fixture(scope="module")
def model(name):
    return AutoModelForCausalLM.from_pretrained(name, device_map="auto", load_in_4bit=True)


@pytest.fixture
def tokenizer(name):
    return AutoTokenizer.from_pretrained(name, padding_side="left")


def test_a_list_of_colors(model, tokenizer):
    model_inputs = tokenizer(["A list of colors: red, blue"], return_tensors="pt").to(model.device)
    assert set(model_inputs) == {"input_ids", "attention_mask"}
    generated_ids = model.generate(**model_inputs)
    text = tokenizer.batch_decode(generated_ids, skip_special_tokens=True)[0]
    assert text.startswith("A list of colors: red, blue") and len(text) > len("A list of colors: red, blue") + 10


def test_batched_prompts_give_what_each_gives_alone(model, tokenizer):
    tokenizer.pad_token = tokenizer.eos_token  # Most LLMs don't have a pad token by default
    prompts = ["A list of colors: red, blue", "Portugal is"]
    model_inputs = tokenizer(prompts, return_tensors="pt", padding=True).to(model.device)
    generated_ids = model.generate(**model_inputs)
    texts = tokenizer.batch_decode(generated_ids, skip_special_tokens=True)
    for prompt, text in zip(prompts, texts, strict=True):
        alone = model.generate(**tokenizer([prompt], return_tensors="pt").to(model.device))
        assert text == tokenizer.batch_decode(alone, skip_special_tokens=True)[0]


def test_the_default_length_is_short_and_max_new_tokens_makes_it_long(model, tokenizer):
    model_inputs = tokenizer(["A sequence of numbers: 1, 2"], return_tensors="pt").to(model.device)
    length = model_inputs.input_ids.shape[1]
    generated_ids = model.generate(**model_inputs)
    assert generated_ids.shape[1] <= length + 20
    longer_ids = model.generate(**model_inputs, max_new_tokens=50)
    assert longer_ids.shape[1] == length + 50
    assert (longer_ids[:, : generated_ids.shape[1]] == generated_ids).all()
    short, long = (tokenizer.batch_decode(ids, skip_special_tokens=True)[0] for ids in (generated_ids, longer_ids))
    assert long.startswith(short) and short.startswith("A sequence of numbers: 1, 2, ")


def test_greedy_repeats_itself_and_sampling_does_not(model, tokenizer):
    set_seed(42)
    model_inputs = tokenizer(["I am a cat."], return_tensors="pt").to(model.device)
    greedy = [model.generate(**model_inputs) for _ in range(2)]
    assert (greedy[0] == greedy[1]).all()
    sampled = [model.generate(**model_inputs, do_sample=True).tolist() for _ in range(3)]
    assert len({str(ids) for ids in sampled}) == 3
    set_seed(42)
    assert model.generate(**model_inputs, do_sample=True).tolist() == sampled[0]


def test_the_padding_side_is_right_on_either_side(model, name):
    prompts, texts = ["1, 2, 3", "A, B, C, D, E"], {}
    for side in ("right", "left"):
        tokenizer = AutoTokenizer.from_pretrained(name, padding_side=side)
        tokenizer.pad_token = tokenizer.eos_token
        model_inputs = tokenizer(prompts, padding=True, return_tensors="pt").to(model.device)
        generated_ids = model.generate(**model_inputs)
        texts[side] = tokenizer.batch_decode(generated_ids, skip_special_tokens=True)
    assert texts["left"] == texts["right"]
    assert texts["left"][0].startswith("1, 2, 3, 4, 5, 6")


def test_a_row_of_ids_decodes_as_a_row(model, tokenizer):
    model_inputs = tokenizer(["1, 2, 3"], return_tensors="pt").to(model.device)
    generated_ids = model.generate(**model_inputs)
    assert tokenizer.batch_decode(generated_ids[0], skip_special_tokens=True)


def test_the_chat_template_gives_the_model_the_prompt_it_was_trained_on(model, name):
    tokenizer = AutoTokenizer.from_pretrained(name)
    set_seed(0)
    prompt = """How many helicopters can a human eat in one sitting? Reply as a thug."""
    model_inputs = tokenizer([prompt], return_tensors="pt").to(model.device)
    input_length = model_inputs.input_ids.shape[1]
    generated_ids = model.generate(**model_inputs, max_new_tokens=20)
    assert tokenizer.batch_decode(generated_ids[:, input_length:], skip_special_tokens=True)[0]
    set_seed(0)
    messages = [
        {"role": "system", "content": "You are a friendly chatbot who always responds in the style of a thug"},
        {"role": "user", "content": "How many helicopters can a human eat in one sitting?"},
    ]
    model_inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt").to(
        model.device
    )
    input_length = model_inputs.shape[1]
    shown = tokenizer.decode(model_inputs.input_ids[0])
    assert "<|im_start|>system\nYou are a friendly chatbot" in shown and shown.endswith("<|im_start|>assistant\n")
    generated_ids = model.generate(model_inputs, do_sample=True, max_new_tokens=20)
    answer = tokenizer.batch_decode(generated_ids[:, input_length:], skip_special_tokens=True)[0]
    assert answer and answer != prompt
