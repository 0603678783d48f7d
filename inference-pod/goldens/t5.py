"""Tiny T5 encoders with random weights, and a tokenizer as SentencePiece trains it.

Knows T5; does not know which pipeline reads it.
"""

import io
import pathlib
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from parts import CORPUS, enliven

# What is written as what: a few lines of the table that T5's own tokenizer has thousands of.
RULES = {"ﬁ": "fi", "\u00a0": " ", "\t": " ", "e\u0301": "é", "Ａ": "A"}


def code_points(text):
    return " ".join(f"{ord(character):X}" for character in text)


def train():
    """A unigram model with T5's numbers for padding, end and unknown, and the table compiled as SentencePiece does."""
    with tempfile.TemporaryDirectory() as folder:
        rules = pathlib.Path(folder) / "rules.tsv"
        lines = [f"{code_points(written)}\t{code_points(read)}\n" for written, read in RULES.items()]
        rules.write_text("".join(lines))
        proto = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([*CORPUS * 4, "café", "first naïve FOX Aa"]),
            model_writer=proto,
            vocab_size=120,
            hard_vocab_limit=False,
            normalization_rule_tsv=str(rules),
            num_threads=1,
            minloglevel=2,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
        )
    return sentencepiece_model_pb2.ModelProto.FromString(proto.getvalue())


def tokenizer():
    proto = train()
    vocab = [(piece.piece, piece.score) for piece in proto.pieces]
    charsmap = proto.normalizer_spec.precompiled_charsmap
    return T5Tokenizer(vocab=vocab, _spm_precompiled_charsmap=charsmap, extra_ids=2, model_max_length=512)


def text_encoder(vocab_size, width, **more):
    """Attention is wider than what it reads, so that no size stands for another."""
    config = {
        "vocab_size": vocab_size,
        "d_model": width,
        "d_kv": 8,
        "d_ff": 80,
        "num_layers": 2,
        "num_heads": 5,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }
    return enliven(T5EncoderModel(T5Config(**config | more)), 6)
