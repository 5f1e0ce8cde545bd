"""Generation step by step for streamers, and strings that end a row."""

import threading

import numpy as np
import pytest
import transformers

from tests.fixtures import pipeline_cases, tiny_tokenizers
from tests.rebuilt_models import rebuilt
from tests.tiny_models import token_ids
from tfheads.generation.stop_strings import stop_table, token_texts

PROMPT = [[257, 261, 30]]


@pytest.fixture(scope="module")
def gpt2():
    return rebuilt("GPT2LMHeadModel", pipeline_cases.GPT2)


class Collected:
    """A streamer that keeps what it gets."""

    def __init__(self):
        self.parts, self.ended = [], 0

    def put(self, ids):
        assert not self.ended
        self.parts.append(np.asarray(ids))

    def end(self):
        self.ended += 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_sample": True, "seed": 3, "temperature": 2.0},
        pytest.param({"penalty_alpha": 0.6, "top_k": 3, "no_repeat_ngram_size": 2}, marks=pytest.mark.slow),
    ],
    ids=["greedy", "sampling", "contrastive"],
)
def test_a_stream_is_what_generate_returns(gpt2, options):
    options = {"max_new_tokens": 9, "eos_token_id": [98, 30], "pad_token_id": 7, "jit_compile": False, **options}
    ids = token_ids(2, 4)
    expected = gpt2.generate(ids, **options)
    streamer = Collected()
    made = gpt2.generate(ids, streamer=streamer, **options)
    np.testing.assert_array_equal(made, expected)
    assert streamer.ended == 1
    np.testing.assert_array_equal(streamer.parts[0], ids)
    np.testing.assert_array_equal(np.stack(streamer.parts[1:], axis=1), expected[:, 4:])


def test_text_comes_while_it_is_made(gpt2):
    tokenizer = tiny_tokenizers.byte_level_bpe()
    streamer = transformers.TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
    options = {"max_new_tokens": 6, "eos_token_id": [], "jit_compile": False}
    thread = threading.Thread(target=gpt2.generate, args=(PROMPT,), kwargs={"streamer": streamer, **options})
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text == tokenizer.decode(gpt2.generate(PROMPT, **options)[0, 3:])


def test_steps_are_compiled_once(gpt2, monkeypatch):
    traces = []
    extend = type(gpt2.backbone).extend

    def counted(self, inputs, state, slot):
        traces.append(inputs["input_ids"].shape[1])
        return extend(self, inputs, state, slot)

    monkeypatch.setattr(type(gpt2.backbone), "extend", counted)
    options = {"eos_token_id": [], "jit_compile": False, "num_return_sequences": 3, "do_sample": True}
    for length in (2, 5, 9):
        gpt2.generate(token_ids(1, length), streamer=Collected(), max_new_tokens=length, **options)
    assert traces == [16, 1]


def test_beams_have_no_stream(gpt2):
    with pytest.raises(ValueError, match="streamer needs num_beams=1: beams change their minds"):
        gpt2.generate(PROMPT, num_beams=2, streamer=Collected())


# Stop strings.


def naive(texts: list[bytes], tokens: list[int], stops: list[bytes]) -> bool:
    """Whether the last token completes a stop string."""
    text = b"".join(texts[token] for token in tokens)
    before = len(text) - len(texts[tokens[-1]])
    return any(
        text[end - len(stop) : end] == stop
        for stop in stops
        for end in range(max(before + 1, len(stop)), len(text) + 1)
    )


@pytest.mark.parametrize("make", [tiny_tokenizers.byte_level_bpe, tiny_tokenizers.wordpiece])
def test_the_table_completes_what_the_text_completes(make):
    tokenizer = make()
    stops = ("at", "cat s", "the the", "aab", "é", "ab a", " on a")
    table, texts = stop_table(stops, tokenizer), token_texts(tokenizer)
    assert len(table) % 16 == 0 and table.shape[1] == len(texts)
    likely = [
        index
        for index, text in enumerate(texts)
        if text.strip() and set(text.decode(errors="ignore")) <= set("abcthe onsé")
    ]
    generator = np.random.RandomState(0)
    hits = 0
    for _ in range(300):
        tokens, state = generator.choice(likely, 12).tolist(), 0
        for place, token in enumerate(tokens):
            entry = table[state, token]
            assert entry % 2 == naive(texts, tokens[: place + 1], [stop.encode() for stop in stops])
            state, hits = entry // 2, hits + entry % 2
    assert hits > 100


def test_texts_of_tokens_are_what_they_add():
    tokenizer = tiny_tokenizers.wordpiece()
    texts, ids = token_texts(tokenizer), tokenizer("the cat's mats")["input_ids"][1:-1]
    joined = b"".join(texts[token] for token in ids)
    assert joined.decode().strip() == tokenizer.convert_tokens_to_string(tokenizer.convert_ids_to_tokens(ids))


def test_a_stop_string_may_begin_in_the_prompt_and_ends_only_new_text(gpt2):
    tokenizer = tiny_tokenizers.byte_level_bpe()
    options = {"max_new_tokens": 6, "eos_token_id": [], "jit_compile": False, "tokenizer": tokenizer}
    texts = token_texts(tokenizer)
    free = gpt2.generate(PROMPT, **options)[0]
    across = (texts[free[2]] + texts[free[3]]).decode(errors="ignore")
    assert gpt2.generate(PROMPT, stop_strings=across, **options)[0].tolist() == free[:4].tolist()
    inside = texts[free[1]].decode()
    assert inside.encode() not in b"".join(texts[token] for token in free[3:])
    assert gpt2.generate(PROMPT, stop_strings=[inside], **options)[0].tolist() == free.tolist()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"stop_strings": ["x"]}, r"stop_strings needs the argument tokenizer, got none for \('x',\)"),
        ({"stop_strings": [""]}, r"stop_strings must be strings that are not empty, got \[''\]"),
        ({"stop_strings": [3]}, r"stop_strings must be strings that are not empty, got \[3\]"),
    ],
)
def test_bad_stop_strings_are_one_sentence(gpt2, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        gpt2.generate(PROMPT, **options)
