"""Heads that are two: a language model's logits beside a statement about the whole row."""

import keras

from tfheads.checks import within
from tfheads.heads.head import Head
from tfheads.heads.language import LanguageModelHead
from tfheads.heads.summary import SequenceSummary
from tfheads.layers.dropout import Dropout
from tfheads.layers.part import part
from tfheads.layers.projections import dense
from tfheads.losses import ChoiceCrossEntropy, ClassCrossEntropy, TokenCrossEntropy


@part
class PreTrainingHead(Head):
    """`prediction_logits` `[batch, time, vocabulary]` and the classes of a pair of texts `[batch, 2]` (BERT, ALBERT).

    Args:
        language_model: the masked language model's head.
        pooler: makes a row's vector for the pair's class.
        width: of that vector.
        dropout: rate on that vector.
        logits: name of the pair's logits.
        labels: name of the pair's labels.
    """

    def __init__(
        self,
        language_model: LanguageModelHead,
        pooler: keras.layers.Layer,
        width: int,
        dropout: float = 0.0,
        logits: str = "seq_relationship_logits",
        labels: str = "next_sentence_label",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.language_model, self.pooler, self.width, self.dropout = language_model, pooler, width, dropout
        self.logits, self.labels = logits, labels
        self.drop = Dropout(dropout, dtype=self.dtype_policy)
        self.classifier = dense(width, 2, dtype=self.dtype_policy)

    @property
    def criteria(self) -> tuple:
        """What the head is trained on."""
        return (
            TokenCrossEntropy(self.language_model.vocab_size, logits="prediction_logits"),
            ClassCrossEntropy(2, logits=self.logits, labels=self.labels),
        )

    def call(self, encoded, token_table=None, inputs=None, training=None):
        """Both logits of the backbone's output."""
        pooled = self.drop(self.pooler(encoded, inputs=inputs, training=training), training=training)
        predicted = self.language_model.logits(encoded["last_hidden_state"], token_table)
        return {"prediction_logits": predicted, self.logits: self.classifier(pooled)}


@part
class DoubleHead(Head):
    """`logits` `[batch, time, vocabulary]` of the next tokens and a logit `mc_logits` `[batch]` for the row (GPT-2).

    Args:
        language_model: the causal language model's head.
        summary: makes the row's logit.
    """

    input_names = ("mc_token_ids",)

    def __init__(self, language_model: LanguageModelHead, summary: SequenceSummary, **kwargs):
        super().__init__(**kwargs)
        self.language_model, self.summary = language_model, summary

    @property
    def criteria(self) -> tuple:
        """What the head is trained on."""
        return (*self.language_model.criteria, ChoiceCrossEntropy(logits="mc_logits", labels="mc_labels"))

    def check_inputs(self, inputs) -> list:
        """Requires places within the row; see `tfheads.checks.require`."""
        if "mc_token_ids" not in inputs:
            return []
        tokens = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"]
        length = tokens.shape[1]
        return within("mc_token_ids", inputs["mc_token_ids"], 0, None if length is None else length - 1)

    def call(self, encoded, token_table=None, inputs=None, training=None):
        """Both logits of the backbone's output, the choices of an example one after another."""
        logits = self.language_model.logits(encoded["last_hidden_state"], token_table)
        return {"logits": logits, "mc_logits": self.summary(encoded, inputs=inputs, training=training)}
