"""`model.prepare_tf_dataset`: a tokenised dataset goes into `fit` as it did with transformers' TensorFlow models."""

import datasets
import pytest
import transformers

import tfheads
from tfheads.data.tokenizer_training import train_byte_level_bpe


def test_rows_of_any_length_train_and_foreign_columns_stay_out():
    texts = ["one two three", "one two", "three three one two one", "two"] * 4
    tokenizer = train_byte_level_bpe(texts, vocab_size=300)
    tokenizer.pad_token = tokenizer.eos_token
    rows = [{"input_ids": ids, "labels": ids, "source": "a book"} for ids in tokenizer(texts)["input_ids"]]
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    model = tfheads.GPT2LMHeadModel.from_config(config)
    foreign = datasets.Dataset.from_dict({"input_ids": [[len(tokenizer)]], "labels": [[0]]})
    with pytest.raises(ValueError, match="the data has the token id 2.., but the model only"):
        model.prepare_tf_dataset(foreign, batch_size=1)
    batches = model.prepare_tf_dataset(datasets.Dataset.from_list(rows), batch_size=4, tokenizer=tokenizer, seed=0)
    features, labels = next(iter(batches))
    assert set(features) == {"input_ids", "attention_mask"}
    assert labels.shape == features["input_ids"].shape
    assert ((labels.numpy() == -100) == (features["attention_mask"].numpy() == 0)).all()
    model.compile(optimizer="adam", jit_compile=False)
    losses = model.fit(batches, epochs=3, verbose=0).history["loss"]
    assert losses[2] < losses[0]
