"""Tokenizers of SentencePiece's kinds inside the graph against the rust ones: ids, offsets and decoded texts."""

import base64
import json
import random

import pytest
import sentencepiece
import tensorflow as tf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import MarianTokenizer, PreTrainedTokenizerFast

from tfheads.preprocessing import graph_tokenizer, verify
from tfheads.preprocessing.charsmap import charsmap, replacements
from tfheads.preprocessing.verification import SENTENCES

CORPUS = [
    *SENTENCES[2:6],
    "The quick brown fox jumps over the lazy dog. The dog doesn't mind; it's the fox's business.",
    "Le cœur a ses raisons que la raison ne connaît point. Där går det många människor på gatan.",
    "Всё смешалось в доме Облонских. Η γλώσσα είναι ζωντανή. 日本語の文章です。 मैं घर जा रहा हूँ।",
]
ENTRIES = {
    **{
        "ﬁ": "fi",
        "…": "...",
        "™": "TM",
        "\u200b": "",
        "\u00a0": " ",
        "\r": " ",
        "\n": " ",
        "Ⅳ": "IV",
        "\u0958": "\u0915\u093c",
    },
    **{
        "a\u0301": "á",
        "e\u0301": "é",
        "a\u0323": "ạ",
        "o\u0323\u0302": "ộ",
        "か\u3099": "が",
        "①": "1",
        "\u0301": "",
        "b": "ab",
    },
}
MARKS = ["\u0301", "\u0323", "\u0302", "\u200d", "\u094d", "\u0903", "\u3099", "\u200b", "\u0345", "\u0b3e", "\u302e"]
PARTS = [
    *"abeo .-'`▁",
    *MARKS,
    *ENTRIES,
    "©",
    "क",
    "か",
    "\u0958\u0301",
    "\r\n",
    "\u0600",
    "가",
    "\u1100\u1161",
    "\u1112\u1161\u11ab",
    "\u0b47",
]
PARTS += [
    "  ",
    "--",
    "the ",
    "aba",
    "``",
    "日本",
    "x1٣",
    "Ω\u0345",
    "ΑΣ",
    "\U0001f600",
    "<unk>",
    "<s>",
    "\u212b",
    "ｶﾞ",
    "\u0344",
]
METASPACE = pre_tokenizers.Metaspace()


def odd_texts(seed, count=400):
    generator = random.Random(seed)
    return ["".join(generator.choice(PARTS) for _ in range(generator.randrange(14))) for _ in range(count)]


def wrapped(backend, **options):
    tokens = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"} | options
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False, model_max_length=10**9, **tokens
    )


def unigram(change=None, **parts):
    """A trained Unigram tokenizer; `change` is applied to the description of its model."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer, backend.decoder = METASPACE, decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    whole = json.loads(backend.to_str())
    if change is not None:
        change(whole["model"])
    backend = Tokenizer.from_str(json.dumps(whole))
    for name, part in parts.items():
        setattr(backend, name, part)
    return wrapped(backend)


def add_bytes(model):
    model["vocab"] += [[f"<0x{byte:02X}>", -30.0] for byte in range(256)]
    model["byte_fallback"] = True


def make_ties(model):
    """Scores of few bits, which add exactly, and pieces that are as good as their halves."""
    model["vocab"] = [[piece, round(8 * score) / 8] for piece, score in model["vocab"] if set(piece) - set("-ab")]
    model["vocab"] += [
        ["-", -3.0],
        ["--", -6.0],
        ["---", -9.0],
        ["----", -11.5],
        ["a", -4.0],
        ["b", -4.0],
        ["ab", -8.0],
    ]


def llama(change=None, normalizer=None, pre_tokenizer=None, bytes_=True):
    """A trained BPE tokenizer with bytes for what its vocabulary lacks."""
    backend = Tokenizer(models.BPE())
    names = ["<unk>", "<s>", "</s>", "<pad>"] + ([f"<0x{byte:02X}>" for byte in range(256)] if bytes_ else [])
    trainer = trainers.BpeTrainer(vocab_size=650, special_tokens=names, show_progress=False, limit_alphabet=150)
    backend.pre_tokenizer = METASPACE
    backend.train_from_iterator(CORPUS, trainer)
    whole = json.loads(backend.to_str())
    whole["added_tokens"] = whole["added_tokens"][:4]
    whole["model"] |= {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": bytes_}
    if change is not None:
        change(whole["model"])
    backend = Tokenizer.from_str(json.dumps(whole))
    backend.normalizer = normalizer or normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = pre_tokenizer
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return wrapped(backend)


def check(tokenizer, texts):
    """Compares ids, offsets, their texts and the texts of random ids."""
    graph = graph_tokenizer(tokenizer, check=False)
    texts = [*(sentence for sentence in SENTENCES if len(sentence) < 200), *texts]
    expected = tokenizer.backend_tokenizer.encode_batch(texts)
    encoding, alone = graph.encode(texts), graph.tokenize(texts).to_list()
    ids, starts, ends = encoding.input_ids.to_list(), encoding.starts.to_list(), encoding.ends.to_list()
    for row, text in enumerate(texts):
        assert ids[row] == expected[row].ids == alone[row], text
        assert list(zip(starts[row], ends[row], strict=True)) == expected[row].offsets, text
    generator = random.Random(9)
    rows = ids + [[generator.randrange(graph.vocabulary_size) for _ in range(9)] for _ in range(400)]
    for skip in (True, False):
        decoded = graph.detokenize(tf.ragged.constant(rows, tf.int32, ragged_rank=1), skip_special_tokens=skip).numpy()
        for row, ours in zip(rows, decoded, strict=True):
            assert ours.decode() == tokenizer.decode(row, skip_special_tokens=skip), row
    return graph


@pytest.mark.parametrize("change", [None, add_bytes, make_ties])
def test_unigram_gives_the_ids_offsets_and_texts_of_the_rust_one(change):
    check(unigram(change), [*odd_texts(1), "-" * 70, "ab" * 50, "x<unk><unk>y", "日" * 150])


@pytest.mark.parametrize(
    ("normalizer", "pre_tokenizer"),
    [
        (normalizers.NFC(), pre_tokenizers.Metaspace(prepend_scheme="first")),
        (normalizers.NFKC(), pre_tokenizers.Metaspace(prepend_scheme="never", split=False)),
        (normalizers.Nmt(), pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), METASPACE])),
        (
            normalizers.Sequence(
                [
                    normalizers.Replace("``", '"'),
                    normalizers.Replace("aba", "_"),
                    normalizers.Replace(Regex(" {2,}"), "▁"),
                    normalizers.Strip(),
                    normalizers.Prepend("a▁"),
                ]
            ),
            pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), METASPACE]),
        ),
        (None, pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.Punctuation("contiguous")])),
        (
            normalizers.Sequence(
                [normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "), normalizers.Replace(Regex(r"\n"), "x")]
            ),
            pre_tokenizers.Punctuation("merged_with_previous"),
        ),
        (normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous")),
        (normalizers.Strip(right=False), pre_tokenizers.Punctuation("merged_with_next")),
        (normalizers.Precompiled(base64.b64decode(charsmap(ENTRIES))), pre_tokenizers.Punctuation("removed")),
    ],
    ids=lambda part: type(part).__name__,
)
def test_normalizers_and_pre_tokenizers(normalizer, pre_tokenizer):
    normalizer = normalizer or normalizers.Sequence([])
    check(llama(drop_bytes, normalizer=normalizer, pre_tokenizer=pre_tokenizer), odd_texts(2))


def test_a_table_of_replacements_is_read_as_it_was_written():
    assert replacements(charsmap(ENTRIES)) == ENTRIES


def drop_bytes(model):
    model["byte_fallback"] = False


def without_fusing(model):
    model |= {"byte_fallback": False, "fuse_unk": False, "ignore_merges": True}
    model["vocab"]["▁lazy"] = model["vocab"].get("▁lazy", len(model["vocab"]))


def test_a_seed_that_is_set_leaves_tokenizers_alone():
    graph = graph_tokenizer(llama(None, pre_tokenizer=METASPACE), check=False)
    before = graph.tokenize(["the lazy dog"]).to_list()
    tf.random.set_seed(0)
    assert graph.tokenize(["the lazy dog"]).to_list() == before


@pytest.mark.parametrize("change", [None, drop_bytes, without_fusing])
def test_byte_pair_encoding_of_characters(change):
    texts = ["a" * 3000, "世界" * 40, "the lazy dog lazy", "\U00100000\U00100001 x", "▁ ▁▁x"]
    check(llama(change, pre_tokenizer=None if change is None else METASPACE), [*odd_texts(3), *texts])


def test_bytes_that_are_no_text_are_replaced_one_by_one():
    tokenizer = llama()
    graph = graph_tokenizer(tokenizer)  # with the probe texts
    byte = [tokenizer.convert_tokens_to_ids(f"<0x{value:02X}>") for value in range(256)]
    values = [
        b"\xff",
        "é".encode()[:1],
        "世x".encode(),
        "世".encode()[:2] + b"a",
        b"\xef\xbf\xbd",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
    ]
    rows = [[byte[value] for value in text] for text in values] + [[byte[0xE4], 5, byte[0xB8], byte[0x96]]]
    texts = [text.decode() for text in graph.detokenize(tf.ragged.constant(rows, tf.int32)).numpy()]
    assert texts == [tokenizer.decode(row) for row in rows]


def test_special_tokens_around_and_within():
    tokenizer = unigram(pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first"))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "$A </s>", "$A </s> $B </s>", [("</s>", 1)]
    )
    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True), "<extra>", "<extra>long"], special_tokens=True)
    texts = ["<extra>the<extra> the", " <extra> x", "</s>a", "a  <mask> <extra>longer<extra>", " <extra>long <mask>"]
    check(tokenizer, [*odd_texts(4), *texts])


def test_white_space_before_an_added_token_and_a_longer_one_is_refused():
    tokenizer = unigram()
    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True), "<mask>er"], special_tokens=True)
    with pytest.raises(ValueError, match="added token '<mask>' with lstrip=True beside a longer one without it"):
        graph_tokenizer(tokenizer)


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    directory = tmp_path_factory.mktemp("marian")
    text = directory / "text.txt"
    text.write_text("\n".join(CORPUS * 4), "utf-8")
    for side, size in (("source", 220), ("target", 260)):
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=str(directory / side), vocab_size=size, minloglevel=2, hard_vocab_limit=False
        )
    pieces = []
    for side in ("source", "target"):
        model = sentencepiece.SentencePieceProcessor(model_file=str(directory / f"{side}.model"))
        pieces += [model.id_to_piece(i) for i in range(3, model.get_piece_size())]
    names = dict.fromkeys(["</s>", "<unk>", *pieces, ">>fr<<", ">>pt<<", "<pad>"])
    (directory / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    files = {"source_spm": str(directory / "source.model"), "target_spm": str(directory / "target.model")}
    return MarianTokenizer(vocab=str(directory / "vocab.json"), model_max_length=10**9, **files)


def test_a_tokenizer_of_two_models(marian):
    graph = graph_tokenizer(marian)  # with the probe texts
    texts = [
        ">>fr<< the fox",
        ">>fr<<the >>pt<<",
        ">> a << b",
        ">><< x",
        "a >>fr<< b",
        "x</s>>>fr<< y",
        "<unk> a </s></s>",
    ]
    texts += [*SENTENCES, *odd_texts(5), "", "-" * 50, "ab" * 60]
    expected = marian(texts, verbose=False)["input_ids"]
    assert tf.function(graph.tokenize)(tf.constant(texts)).to_list() == expected
    generator = random.Random(6)
    rows = [[generator.randrange(len(marian)) for _ in range(8)] for _ in range(400)]
    for skip in (True, False):
        decoded = [text.decode() for text in graph.detokenize(tf.constant(rows), skip_special_tokens=skip).numpy()]
        assert decoded == [marian.decode(row, skip_special_tokens=skip) for row in rows]


def test_a_tokenizer_of_two_models_knows_no_offsets(marian):
    graph = graph_tokenizer(marian, check=False)
    encoding = graph.encode(["the fox", ""])
    assert encoding.input_ids.to_list() == marian(["the fox", ""])["input_ids"]
    assert encoding.starts is None and encoding.ends is None and encoding.word_ids is None
    with pytest.raises(ValueError, match="`tokenizer` must know offsets, MarianTokenizer knows none"):
        verify(marian, graph, offsets=True)


def test_verify_finds_another_score():
    tokenizer = unigram()
    other = unigram(lambda model: model["vocab"].__setitem__(5, [model["vocab"][5][0], -50.0]))
    with pytest.raises(ValueError, match="differs on the text"):
        verify(tokenizer, graph_tokenizer(other, check=False))


@pytest.mark.parametrize(
    ("make", "component"),
    [
        (lambda: unigram(normalizer=normalizers.Replace(Regex("a*"), "c")), "normalizer Replace with the regular"),
        (lambda: unigram(normalizer=normalizers.ByteLevel()), "normalizer ByteLevel"),
        (lambda: unigram(pre_tokenizer=pre_tokenizers.UnicodeScripts()), "pre_tokenizer UnicodeScripts"),
        (lambda: unigram(decoder=decoders.BPEDecoder()), "decoder BPEDecoder"),
        (lambda: unigram(lambda model: model.update(unk_id=None)), "model Unigram without unk_id"),
        (lambda: llama(lambda model: model["vocab"].pop("<0x41>")), "no token '<0x41>'"),
    ],
)
def test_parts_without_an_exact_translation_are_refused(make, component):
    with pytest.raises(ValueError, match="cannot be expressed exactly in the graph") as error:
        graph_tokenizer(make(), check=False)
    assert component in str(error.value)
