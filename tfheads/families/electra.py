"""ELECTRA: BERT with narrow embeddings, trained to tell replaced tokens from real ones (Clark et al. 2020)."""

from dataclasses import replace
from functools import partial

from tfheads.checkpoints.tables import Bias
from tfheads.families.bert import Bert, language_model_head
from tfheads.families.roberta import classification_head
from tfheads.heads import ChoiceHead, DensePooler, DiscriminatorHead, FirstToken, LanguageModelHead
from tfheads.layers import LayerNorm, TextEmbeddings
from tfheads.layers.projections import dense
from tfheads.registry import family


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
        "base": None,
        "causal-lm": partial(generator_head, causal=True),
        "masked-lm": generator_head,
        "pre-training": lambda config: DiscriminatorHead(config.hidden_size, config.hidden_act),
        "sequence-classification": partial(classification_head, activation="gelu"),
        "multiple-choice": choice_head,
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
        generator = {
            "transform": "generator_predictions.dense",
            "norm": "generator_predictions.LayerNorm",
            "decoder": "generator_lm_head",
            "": Bias("generator_lm_head"),
        }
        copies = {"generator_lm_head.weight": "{base}embeddings.word_embeddings.weight"}
        return replace(
            base,
            backbone={**base.backbone, "embeddings.projection": "embeddings_project"},
            heads={
                "causal-lm": generator,
                "masked-lm": generator,
                "pre-training": {"{transform,classifier}": "discriminator_predictions.{dense,dense_prediction}"},
                "sequence-classification": {"pooler.dense": "classifier.dense", "classifier": "classifier.out_proj"},
                "token-classification": {"classifier": "classifier"},
                "question-answering": {"classifier": "qa_outputs"},
                "multiple-choice": {"pooler.dense": "sequence_summary.summary", "classifier": "classifier"},
            },
            copies=copies if config.tie_word_embeddings else {},
            echoes={},
        )
