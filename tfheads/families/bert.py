"""BERT: post-norm encoder with learned positions and segment types (Devlin et al. 2018)."""

from functools import partial

from tfheads.backbones import Backbone
from tfheads.checkpoints.rules import Bias, within
from tfheads.checkpoints.tables import Alias, Table
from tfheads.heads import (
    POOLER,
    ClassificationHead,
    DensePooler,
    FirstToken,
    LanguageModelHead,
    PreTrainingHead,
    TaskHead,
    encoder_heads,
)
from tfheads.layers import Attention, CrossAttention, FeedForward, LayerNorm, PostNormBlock, Stack, TextEmbeddings, View
from tfheads.registry import family

LANGUAGE_MODEL = {
    "transform": "cls.predictions.transform.dense",
    "norm": "cls.predictions.transform.LayerNorm",
    "decoder": "cls.predictions.decoder",
    "": Bias("cls.predictions"),
}
NEXT_SENTENCE = {"classifier": "cls.seq_relationship"}


def language_model_head(
    config, causal: bool = False, activation: str | None = None, width: int | None = None
) -> LanguageModelHead:
    """BERT's language-model head: a projection, for relatives to another width, then the output table with a bias."""
    return LanguageModelHead(
        config.hidden_size,
        config.vocab_size,
        tied=config.tie_word_embeddings,
        use_bias=True,
        causal=causal,
        activation=activation or config.hidden_act,
        norm=LayerNorm(width or config.hidden_size, config.layer_norm_eps),
        transform_size=width,
    )


def pooler(config) -> DensePooler:
    """BERT's pooler: the first token's value, through a projection and tanh."""
    return DensePooler(FirstToken(), config.hidden_size)


def classifier_dropout(config) -> float:
    """The rate in front of a classifier."""
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout


def output_aliases(config, decoder: str, bias: str) -> tuple[Alias, ...]:
    """Second names of an output table, which is tied to the tokens or not, and of its bias, which has always two."""
    if not config.tie_word_embeddings:
        return (Alias(bias, f"{decoder}.bias", written=True),)
    tokens = "{base}embeddings.word_embeddings.weight"
    return Alias(f"{decoder}.weight", tokens), Alias(f"{decoder}.bias", bias)


@family("bert")
class Bert(Backbone):
    """BERT's encoder, causal with `is_decoder`; reference: `transformers.BertModel`."""

    class_prefix = "Bert"
    class_names = {"causal-lm": ("BertLMHeadModel", "BertForCausalLM")}
    checkpoint_prefix = "bert"
    input_names = (
        *Backbone.input_names,
        "token_type_ids",
        "encoder_hidden_states",
        "encoder_attention_mask",
    )
    inert = {"classifier_dropout": "read by the classification heads"}
    heads = {
        **encoder_heads(language_model_head, LANGUAGE_MODEL, pooler, classifier_dropout),
        "pre-training": TaskHead(
            lambda config: PreTrainingHead(language_model_head(config), pooler(config), config.hidden_size),
            (within("language_model", LANGUAGE_MODEL), POOLER, NEXT_SENTENCE),
        ),
        "next-sentence-prediction": TaskHead(
            lambda config: ClassificationHead(pooler(config), config.hidden_size, 2, "single_label_classification"),
            (POOLER, NEXT_SENTENCE),
        ),
    }
    reference = "Devlin et al. 2018, transformers.BertModel"

    @staticmethod
    def make_embeddings(config):
        return TextEmbeddings(
            config.vocab_size,
            config.hidden_size,
            num_positions=config.max_position_embeddings,
            num_types=config.type_vocab_size,
            norm=LayerNorm(config.hidden_size, config.layer_norm_eps),
            dropout=config.hidden_dropout_prob,
        )

    @staticmethod
    def make_stack(config):
        if config.add_cross_attention and not config.is_decoder:
            raise ValueError("add_cross_attention needs is_decoder=True, got is_decoder=False")
        norm = partial(LayerNorm, config.hidden_size, config.layer_norm_eps)
        sizes = config.hidden_size, config.num_attention_heads
        dropout = config.attention_probs_dropout_prob

        def block():
            return PostNormBlock(
                Attention(*sizes, dropout=dropout),
                FeedForward(config.hidden_size, config.intermediate_size, config.hidden_act),
                attention_norm=norm(),
                feed_forward_norm=norm(),
                cross_attention=CrossAttention(*sizes, dropout=dropout) if config.add_cross_attention else None,
                cross_attention_norm=norm() if config.add_cross_attention else None,
                dropout=config.hidden_dropout_prob,
            )

        return Stack([block() for _ in range(config.num_hidden_layers)], View(causal=config.is_decoder))

    @staticmethod
    def table(config):
        block, theirs = "stack.blocks.{i}.", "encoder.layer.{i}."
        return Table(
            backbone={
                "embeddings.{token,position,token_type}": "embeddings.{word,position,token_type}_embeddings",
                "embeddings.norm": "embeddings.LayerNorm",
                block + "attention.{query,key,value}": theirs + "attention.self.{query,key,value}",
                block + "attention.output_dense": theirs + "attention.output.dense",
                block + "attention_norm": theirs + "attention.output.LayerNorm",
                block + "cross_attention.{query,key,value}": theirs + "crossattention.self.{query,key,value}",
                block + "cross_attention.output_dense": theirs + "crossattention.output.dense",
                block + "cross_attention_norm": theirs + "crossattention.output.LayerNorm",
                block + "feed_forward.{up,down}": theirs + "{intermediate,output}.dense",
                block + "feed_forward_norm": theirs + "output.LayerNorm",
            },
            aliases=output_aliases(config, "cls.predictions.decoder", "cls.predictions.bias"),
            ignored=(r"embeddings\.position_ids$",),
        )
