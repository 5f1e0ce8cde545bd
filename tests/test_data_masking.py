"""Dynamic masking: the rates, the exceptions, and that a row's masks depend on seed, epoch and row alone."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from transformers import DataCollatorForLanguageModeling

from tfheads.data.masking import TokenMasking
from tfheads.data.tokenizer_training import train_wordpiece

MASK, VOCABULARY, SPECIAL = 4, 1000, (0, 1, 2, 3, 4)
# An outcome this improbable means that the rates are wrong (the draws are fixed, so a pass stays a pass).
IMPROBABLE = 1e-4


def make_batch(rows=400, length=128, seed=0):
    """Rows [CLS] words [SEP] [PAD]... of several lengths."""
    random = np.random.default_rng(seed)
    ids = random.integers(5, VOCABULARY, (rows, length)).astype(np.int32)
    ends = random.integers(length // 2, length, rows)
    steps = np.arange(length)[None]
    ids[:, 0] = 2
    ids = np.where(steps == ends[:, None], 3, np.where(steps > ends[:, None], 0, ids)).astype(np.int32)
    return {"input_ids": tf.constant(ids), "attention_mask": tf.constant((steps <= ends[:, None]).astype(np.int32))}


def apply(masking, batch, epoch=0, rows=None):
    rows = np.arange(len(batch["input_ids"])) if rows is None else rows
    return {name: value.numpy() for name, value in masking(batch, tf.constant(rows, tf.int64), epoch).items()}


def shares(ids, out):
    """Counts (selectable, selected, masked, changed otherwise, kept)."""
    selectable = ~np.isin(ids, SPECIAL)
    selected = out["labels"] != -100
    masked = selected & (out["input_ids"] == MASK)
    changed = selected & ~masked & (out["input_ids"] != ids)
    return [int(x.sum()) for x in (selectable, selected, masked, changed, selected & ~masked & ~changed)]


def probability(successes, trials, rate):
    return stats.binomtest(successes, trials, rate).pvalue


def test_rates_are_berts():
    batch = make_batch()
    ids = batch["input_ids"].numpy()
    out = apply(TokenMasking(MASK, VOCABULARY, SPECIAL), batch)
    selectable, selected, masked, changed, kept = shares(ids, out)
    assert selectable > 30_000
    assert probability(selected, selectable, 0.15) > IMPROBABLE
    # A random token may be the mask token or the token itself, each once in VOCABULARY.
    expected = np.array([0.8 + 0.1 / VOCABULARY, 0.1 - 0.2 / VOCABULARY, 0.1 + 0.1 / VOCABULARY]) * selected
    assert stats.chisquare([masked, changed, kept], expected).pvalue > IMPROBABLE
    replacements = out["input_ids"][(out["input_ids"] != ids) & (out["input_ids"] != MASK)]
    assert stats.chisquare(np.bincount(replacements // 100, minlength=10)).pvalue > IMPROBABLE
    where = np.nonzero(out["labels"] != -100)[1]
    assert stats.chisquare(np.bincount(where[where < 64] // 8, minlength=8)[1:]).pvalue > IMPROBABLE


def test_labels_are_the_hidden_tokens_and_nothing_else_changes():
    batch = make_batch(50)
    ids, mask = batch["input_ids"].numpy(), batch["attention_mask"].numpy()
    out = apply(TokenMasking(MASK, VOCABULARY, SPECIAL, probability=0.5), batch)
    selected = out["labels"] != -100
    assert (out["labels"][selected] == ids[selected]).all() and (out["input_ids"][~selected] == ids[~selected]).all()
    assert not selected[np.isin(ids, SPECIAL)].any() and not selected[mask == 0].any()
    assert (out["attention_mask"] == mask).all() and out["labels"].dtype == out["input_ids"].dtype == np.int32
    # Padding is left alone whatever id stands in it.
    batch["input_ids"] = tf.where(batch["attention_mask"] == 0, 7, batch["input_ids"])
    all_selected = apply(TokenMasking(MASK, VOCABULARY, SPECIAL, probability=1.0), batch)["labels"] != -100
    assert (all_selected == ((mask == 1) & ~np.isin(ids, SPECIAL))).all()


def test_shares_can_be_chosen():
    batch = make_batch(50)
    ids = batch["input_ids"].numpy()
    _, selected, masked, _, _ = shares(
        ids, apply(TokenMasking(MASK, VOCABULARY, SPECIAL, mask_share=1, random_share=0), batch)
    )
    assert selected == masked > 0
    _, selected, _, _, kept = shares(
        ids, apply(TokenMasking(MASK, VOCABULARY, SPECIAL, mask_share=0, random_share=0), batch)
    )
    assert selected == kept > 0
    _, selected, _, _, _ = shares(ids, apply(TokenMasking(MASK, VOCABULARY, SPECIAL, probability=0), batch))
    assert selected == 0


def test_agrees_with_the_collator_of_transformers():
    """Same text through transformers' collator: every count is a plausible draw from the same distribution."""
    tokenizer = train_wordpiece(["the statement returns unbelievable values, always " * 3], 60)
    text = "the statement returns unbelievable values, always " * 30
    rows = [tokenizer(text, truncation=True, max_length=100) for _ in range(150)]
    collator = DataCollatorForLanguageModeling(tokenizer, return_tensors="np", seed=1)
    theirs = collator([dict(row) for row in rows])
    ids = np.array([row["input_ids"] for row in rows], np.int32)
    batch = {"input_ids": tf.constant(ids), "attention_mask": tf.ones_like(ids)}
    ours = apply(TokenMasking.from_tokenizer(tokenizer), batch)
    table = [shares(ids, out) for out in (ours, theirs)]
    assert table[0][0] == table[1][0]  # the same tokens may be selected
    selected = [[row[1], row[0] - row[1]] for row in table]
    assert stats.chi2_contingency(selected).pvalue > IMPROBABLE
    assert stats.chi2_contingency([row[2:] for row in table]).pvalue > IMPROBABLE
    assert set(ours) == {"input_ids", "attention_mask", "labels"}


def test_masks_depend_on_seed_epoch_and_row_alone():
    batch, masking = make_batch(20), TokenMasking(MASK, VOCABULARY, SPECIAL, seed=3)
    whole = apply(masking, batch, epoch=2)
    order = np.random.default_rng(0).permutation(20)[:7]
    part = apply(masking, {name: tf.gather(value, order) for name, value in batch.items()}, epoch=2, rows=order)
    for name in whole:
        assert (part[name] == whole[name][order]).all()
    others = [
        apply(masking, batch, epoch=3),
        apply(TokenMasking(MASK, VOCABULARY, SPECIAL, seed=4), batch, epoch=2),
        apply(masking, batch, epoch=2, rows=np.arange(20) + 1),
    ]
    for other in others:
        overlap = ((other["labels"] != -100) & (whole["labels"] != -100)).sum() / (whole["labels"] != -100).sum()
        assert 0.05 < overlap < 0.25


def test_whole_words_are_selected_together():
    batch = make_batch(300)
    continuation = (np.random.default_rng(1).random(batch["input_ids"].shape) < 0.4).astype(np.int32)
    continuation[np.isin(batch["input_ids"], SPECIAL)] = 0
    batch["word_continuation"] = tf.constant(continuation)
    ids = batch["input_ids"].numpy()
    out = apply(TokenMasking(MASK, VOCABULARY, SPECIAL, whole_word=True), batch)
    selected, open_words = out["labels"] != -100, ~np.isin(ids, SPECIAL)
    goes_on = (continuation[:, 1:] == 1) & open_words[:, :-1]
    assert (selected[:, 1:] == selected[:, :-1])[goes_on].all() and goes_on.sum() > 5000
    starts = open_words & (continuation == 0)
    assert probability(int((selected & starts).sum()), int(starts.sum()), 0.15) > IMPROBABLE
    _, number, masked, changed, _ = shares(ids, out)
    assert probability(masked, number, 0.8) > IMPROBABLE and probability(changed, number, 0.1) > IMPROBABLE
    assert "word_continuation" not in out
    # Pieces are masked, replaced or kept one by one, as in BERT.
    pairs = selected[:, 1:] & goes_on
    assert (out["input_ids"][:, 1:] == MASK)[pairs].std() > 0


def test_runs_in_a_graph_with_unknown_shapes():
    batch, masking = make_batch(5), TokenMasking(MASK, VOCABULARY, SPECIAL)
    spec = tf.TensorSpec([None, None], tf.int32)
    function = tf.function(
        lambda ids, mask, rows, epoch: masking({"input_ids": ids, "attention_mask": mask}, rows, epoch),
        input_signature=[spec, spec, tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int64)],
    )
    found = function(batch["input_ids"], batch["attention_mask"], tf.range(5, dtype=tf.int64), tf.constant(1, tf.int64))
    for name, value in apply(masking, batch, epoch=1).items():
        assert (found[name].numpy() == value).all()


def test_wrong_shares_and_tokenizers():
    with pytest.raises(ValueError, match="probability must be from 0 to 1, got 1.5"):
        TokenMasking(MASK, VOCABULARY, probability=1.5)
    with pytest.raises(ValueError, match="mask_share and random_share must be at most 1 together, got 1.1"):
        TokenMasking(MASK, VOCABULARY, mask_share=0.9, random_share=0.2)
    tokenizer = train_wordpiece(["a b c"], 20)
    tokenizer.mask_token = None
    with pytest.raises(ValueError, match="needs a tokenizer with a mask_token"):
        TokenMasking.from_tokenizer(tokenizer)
