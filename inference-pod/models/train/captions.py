"""What the pictures are called: a caption drawn anew each time, and the tokenizer that reads it."""

import json
import random
import string
from collections import Counter
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from architecture import TEXT_LENGTH

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
VOCABULARY = 2200
# What people write around a name.
TEMPLATES = ("{} emoji", "a {}", "the {}", "a {} emoji", "an emoji of a {}", "emoji of {}", "a picture of a {}",
             "a drawing of a {}", "an icon of a {}", "a photo of a {}")


class Captions:
    """Draws captions for the learned pictures, in the order of `latents.pt`."""

    def __init__(self, meta: list[dict]):
        learned = [m for m in meta if m["learned"]]
        self.popular = [m["popular"] for m in learned]
        self.names = [m["name"] for m in learned]
        self.tags = [m["tags"] for m in learned]
        # A tag alone is a fair caption only where it means one picture: "face" or "fruit" would teach an average.
        shared = Counter(tag for m in learned for tag in {*m["tags"], m["name"], *m["extra"]})
        self.aliases = [[*m["extra"], *(t for t in m["tags"] if shared[t] == 1)] for m in learned]
        self.called = [[m["name"], m["name"], *m["extra"]] for m in learned]

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, only_popular: bool) -> list[int]:
        """Every picture once, popular ones twice; or the popular ones alone."""
        return [i for i, popular in enumerate(self.popular) for _ in range(2 if popular else not only_popular)]

    def draw(self, index: int, dropout: float = 0.1) -> str:
        """One caption. With probability `dropout` the empty one, from which classifier-free guidance leads away."""
        if random.random() < dropout:
            return ""
        kind, name = random.random(), random.choice(self.called[index])
        if kind < 0.5:
            return name
        if kind < 0.75:
            return random.choice(TEMPLATES).format(name)
        if kind < 0.87 or not self.aliases[index]:
            tags = self.tags[index]
            return ", ".join([name, *random.sample(tags, min(len(tags), random.randint(1, 2)))])
        return random.choice(self.aliases[index])

    def all(self) -> list[str]:
        """Whatever `draw` makes its captions of, each once."""
        return [*TEMPLATES, *(text for parts in (*self.called, *self.tags, *self.aliases) for text in parts)]


def load_meta(work: Path) -> list[dict]:
    return json.loads((work / "meta.json").read_text())


def train_tokenizer(meta: list[dict]) -> CLIPTokenizer:
    """CLIP's own byte-level BPE, with merges from the names: each word of a popular name becomes one token."""
    words = [name for m in meta if m["popular"] for name in [m["name"], *m["extra"]] * 10]
    words += [tag for m in meta if m["popular"] for tag in m["tags"]]
    words += [t.format("") for t in TEMPLATES] * 10
    words += [m["name"] for m in meta if not m["name"].startswith("flag:")]
    words += list(string.ascii_lowercase + string.digits + string.punctuation)  # so that no ASCII word is unknown
    blank = CLIPTokenizer().backend_tokenizer
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer, bpe.pre_tokenizer = blank.normalizer, blank.pre_tokenizer
    bpe.train_from_iterator(words, trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[BEGIN, END], initial_alphabet=ByteLevel.alphabet(), end_of_word_suffix="</w>",
        min_frequency=1, show_progress=False))
    model = json.loads(bpe.to_str())["model"]
    return CLIPTokenizer(vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]], model_max_length=TEXT_LENGTH)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Ids, (n, TEXT_LENGTH), as StableDiffusionPipeline makes them: cut at the length, filled up with the end token."""
    return tokenizer(captions, padding="max_length", max_length=TEXT_LENGTH, truncation=True,
                     return_tensors="pt").input_ids
