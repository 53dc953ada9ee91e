"""A tokenizer as small as one can be, that knows only encode() and decode()."""


class Bytes:
    """A tokenizer whose ids are bytes; 256 is special."""

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids, skip_special_tokens=False):
        parts = bytes(one for one in ids if one < 256)
        return parts.decode(errors="replace") + ("" if skip_special_tokens else "<end>" * list(ids).count(256))
