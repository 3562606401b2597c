"""Tokenizers of the synthetic tasks, so that a prompt for them can be typed.

repeats            "a b c a b c" or "abcabc": each letter or digit is a token, after BOS
modular addition   "12 34 =" or "12 + 34 ="
"""

import string

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from workbench.models.tokenizer import Tokenizer
from workbench.training.corpora import BOS

UNKNOWN = "<|unknown|>"
SYMBOLS = string.ascii_lowercase + string.ascii_uppercase + string.digits


def symbol_tokenizer() -> Tokenizer:
    """64 tokens: `<|bos|>` = 0, `<|unknown|>` = 1, then letters and digits; white space is skipped."""
    words = [BOS, UNKNOWN, *SYMBOLS]
    vocabulary = {word: index for index, word in enumerate(words)}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    each = pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), each])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, 0)]
    )
    return Tokenizer(backend, "repeats")


def number_tokenizer(p: int) -> Tokenizer:
    """`p + 2` tokens: 0 … p - 1 are themselves, then `=` and `<|unknown|>`; no BOS, `+` is skipped."""
    words = [*(str(number) for number in range(p)), "=", UNKNOWN]
    vocabulary = {word: index for index, word in enumerate(words)}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Replace("+", " ")
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer(backend, "modular addition")
