"""ELECTRA: BERT with narrow embeddings, trained to tell replaced tokens from real ones (Clark et al. 2020)."""

from dataclasses import replace
from functools import partial

from tfheads.checkpoints.rules import Bias
from tfheads.checkpoints.tables import tied_output
from tfheads.families.bert import Bert, language_model_head
from tfheads.families.roberta import PROJECTED_CLASSIFIER, classification_head
from tfheads.heads import (
    CLASSIFIER,
    ChoiceHead,
    DensePooler,
    DiscriminatorHead,
    FirstToken,
    LanguageModelHead,
    TaskHead,
)
from tfheads.layers import LayerNorm, TextEmbeddings
from tfheads.layers.projections import dense
from tfheads.registry import family

GENERATOR = {
    "transform": "generator_predictions.dense",
    "norm": "generator_predictions.LayerNorm",
    "decoder": "generator_lm_head",
    "": Bias("generator_lm_head"),
}


def generator_head(config, causal: bool = False) -> LanguageModelHead:
    """BERT's language-model head, as wide as the embeddings."""
    return language_model_head(config, causal, "gelu", config.embedding_size)


def choice_head(config) -> ChoiceHead:
    """A classifier on a summary of the row, of which published checkpoints have one kind."""
    if config.summary_type != "first" or not config.summary_use_proj:
        given = f"{config.summary_type!r} and {config.summary_use_proj}"
        raise ValueError(f"summary_type must be 'first' and summary_use_proj True for multiple choice, got {given}")
    pooler = DensePooler(FirstToken(), config.hidden_size, config.summary_activation or "linear")
    return ChoiceHead(pooler, config.hidden_size, dropout=config.summary_last_dropout)


@family("electra")
class Electra(Bert):
    """ELECTRA's discriminator and generator, causal with `is_decoder`; reference: `transformers.ElectraModel`."""

    class_prefix = "Electra"
    class_names = {}
    checkpoint_prefix = "electra"
    inert = {
        "classifier_dropout": "read by the classification heads",
        **dict.fromkeys(
            ("summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout"),
            "read by the multiple-choice head",
        ),
    }
    heads = {
        "base": TaskHead(),
        "causal-lm": TaskHead(partial(generator_head, causal=True), GENERATOR),
        "masked-lm": TaskHead(generator_head, GENERATOR),
        "pre-training": TaskHead(
            lambda config: DiscriminatorHead(config.hidden_size, config.hidden_act),
            {"{transform,classifier}": "discriminator_predictions.{dense,dense_prediction}"},
        ),
        "sequence-classification": TaskHead(partial(classification_head, activation="gelu"), PROJECTED_CLASSIFIER),
        "multiple-choice": TaskHead(choice_head, {"pooler.dense": "sequence_summary.summary", **CLASSIFIER}),
        "token-classification": Bert.heads["token-classification"],
        "question-answering": Bert.heads["question-answering"],
    }
    reference = "Clark et al. 2020, transformers.ElectraModel"

    @staticmethod
    def make_embeddings(config):
        width, same = config.embedding_size, config.embedding_size == config.hidden_size
        return TextEmbeddings(
            config.vocab_size,
            width,
            num_positions=config.max_position_embeddings,
            num_types=config.type_vocab_size,
            norm=LayerNorm(width, config.layer_norm_eps),
            dropout=config.hidden_dropout_prob,
            projection=None if same else dense(width, config.hidden_size),
        )

    @staticmethod
    def table(config):
        base = Bert.table(config)
        return replace(
            base,
            backbone={**base.backbone, "embeddings.projection": "embeddings_project"},
            aliases=tied_output(config, "{base}embeddings.word_embeddings.weight", "generator_lm_head.weight"),
        )
