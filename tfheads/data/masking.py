"""Masked language modelling: which tokens to hide, drawn anew in every epoch, inside the tf.data graph.

The rule is BERT's (Devlin et al. 2018): of the tokens that are selected, 80 % become the mask token, 10 % another one
and 10 % stay. What is drawn for a row depends on the seed, the epoch and the number of the row in the data and on
nothing else: not on the batch size, the order, the shard or on where a run was resumed.
"""

from collections.abc import Mapping, Sequence

import tensorflow as tf
from transformers import PreTrainedTokenizerBase

IGNORED = -100


class TokenMasking:
    """Turns batches of token ids into masked ones with labels; `-100` where nothing is to be predicted.

    Args:
        mask_token_id: the id that hides a token.
        vocab_size: replacements are drawn from 0 .. vocab_size - 1, all with the same probability.
        special_token_ids: ids that are never selected.
        probability: the share of the other tokens that is selected, each independently (`mlm_probability`).
        mask_share, random_share: of the selected tokens, what becomes the mask token and what a random one; the rest
            stays as it is.
        whole_word: select words instead of tokens: all pieces of a word or none. Needs the column
            `word_continuation`. Each piece of a selected word is then masked, replaced or kept by itself, as in BERT.
        seed: another seed draws other tokens.

    Raises:
        ValueError: a share outside 0 .. 1, or shares above 1 together.
    """

    def __init__(
        self,
        mask_token_id: int,
        vocab_size: int,
        special_token_ids: Sequence[int] = (),
        *,
        probability: float = 0.15,
        mask_share: float = 0.8,
        random_share: float = 0.1,
        whole_word: bool = False,
        seed: int = 0,
    ):
        for name, share in (("probability", probability), ("mask_share", mask_share), ("random_share", random_share)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {share}.")
        if mask_share + random_share > 1:
            raise ValueError(
                f"mask_share and random_share must be at most 1 together, got {mask_share + random_share}."
            )
        self.mask_token_id = mask_token_id
        self.vocab_size = vocab_size
        self.special_token_ids = sorted({*special_token_ids, mask_token_id})
        self.probability = probability
        self.mask_share = mask_share
        self.random_share = random_share
        self.whole_word = whole_word
        self.seed = seed

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase, **options) -> "TokenMasking":
        """The masking for a tokenizer's vocabulary and special tokens; `options` as for the class.

        Raises:
            ValueError: the tokenizer has no mask token.
        """
        if tokenizer.mask_token_id is None:
            raise ValueError("masked language modelling needs a tokenizer with a mask_token, this one has none.")
        return cls(tokenizer.mask_token_id, len(tokenizer), tokenizer.all_special_ids, **options)

    def __call__(self, batch: Mapping[str, tf.Tensor], rows: tf.Tensor, epoch: tf.Tensor | int) -> dict[str, tf.Tensor]:
        """The masked batch.

        Args:
            batch: `input_ids` and `attention_mask` `[batch, time]`, with `whole_word` also `word_continuation`.
            rows: `[batch]`, the number of each row in the data.
            epoch: scalar.

        Returns:
            `input_ids`, `attention_mask` and `labels`, int32 `[batch, time]`, and what else the batch held.
        """
        ids, others = batch["input_ids"], {k: v for k, v in batch.items() if k != "word_continuation"}
        selection, action, replacement = self._draws(rows, epoch, tf.shape(ids)[1])
        if self.whole_word:
            starts = 1 - tf.cast(batch["word_continuation"], tf.int32)
            # A word that was cut by the block's start begins there.
            starts = tf.concat([tf.ones_like(starts[:, :1]), starts[:, 1:]], axis=1)
            selection = tf.gather(selection, tf.cumsum(starts, axis=1) - 1, axis=1, batch_dims=1)
        selected = (selection < self.probability) & ~self._untouchable(ids, batch["attention_mask"])
        masked = selected & (action < self.mask_share)
        replaced = selected & (action >= self.mask_share) & (action < self.mask_share + self.random_share)
        hidden = tf.where(masked, tf.constant(self.mask_token_id, ids.dtype), tf.where(replaced, replacement, ids))
        return {**others, "input_ids": hidden, "labels": tf.where(selected, ids, tf.constant(IGNORED, ids.dtype))}

    def _untouchable(self, ids: tf.Tensor, attention_mask: tf.Tensor) -> tf.Tensor:
        special = tf.constant(self.special_token_ids, ids.dtype)
        return tf.reduce_any(ids[..., None] == special, axis=-1) | (attention_mask == 0)

    def _draws(self, rows: tf.Tensor, epoch: tf.Tensor | int, length: tf.Tensor) -> tuple[tf.Tensor, ...]:
        epoch = tf.cast(epoch, tf.int64)

        def one_row(row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # Epochs and rows share one 64 bit word: 2**23 epochs of 2**39 rows, twice.
            position = tf.bitwise.left_shift(epoch, tf.constant(40, tf.int64)) + 2 * row
            seed = tf.constant(self.seed, tf.int64)
            uniform = tf.random.stateless_uniform([2, length], tf.stack([seed, position]))
            tokens = tf.random.stateless_uniform(
                [length], tf.stack([seed, position + 1]), 0, self.vocab_size, dtype=tf.int32
            )
            return uniform, tokens

        specs = (tf.TensorSpec([2, None], tf.float32), tf.TensorSpec([None], tf.int32))
        uniform, tokens = tf.map_fn(one_row, tf.cast(rows, tf.int64), fn_output_signature=specs)
        return uniform[:, 0], uniform[:, 1], tokens
