"""Ids of tokenizers and of data that have no row in the model's token table: one sentence before any training."""

import json

import datasets
import numpy as np
import pytest
import transformers

from tests import tiny_models
from tests.fixtures import tiny_tokenizers
from tfheads import EncoderDecoderModel
from tfheads.data.batching import PaddedRows, prepare_tf_dataset
from tfheads.data.choices import ChoiceRows
from tfheads.data.pipeline import TokenBlocks
from tfheads.models import ForCausalLM
from tfheads.recipes.arguments import CausalLanguageModellingArguments
from tfheads.recipes.models import load_model, load_tokenizer
from tfheads.vocabulary import check_tokenizer, highest_id


@pytest.fixture(scope="module")
def gaps(tmp_path_factory):
    """The directory of a tokenizer whose ids have gaps: 283 tokens, the highest id is 400."""
    directory = tmp_path_factory.mktemp("gaps")
    tiny_tokenizers.byte_level_bpe().save_pretrained(directory)
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] = 400
    path.write_text(json.dumps(content))
    return directory


def arguments(directory, **changes):
    values = {"tokenizer_name": str(directory), "train_file": ["a.txt"], "output_dir": "out", "do_train": True}
    sizes = {"n_layer": 1, "n_embd": 8, "n_head": 2, "n_positions": 8}
    new = {"model_type": "gpt2", "config_overrides": {**sizes, **changes.pop("config_overrides", {})}}
    return CausalLanguageModellingArguments(**{**values, **new, **changes})


def test_a_tokenizer_with_gaps(gaps):
    tokenizer = load_tokenizer(arguments(gaps))
    assert len(tokenizer) < highest_id(tokenizer) == 400
    check_tokenizer(tokenizer, 401)
    few = arguments(gaps, config_overrides={"vocab_size": 400})
    with pytest.raises(ValueError, match="tokenizer has the token id 400, but the model only 400 tokens, 0 .. 399"):
        load_model(few, tokenizer, ForCausalLM)
    assert load_model(arguments(gaps), tokenizer, ForCausalLM).vocab_size == 401  # new weights have a row for each id


def test_data_of_another_tokenizer():
    rows = datasets.Dataset.from_dict({"input_ids": [[1, 2], [9, 4]], "labels": [[1, 2], [3, 4]]})
    with pytest.raises(ValueError, match="the data has the token id 9, but the model only 9 tokens"):
        prepare_tf_dataset(rows, 2, vocab_size=9)
    PaddedRows(rows.remove_columns("input_ids")).check_vocabulary(1)  # has none


def test_sources_are_read_by_the_encoder():
    """Its table may have more rows than the decoder's."""
    decoder = tiny_models.gpt2_config(vocab_size=5)
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        tiny_models.bert_config(vocab_size=10), decoder, decoder_start_token_id=1, pad_token_id=0
    )
    model = EncoderDecoderModel(config)
    model.prepare_tf_dataset(datasets.Dataset.from_dict({"input_ids": [[9]]}), 1)
    with pytest.raises(ValueError, match="the data has the token id 10, but the model only 10 tokens"):
        model.prepare_tf_dataset(datasets.Dataset.from_dict({"input_ids": [[10]]}), 1)


@pytest.mark.parametrize("kind", ["blocks", "rows", "choices"])
def test_each_kind_of_data_knows_its_ids(kind):
    ids = np.array([[1, 7], [2, 3]], np.int32)
    flat = PaddedRows(datasets.Dataset.from_dict({"input_ids": ids}))
    choices = ChoiceRows(flat, 2, None, np.array([2, 2]), [2])
    data = {"blocks": TokenBlocks({"input_ids": ids}), "rows": flat, "choices": choices}[kind]
    data.check_vocabulary(8)
    with pytest.raises(ValueError, match="the data has the token id 7, but the model only 7 tokens"):
        data.check_vocabulary(7)
