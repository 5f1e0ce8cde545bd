"""Translation with the tokenizers that are no tables of tokens: Marian's two SentencePiece models, M2M100's, NLLB's."""

import io
import json
import warnings

import pytest
import sentencepiece
import transformers

import tfheads
from tests.fixtures.text_to_text_cases import BART
from tfheads.checkpoints.tokenizers import load_tokenizer

LINES = ["the cat sees a small bird", "a dog follows the cat", "der Hund sieht die Katze"] * 9
GREEDY = {"num_beams": 1, "max_new_tokens": 6, "jit_compile": False, "return_text": True, "return_tensors": True}
SIZES = {name: value for name, value in BART.items() if not name.endswith("token_id") and name != "vocab_size"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A SentencePiece model with the vocabulary of Marian's and M2M100's tokenizers."""
    directory, made = tmp_path_factory.mktemp("sentencepiece"), io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=made, vocab_size=30, minloglevel=2
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    learnt = [pieces.id_to_piece(index) for index in range(pieces.get_piece_size())]
    marian = dict.fromkeys(["</s>", "<unk>", *reversed(learnt), ">>deu<<", "<pad>"])
    m2m = dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>", *learnt])
    for name, tokens in {"marian": marian, "m2m": m2m}.items():
        (directory / f"{name}.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    for name in ("source.spm", "target.spm", "m2m.model"):
        (directory / name).write_bytes(made.getvalue())
    return directory


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Recommended")
def test_marian_from_a_checkpoint(files, tmp_path):
    tokenizer = transformers.MarianTokenizer(
        str(files / "source.spm"), str(files / "target.spm"), str(files / "marian.json"), source_lang="en"
    )
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    ends = {"pad_token_id": pad, "eos_token_id": end, "decoder_start_token_id": pad, "forced_eos_token_id": end}
    config = transformers.MarianConfig(vocab_size=len(tokenizer), bos_token_id=end, **ends, **SIZES)
    model = tfheads.MarianMTModel.from_config(config, seed=0)
    model.generation_config.bad_words_ids = [[pad]]
    model.save_pretrained(tmp_path, tokenizer=tokenizer)
    with warnings.catch_warnings(record=True) as warned:
        pipe = tfheads.pipeline("translation_en_to_de", str(tmp_path))
    assert not [one for one in warned if "sacremoses" in str(one.message)]
    assert type(pipe.tokenizer).__name__ == "MarianTokenizer"
    texts = ["the cat sees a bird", ">>deu<< a dog", "a small dog follows the cat, doesn't it?"]
    answers = pipe(texts, **GREEDY)
    for text, answer in zip(texts, answers, strict=True):
        ids = answer["translation_token_ids"]
        source = tokenizer(text)["input_ids"]
        assert source[-1] == end and tokenizer.decode(source, skip_special_tokens=True).startswith(text.split(",")[0])
        assert [pad, *model.new_tokens([source], num_beams=1, max_new_tokens=6, jit_compile=False)[0]] == ids
        assert answer["translation_text"] == tokenizer.decode(ids, skip_special_tokens=True)


def test_a_sentencepiece_model_alone_is_no_tokenizer(files, tmp_path):
    """transformers would make one of it, whose ids are others than LLaMA's."""
    (tmp_path / "tokenizer.model").write_bytes((files / "m2m.model").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ValueError, match="must have tokenizer.json, or a tokenizer_config.json .* got neither"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    tokenizer = load_tokenizer(tmp_path)
    assert type(tokenizer).__name__ == "LlamaTokenizer" and tokenizer.tokenize("the")[0].startswith("▁")


def test_m2m100_marks_the_language_of_text_and_translation(files):
    tokenizer = transformers.M2M100Tokenizer(str(files / "m2m.json"), str(files / "m2m.model"))
    ends = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2}
    vocabulary = max(tokenizer.lang_code_to_id.values()) + 1
    config = transformers.BartConfig(vocab_size=vocabulary, bos_token_id=0, **ends, **SIZES)
    pipe = tfheads.pipeline("translation", tfheads.BartForConditionalGeneration.from_config(config, seed=0), tokenizer)
    (answer,) = pipe("the cat", src_lang="en", tgt_lang="de", **GREEDY)
    assert answer["translation_token_ids"][:2] == [2, tokenizer.get_lang_id("de")]
    rows, more = pipe.encoded(["the cat"], pipe.settings({"src_lang": "fr", "tgt_lang": "de"}))
    assert rows[0][0] == tokenizer.get_lang_id("fr") and rows[0][-1] == 2 and 3 not in rows[0]
    assert more == {"forced_bos_token_id": tokenizer.get_lang_id("de")}
    for languages in ({"src_lang": "english", "tgt_lang": "de"}, {"src_lang": "en", "tgt_lang": "german"}):
        with pytest.raises(ValueError, match="must be languages? of M2M100Tokenizer, got .*(english|german)"):
            pipe("the cat", **languages)


def test_nllb_knows_its_languages(files):
    config = transformers.BartConfig(vocab_size=8, **SIZES)
    model = tfheads.BartForConditionalGeneration.from_config(config, seed=0)
    pipe = tfheads.pipeline("translation_eng_Latn_to_deu_Latn", model, transformers.NllbTokenizer())
    assert pipe.settings(pipe.options).options == {"src_lang": "eng_Latn", "tgt_lang": "deu_Latn"}
    with pytest.raises(ValueError, match="tgt_lang must be a language of NllbTokenizer, got 'de'"):
        pipe("the cat", tgt_lang="de")
    with pytest.raises(ValueError, match="src_lang must be a language of NllbTokenizer, got 'en'"):
        pipe("the cat", src_lang="en")
