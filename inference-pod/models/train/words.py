"""The words that a model was taught, beside its tokenizer: byte-level BPE reads any text, so it never says "unknown".

Whoever serves the model can tell from `tokenizer/known_words.json` which words of a prompt mean nothing to it. A word
is a run of letters and digits, in lower case.
"""

import json
from collections.abc import Iterable
from pathlib import Path

# They change no picture, so no prompt is odd for holding them.
FUNCTION_WORDS = """a about all also an and any are as at be but by can do for from has have her his i in into is it its
just like made make me my no not of on one only or our out over please so some that the their them then there these
they this those to under up us very was we what which with you your""".split()


def split(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


def known(captions: Iterable[str]) -> list[str]:
    return sorted({*FUNCTION_WORDS, *(word for caption in captions for word in split(caption))})


def write(tokenizer: Path, captions: Iterable[str]) -> None:
    text = json.dumps(known(captions), ensure_ascii=False, indent=0)
    (tokenizer / "known_words.json").write_text(text + "\n", encoding="utf-8")
