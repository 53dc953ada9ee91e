"""What the tests of pipelines ask for."""

GREEDY = {"do_sample": False, "max_new_tokens": 8}
ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi!"}]
PREFILLED = [*ASK, {"role": "assistant", "content": "Sure, "}]


def texts(answers):
    """The texts of records, however nested."""
    if isinstance(answers, dict):
        return [answers["generated_text"]]
    return [text for one in answers for text in texts(one)]


def iter_of(values):
    yield from values
