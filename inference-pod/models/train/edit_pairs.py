"""Which picture becomes which, and what people say to ask for it; and the tokenizer that reads it."""

import json
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from transformers import CLIPTokenizer

from architecture import TEXT_LENGTH

TONES = ("", "light", "medium-light", "medium", "medium-dark", "dark")
ASK_TONE = ("make it {} skin", "make it {} skin", "{} skin", "{} skin tone", "with {} skin", "make the skin {}",
            "give it {} skin", "give it a {} skin tone", "change the skin to {}", "change the skin tone to {}")
ASK_GENDER = ("as a {}", "as a {}", "make it a {}", "turn it into a {}", "change it to a {}", "a {}", "make this a {}")
ASK_3D = ("in 3D style", "in 3D style", "make it 3D", "in 3D", "as a 3D picture", "as a 3D drawing", "turn it into 3D",
          "3D style")
ASK_FLAT = ("as a flat drawing", "as a flat drawing", "make it flat", "in flat style", "as a flat picture", "make it 2D",
            "turn it into a flat drawing", "flat style")
# Skin and gender are rules, learned soon; each 3D picture is drawn its own way and has to be known by heart, so of those
# only the popular are learned, and people once a family; and they are drawn more often.
SHARES = {"tone": 0.26, "gender": 0.16, "3d": 0.38, "flat": 0.14, "same": 0.06}


@dataclass(frozen=True)
class Pair:
    source: int
    target: int
    instruction: str
    may_mirror: bool = True


class Pairs:
    """Draws pairs from the families that are not held out (or, to look at them, from those that are)."""

    def __init__(self, meta: list[dict], held_out: bool = False):
        self.meta, self.row = meta, {}
        for i, m in enumerate(meta):
            self.row.setdefault((m["style"], m["family"], m["gender"], m["tone"]), i)
        self.rows: dict[str, list[int]] = defaultdict(list)
        for i, m in enumerate(meta):
            if m["held_out"] != held_out:
                continue
            often = 3 if m["style"] == "flat" else 1
            if self.tones(i):
                self.rows["tone"] += [i] * often
            if self.genders(i):
                self.rows["gender"] += [i] * often
            other = "3d" if m["style"] == "flat" else "flat"
            if m["tone"] == 0 and self.at(i, style=other) is not None:
                if m["popular"] or other == "3d" and m["people"] and not m["gender"]:
                    self.rows[other].append(i)
            if m["learned"] or m["people"]:
                self.rows["same"].append(i)

    def at(self, i: int, **changes) -> int | None:
        m = self.meta[i] | changes
        return self.row.get((m["style"], m["family"], m["gender"], m["tone"]))

    def tones(self, i: int) -> list[int]:
        return [t for t in range(1, 6) if t != self.meta[i]["tone"] and self.at(i, tone=t) is not None]

    def genders(self, i: int) -> list[str]:
        return [g for g in ("man", "woman") if g != self.meta[i]["gender"] and self.at(i, gender=g) is not None]

    def draw(self) -> Pair:
        kind = random.choices(list(SHARES), list(SHARES.values()))[0]
        i = random.choice(self.rows[kind])
        m = self.meta[i]
        if kind == "tone":
            tone = random.choice(self.tones(i))
            return Pair(i, self.at(i, tone=tone), random.choice(ASK_TONE).format(TONES[tone]))
        if kind == "gender":
            gender = random.choice(self.genders(i))
            return Pair(i, self.at(i, gender=gender), random.choice(ASK_GENDER).format(gender))
        if kind == "same":  # it is so already, or cannot be so: things have no skin
            asks = [ASK_3D if m["style"] == "3d" else ASK_FLAT]
            if m["tone"] or not m["people"]:
                asks.append([ask.format(TONES[m["tone"] or random.randint(1, 5)]) for ask in ASK_TONE])
            if m["gender"]:
                asks.append([ask.format(m["gender"]) for ask in ASK_GENDER])
            return Pair(i, i, random.choice(random.choice(asks)))
        style = "3d" if kind == "3d" else "flat"
        return Pair(i, self.at(i, style=style), random.choice(ASK_3D if style == "3d" else ASK_FLAT), may_mirror=False)


def instructions() -> list[str]:
    return [*(ask.format(tone) for ask in ASK_TONE for tone in TONES[1:]),
            *(ask.format(gender) for ask in ASK_GENDER for gender in ("man", "woman")), *ASK_3D, *ASK_FLAT]


def load_meta(work: Path) -> list[dict]:
    return json.loads((work / "edit_meta.json").read_text())


def extend_tokenizer(folder: Path) -> tuple[CLIPTokenizer, list[list[int]]]:
    """The default model's tokenizer, which spells out most of these words, with one more token for each of them;
    and for each new token, the old ones that it stands for."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    vocabulary, merges = dict(model["vocab"]), [tuple(m) for m in model["merges"]]
    spelled = {token: [number] for token, number in vocabulary.items()}

    def build() -> CLIPTokenizer:
        return CLIPTokenizer(vocab=dict(vocabulary), merges=list(merges), model_max_length=TEXT_LENGTH)

    for word in sorted({word for text in instructions() for word in text.lower().replace("-", " - ").split()}):
        tokens = build().tokenize(word)
        while len(tokens) > 1:
            joined = tokens[0] + tokens[1]
            if joined not in vocabulary:
                vocabulary[joined] = len(vocabulary)
                spelled[joined] = spelled[tokens[0]] + spelled[tokens[1]]
            merges.append((tokens[0], tokens[1]))
            tokens = [joined, *tokens[2:]]
    return build(), [numbers for numbers in spelled.values() if len(numbers) > 1]
