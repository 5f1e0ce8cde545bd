"""RoBERTa: BERT whose positions count the real tokens, from one behind the padding token's id (Liu et al. 2019)."""

from dataclasses import replace
from functools import partial

from tfheads.checkpoints.rules import Bias
from tfheads.families.bert import Bert, classifier_dropout, language_model_head, output_aliases, pooler
from tfheads.heads import (
    CLASSIFIER,
    POOLER,
    ChoiceHead,
    ClassificationHead,
    DensePooler,
    FirstToken,
    TaskHead,
    encoder_heads,
)
from tfheads.layers.positions import counted
from tfheads.registry import family

LANGUAGE_MODEL = {
    "transform": "lm_head.dense",
    "norm": "lm_head.layer_norm",
    "decoder": "lm_head.decoder",
    "": Bias("lm_head"),
}
PROJECTED_CLASSIFIER = {"pooler.dense": "classifier.dense", "classifier": "classifier.out_proj"}


def classification_head(config, activation: str = "tanh") -> ClassificationHead:
    """A classifier on a projection of the first token, dropout before both."""
    rate = classifier_dropout(config)
    pooler = DensePooler(FirstToken(), config.hidden_size, activation, rate)
    return ClassificationHead(pooler, config.hidden_size, config.num_labels, config.problem_type, rate)


@family("roberta")
class Roberta(Bert):
    """RoBERTa's encoder, causal with `is_decoder`; reference: `transformers.RobertaModel`.

    `position_ids` that a caller gives are rows of the position table, as in transformers: the first real token's is
    `pad_token_id` + 1.
    """

    class_prefix = "Roberta"
    class_names = {}
    checkpoint_prefix = "roberta"
    heads = {
        **encoder_heads(partial(language_model_head, activation="gelu"), LANGUAGE_MODEL, pooler, classifier_dropout),
        "sequence-classification": TaskHead(classification_head, PROJECTED_CLASSIFIER),
        "multiple-choice": TaskHead(
            lambda config: ChoiceHead(pooler(config), config.hidden_size, config.hidden_dropout_prob),
            (POOLER, CLASSIFIER),
        ),
    }
    reference = "Liu et al. 2019, transformers.RobertaModel"

    @property
    def first_position(self) -> int:
        return self.config.pad_token_id + 1

    def position_ids(self, inputs, length):
        if inputs.get("input_ids") is None:
            return super().position_ids(inputs, length)
        return self.first_position + counted(inputs["input_ids"] != self.config.pad_token_id, padding=-1)

    def check_config(self, reader):
        super().check_config(reader)
        if self.config.pad_token_id is None:
            raise ValueError("pad_token_id must be a token id, from which positions are counted, got None")

    @staticmethod
    def table(config):
        aliases = output_aliases(config, "lm_head.decoder", "lm_head.bias")
        return replace(Bert.table(config), aliases=aliases)


@family("xlm-roberta")
class XLMRoberta(Roberta):
    """RoBERTa for a hundred languages; reference: `transformers.XLMRobertaModel`."""

    class_prefix = "XLMRoberta"
    reference = "Conneau et al. 2019, transformers.XLMRobertaModel"


@family("camembert")
class Camembert(Roberta):
    """RoBERTa for French; reference: `transformers.CamembertModel`."""

    class_prefix = "Camembert"
    reference = "Martin et al. 2019, transformers.CamembertModel"
