"""ALBERT: BERT with narrow embeddings and blocks that share their weights (Lan et al. 2019)."""

from functools import partial

from tfheads.backbones import Backbone
from tfheads.checkpoints.rules import Bias, within
from tfheads.checkpoints.tables import Table
from tfheads.families import bert
from tfheads.families.bert import output_aliases, pooler
from tfheads.heads import LanguageModelHead, PreTrainingHead, TaskHead, encoder_heads
from tfheads.layers import Attention, FeedForward, LayerNorm, PostNormBlock, Stack, TextEmbeddings, View
from tfheads.layers.projections import dense
from tfheads.registry import family

LANGUAGE_MODEL = {
    "transform": "predictions.dense",
    "norm": "predictions.LayerNorm",
    "decoder": "predictions.decoder",
    "": Bias("predictions"),
}
POOLER = {"pooler.dense": "{base}pooler"}


def language_model_head(config, causal: bool = False) -> LanguageModelHead:
    """BERT's language-model head, as wide as the embeddings."""
    return bert.language_model_head(config, causal, width=config.embedding_size)


def pre_training_head(config) -> PreTrainingHead:
    """Masked words, and whether two texts stand in their order."""
    if config.num_labels != 2:
        raise ValueError(f"id2label must have 2 entries for sentence order (set num_labels=2), got {config.num_labels}")
    return PreTrainingHead(
        language_model_head(config),
        pooler(config),
        config.hidden_size,
        dropout=config.classifier_dropout_prob,
        logits="sop_logits",
        labels="sentence_order_label",
    )


@family("albert")
class Albert(Backbone):
    """ALBERT's encoder; reference: `transformers.AlbertModel`."""

    class_prefix = "Albert"
    checkpoint_prefix = "albert"
    input_names = (*Backbone.input_names, "token_type_ids")
    inert = {"classifier_dropout_prob": "read by the classification heads"}
    heads = {
        **encoder_heads(
            language_model_head, LANGUAGE_MODEL, pooler, lambda config: config.classifier_dropout_prob, POOLER
        ),
        "pre-training": TaskHead(
            pre_training_head,
            (within("language_model", LANGUAGE_MODEL), POOLER, {"classifier": "sop_classifier.classifier"}),
        ),
    }
    del heads["causal-lm"]  # it has no causal form
    reference = "Lan et al. 2019, transformers.AlbertModel"

    @staticmethod
    def make_embeddings(config):
        return TextEmbeddings(
            config.vocab_size,
            config.embedding_size,
            num_positions=config.max_position_embeddings,
            num_types=config.type_vocab_size,
            norm=LayerNorm(config.embedding_size, config.layer_norm_eps),
            dropout=config.hidden_dropout_prob,
            projection=dense(config.embedding_size, config.hidden_size),
        )

    @staticmethod
    def make_stack(config):
        norm = partial(LayerNorm, config.hidden_size, config.layer_norm_eps)
        rate = config.attention_probs_dropout_prob

        def block():
            return PostNormBlock(
                Attention(config.hidden_size, config.num_attention_heads, dropout=rate),
                FeedForward(config.hidden_size, config.intermediate_size, config.hidden_act),
                attention_norm=norm(),
                feed_forward_norm=norm(),
                dropout=config.hidden_dropout_prob,
                feed_forward_dropout=0.0,
            )

        groups = [[block() for _ in range(config.inner_group_num)] for _ in range(config.num_hidden_groups)]
        return Stack([block for group in groups_of_layers(config) for block in groups[group]], View())

    @staticmethod
    def table(config):
        order, inner = groups_of_layers(config), config.inner_group_num
        blocks = {}
        for group in dict.fromkeys(order):
            for index in range(inner):
                block = f"stack.blocks.{order.index(group) * inner + index}."
                theirs = f"encoder.albert_layer_groups.{group}.albert_layers.{index}."
                blocks |= {
                    block + "attention.{query,key,value,output_dense}": theirs + "attention.{query,key,value,dense}",
                    block + "attention_norm": theirs + "attention.LayerNorm",
                    block + "feed_forward.{up,down}": theirs + "{ffn,ffn_output}",
                    block + "feed_forward_norm": theirs + "full_layer_layer_norm",
                }
        return Table(
            backbone={
                "embeddings.{token,position,token_type}": "embeddings.{word,position,token_type}_embeddings",
                "embeddings.norm": "embeddings.LayerNorm",
                "embeddings.projection": "encoder.embedding_hidden_mapping_in",
                **blocks,
            },
            aliases=output_aliases(config, "predictions.decoder", "predictions.bias"),
            ignored=(r"embeddings\.position_ids$",),
        )


def groups_of_layers(config) -> list[int]:
    """Which group of blocks each layer is."""
    layers, groups = config.num_hidden_layers, config.num_hidden_groups
    if groups > layers:
        raise ValueError(f"num_hidden_groups must be at most num_hidden_layers={layers}, got {groups}")
    return [int(layer / (layers / groups)) for layer in range(layers)]
