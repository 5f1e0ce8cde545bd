"""The proof before an export: the tokenizer in the graph and the tokenizer itself agree on a probe text."""

import random
import unicodedata
from typing import NamedTuple

import tensorflow as tf
import transformers

from tfheads.preprocessing.encoding import Encoding
from tfheads.preprocessing.graph_tokenizers import GraphTokenizer

SENTENCES = [
    "",
    " ",
    "Hello, world!  This is  a test: 3.14 and 1,000,000; e-mail a@b.org?",
    "I'm, you're, he's, they've, we'll, I'd, can't; I'M, HE'S. 's't're've'm'll'd 'sun 'tis 'red ''s x's's '' ' 's",
    "tabs\t\tand\nnew\r\nlines \n\n  end  ",
    "   lead and trail   ",
    "a  b   c    d\n  e \t f\u00a0 g \u00a0h\u2003\u3000i\u2028j\u1680k\u200bl\ufeffm\u0085n\x0bo\x0cp\x1cq\u180er",
    "nul\0inside \x01\x02 bell\x07 escape\x1b[0m delete\x7f c1\x80\x9f",
    "Crème brûlée, cafe\u0301, n\u0303, a\u0323\u0302 a\u0302\u0323, \u212b \u1e9b\u0323 \ufb01 \uff21\uff11\uff01",
    "İstanbul ISI ıi, ΟΔΥΣΣΕΥΣ Σ ΑΣ. ὈΔΥΣΣΕΎΣ, ẞ ß, Ǆ ǅ ǆ, ŉ",
    "Привет, мир! Ёжик. Їжак. Ґ",
    "Γειά σου Κόσμε, άέήίόύώ",
    "مرحبا بالعالم، كيف حالك؟ ١٢٣ لَا إِلَٰهَ",
    "שלום עולם, שָׁלוֹם",
    "नमस्ते दुनिया। क़ ज़ १२३",
    "সবাইকে নমস্কার, ௧ வணக்கம், నమస్కారం, ನಮಸ್ಕಾರ, നമസ്കാരം, ආයුබෝවන්",
    "สวัสดีชาวโลก ๑๒๓ กำ",
    "ສະບາຍດີ ជំរាបសួរ မင်္ဂလာပါ བཀྲ་ཤིས་ ᠮᠣᠩᠭᠣᠯ",
    "你好，世界。中文字符\U00020000\U0002a6d6\uf900 、。「日本語」ひらがなカタカナ ｶﾅ が",
    "안녕하세요 세계, \u1112\u1161\u11ab 각",
    "Xin chào thế giới, Tiếng Việt ắằẳẵặ",
    "ሰላም ልዑል, Բարեւ, გამარჯობა ᲐᲑ, ᏣᎳᎩ ꭰ, ߒߞߏ, ⵜⴰⵎⴰⵣⵉⵖⵜ",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙 Ⅳ ⅷ ½ ² ₃ ① ㊀ 𐍈 𐐀𐐨 𞤀𞤢",
    "😀 👨\u200d👩\u200d👧\u200d👦 🏳\ufe0f\u200d🌈 👍🏽 🇫🇷 ☕\ufe0f 1\ufe0f\u20e3 ©®™",
    "\u0300\u0301 x\u0315\u0300\u05ae\u0062 \u302e\u302f\U0001d165\U0001d16d \u1b44\u0334 \ua9c0\u302e\u1b44",
    "\ue000\uf8ff\U000f0000\U0010ffff \ufffe\uffff\u0378\u0e80\U0001fbff \ufdd0 \ufffd",
    "def f(x):\n    return {'a': x[0] ** 2, \"b\": `c`}  # ## $%^&*()_+-=[]{}|;:,.<>/?~\\",
    "a1b2c3 1a 2b 12ab34 3.0e-10 0x1F 1st 2nd",
    "a" * 99 + " " + "b" * 100 + " " + "c" * 101 + " " + "é" * 100 + " " + "中" * 120 + " " + "ab" * 700,
    "wordwordword " * 40,
    "!" * 50 + "-" * 130 + " " * 70 + "x" + "\n" * 20 + "y" + "=" * 64,
    "do not . do n't ! it 's , you 're ' quoted ' ?",
]


def probe_texts(tokenizer: transformers.PreTrainedTokenizerBase) -> list[str]:
    """Texts of every script and odd cases, every assigned or not block of Unicode, and the added tokens within text."""
    texts = list(SENTENCES)
    for start in (*range(0, 0x34000, 64), *range(0xE0000, 0xE0200, 64)):
        block = [chr(point) for point in range(start, start + 64) if not 0xD800 <= point < 0xE000]
        if len({unicodedata.category(character) for character in block}) < 2:
            block = block[:3]
        texts += ["".join(block), "a" + " a".join(block)]
    added = sorted(token.content for token in tokenizer.added_tokens_decoder.values())
    for token in [*added[:60], *tokenizer.all_special_tokens]:
        texts += [token, f"a{token}b", f" x  {token}  y {token}{token}\n{token} ", token.upper(), token[:-1], token[1:]]
    return texts


class Window(NamedTuple):
    """One row of an encoding: the number of its text, and what there is to know of each token."""

    row: int
    ids: list[int]
    type_ids: list[int]
    sequence_ids: list[int]
    word_ids: list[int]
    offsets: list[tuple[int, int]]


def windows_of(tokenizer, texts: list[str], pairs: list[str] | None = None, **options) -> list[Window]:
    """What the tokenizer itself gives for the arguments of `GraphTokenizer.encode`."""
    stride = options.pop("stride", None)
    truncation = options.pop("truncation", "longest_first")
    options |= {} if options.get("max_length") is None else {"truncation": truncation, "stride": stride or 0}
    encoded = tokenizer(texts, pairs, return_overflowing_tokens=stride is not None, verbose=False, **options)
    rows = encoded.get("overflow_to_sample_mapping", range(len(texts)))

    def numbers(values: list[int | None]) -> list[int]:
        return [-1 if value is None else value for value in values]

    return [
        Window(row, one.ids, one.type_ids, numbers(one.sequence_ids), numbers(one.word_ids), one.offsets)
        for row, one in zip(rows, encoded.encodings, strict=True)
    ]


def windows_in_graph(encoding: Encoding) -> list[Window]:
    """The rows that a tokenizer in the graph gave."""
    *columns, starts, ends = [part.to_list() for part in encoding[:-1]]
    offsets = [list(zip(*row, strict=True)) for row in zip(starts, ends, strict=True)]
    return [Window(*row) for row in zip(encoding.rows.numpy().tolist(), *columns, offsets, strict=True)]


def verify(tokenizer: transformers.PreTrainedTokenizerBase, graph: GraphTokenizer, offsets: bool = False) -> None:
    """Compares the tokenizer in the graph with the tokenizer itself, ids and decoded texts.

    Args:
        tokenizer: the tokenizer of transformers.
        graph: what `graph_tokenizer` made of it.
        offsets: whether to compare all that `encode` gives too: offsets, word ids, pairs, windows.

    Raises:
        ValueError: naming the first text whose ids or offsets differ, or the first ids whose text differs.
    """
    if offsets:
        verify_offsets(tokenizer, graph)
    texts = probe_texts(tokenizer)
    expected = tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
    got = tf.function(graph.tokenize, autograph=False)(tf.constant(texts)).to_list()
    for text, ours, theirs in zip(texts, got, expected, strict=True):
        if ours != theirs:
            raise ValueError(
                f"The tokenizer in the graph differs on the text {text!r}: expected ids {theirs}, got {ours}."
            )
    generator = random.Random(0)
    size = graph.vocabulary_size
    limit = size + 2 if tokenizer.is_fast else size  # tokenizers of Python raise errors for ids without a token
    ids = expected[: len(SENTENCES)] + [[generator.randrange(limit) for _ in range(12)] for _ in range(500)]
    ids += [list(range(start, min(start + 64, size))) for start in range(0, size, 64)]
    flat = [i for row in ids for i in row]
    rows = tf.RaggedTensor.from_row_lengths(tf.constant(flat, tf.int32), [len(row) for row in ids])
    for skip in (True, False):
        texts = tf.function(graph.detokenize, autograph=False)(rows, skip_special_tokens=skip).numpy()
        for row, ours in zip(ids, texts, strict=True):
            theirs = tokenizer.decode(row, skip_special_tokens=skip)
            if ours.decode() != theirs:
                raise ValueError(
                    f"The tokenizer in the graph decodes ids {row} differently: expected {theirs!r}, "
                    f"got {ours.decode()!r}."
                )


def verify_offsets(tokenizer: transformers.PreTrainedTokenizerBase, graph: GraphTokenizer) -> None:
    """The part of `verify` about offsets, word ids, pairs and windows."""
    if not graph.knows_offsets:
        raise ValueError(f"Argument `tokenizer` must know offsets, {type(tokenizer).__name__} knows none.")
    pairs = SENTENCES[1:] + SENTENCES[:1]
    added = tokenizer.num_special_tokens_to_add(pair=True)
    questions = ["a b"] * len(SENTENCES)
    for texts, seconds, options in (
        (probe_texts(tokenizer), None, {}),
        (SENTENCES, None, {"max_length": added + 16, "stride": 5}),
        (SENTENCES, pairs, {"max_length": added + 24}),
        (questions, SENTENCES, {"max_length": added + 24, "truncation": "only_second", "stride": 6}),
    ):
        expected = windows_of(tokenizer, texts, seconds, **options)
        got = windows_in_graph(graph.encode(texts, seconds, **options))
        if len(expected) != len(got):
            raise ValueError(f"The tokenizer in the graph gives {len(got)} windows, expected are {len(expected)}.")
        for theirs, ours in zip(expected, got, strict=True):
            for name in Window._fields:
                if name == "sequence_ids" and tokenizer.backend_tokenizer.post_processor is None:
                    continue  # the rust library does not know them in windows then
                if getattr(theirs, name) != getattr(ours, name):
                    raise ValueError(
                        f"The tokenizer in the graph differs on the text {texts[theirs.row]!r}: expected {name} "
                        f"{getattr(theirs, name)}, got {getattr(ours, name)}."
                    )


__all__ = ["probe_texts", "verify"]
