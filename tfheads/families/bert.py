"""BERT: post-norm encoder with learned positions and segment types (Devlin et al. 2018)."""

from functools import partial

from tfheads.backbones import Backbone
from tfheads.checkpoints.tables import Bias, Table, within
from tfheads.heads import (
    ClassificationHead,
    DensePooler,
    FirstToken,
    LanguageModelHead,
    PooledModelHead,
    PreTrainingHead,
    standard_heads,
)
from tfheads.layers import Attention, CrossAttention, FeedForward, LayerNorm, PostNormBlock, Stack, TextEmbeddings, View
from tfheads.registry import family


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
        **standard_heads(pooler, classifier_dropout),
        "base": lambda config: PooledModelHead(pooler(config)),
        "causal-lm": partial(language_model_head, causal=True),
        "masked-lm": language_model_head,
        "pre-training": lambda config: PreTrainingHead(language_model_head(config), pooler(config), config.hidden_size),
        "next-sentence-prediction": lambda config: ClassificationHead(
            pooler(config), config.hidden_size, 2, "single_label_classification"
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
        language_model = {
            "transform": "cls.predictions.transform.dense",
            "norm": "cls.predictions.transform.LayerNorm",
            "decoder": "cls.predictions.decoder",
            "": Bias("cls.predictions"),
        }
        pooler = {"pooler.dense": "{base}pooler.dense"}
        classifier = {"classifier": "classifier"}
        next_sentence = {"classifier": "cls.seq_relationship"}
        copies = {
            "cls.predictions.decoder.weight": "{base}embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        }
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
            heads={
                "base": pooler,
                "causal-lm": language_model,
                "masked-lm": language_model,
                "pre-training": (within("language_model", language_model), pooler, next_sentence),
                "next-sentence-prediction": (pooler, next_sentence),
                "sequence-classification": (pooler, classifier),
                "multiple-choice": (pooler, classifier),
                "token-classification": classifier,
                "question-answering": {"classifier": "qa_outputs"},
            },
            copies=copies if config.tie_word_embeddings else {},
            echoes={} if config.tie_word_embeddings else {"cls.predictions.bias": "cls.predictions.decoder.bias"},
            ignored=(r"embeddings\.position_ids$",),
        )
