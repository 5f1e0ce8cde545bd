"""RoBERTa: BERT whose positions count the real tokens, from one behind the padding token's id (Liu et al. 2019)."""

from dataclasses import replace
from functools import partial

from tfheads.checkpoints.tables import Bias
from tfheads.families.bert import Bert, classifier_dropout, language_model_head, pooler
from tfheads.heads import ChoiceHead, ClassificationHead, DensePooler, FirstToken, standard_heads
from tfheads.layers.positions import counted
from tfheads.registry import family


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
        **standard_heads(pooler, classifier_dropout),
        "base": Bert.heads["base"],
        "causal-lm": partial(language_model_head, causal=True, activation="gelu"),
        "masked-lm": partial(language_model_head, activation="gelu"),
        "sequence-classification": classification_head,
        "multiple-choice": lambda config: ChoiceHead(pooler(config), config.hidden_size, config.hidden_dropout_prob),
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
        language_model = {
            "transform": "lm_head.dense",
            "norm": "lm_head.layer_norm",
            "decoder": "lm_head.decoder",
            "": Bias("lm_head"),
        }
        pooled, classifier = {"pooler.dense": "{base}pooler.dense"}, {"classifier": "classifier"}
        copies = {
            "lm_head.decoder.weight": "{base}embeddings.word_embeddings.weight",
            "lm_head.decoder.bias": "lm_head.bias",
        }
        return replace(
            Bert.table(config),
            heads={
                "base": pooled,
                "causal-lm": language_model,
                "masked-lm": language_model,
                "sequence-classification": {"pooler.dense": "classifier.dense", "classifier": "classifier.out_proj"},
                "multiple-choice": (pooled, classifier),
                "token-classification": classifier,
                "question-answering": {"classifier": "qa_outputs"},
            },
            copies=copies if config.tie_word_embeddings else {},
            echoes={} if config.tie_word_embeddings else {"lm_head.bias": "lm_head.decoder.bias"},
        )


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
