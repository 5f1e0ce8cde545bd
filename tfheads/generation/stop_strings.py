"""Strings that end a row, as a table that a compiled loop can follow token by token (Aho and Corasick 1975)."""

import json
import weakref

import numpy as np

from tfheads.preprocessing.decoders import token_bytes
from tfheads.preprocessing.pre_tokenizers import byte_alphabet
from tfheads.tries import trie

SMALLEST_TABLE = 16
_tables: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def stop_table(strings: tuple[str, ...], tokenizer) -> np.ndarray:
    """What each token does to the part of a stop string that a row has just spelled.

    Args:
        strings: the stop strings.
        tokenizer: a transformers tokenizer.

    Returns:
        int32 `[states, tokens]`: twice the next state, plus 1 if the token completes a stop string in its text. State
        0 is the beginning; the number of states is padded, so that other strings need no new trace.
    """
    known = _tables.setdefault(tokenizer, {})
    key = strings, len(tokenizer)
    if key not in known:
        after, completes = _automaton([string.encode() for string in strings])
        table = _table(after, completes, token_texts(tokenizer))
        states = max(SMALLEST_TABLE, 1 << (len(table) - 1).bit_length())
        known[key] = np.pad(table, ((0, states - len(table)), (0, 0)))
    return known[key]


def token_texts(tokenizer) -> list[bytes]:
    """What each token adds to a text in whose middle it stands, by its id; nothing for ids without a token."""
    vocabulary = tokenizer.get_vocab()
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = None if backend is None else json.loads(backend.to_str())["decoder"]
    texts = [b""] * (max(vocabulary.values()) + 1)
    if decoder is not None and decoder["type"] == "ByteLevel":
        byte_of = {chr(character): byte for byte, character in enumerate(byte_alphabet())}
        for token, index in vocabulary.items():
            texts[index] = token_bytes(token, byte_of)
        return texts
    before = tokenizer.tokenize("a")
    begin = len(tokenizer.convert_tokens_to_string(before))
    for token, index in vocabulary.items():
        if len(token) == 6 and token.startswith("<0x"):  # SentencePiece's bytes
            texts[index] = bytes([int(token[3:5], 16)])
        else:
            texts[index] = tokenizer.convert_tokens_to_string([*before, token])[begin:].encode()
    return texts


def _automaton(strings: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """For each state and byte the next state `[states, 256]`, and which states complete a string."""
    children, ends = trie(strings)
    whole = [end >= 0 for end in ends]
    after, shorter = np.zeros((len(children), 256), "int32"), [0] * len(children)
    waiting = [0]
    for state in waiting:
        if state:
            after[state] = after[shorter[state]]
            whole[state] = whole[state] or whole[shorter[state]]
        for byte, child in children[state].items():
            shorter[child] = after[shorter[state], byte] if state else 0
            after[state, byte] = child
            waiting.append(child)
    return after, np.array(whole)


def _table(after, completes, texts):
    lengths = np.array([len(text) for text in texts])
    states = np.repeat(np.arange(len(after), dtype="int32")[:, None], len(texts), axis=1)
    hits = np.zeros(states.shape, bool)
    for place in range(lengths.max(initial=0)):
        longer = np.flatnonzero(lengths > place)
        bytes_here = np.array([texts[index][place] for index in longer])
        states[:, longer] = after[states[:, longer], bytes_here]
        hits[:, longer] |= completes[states[:, longer]]
    return (states * 2 + hits).astype("int32")
