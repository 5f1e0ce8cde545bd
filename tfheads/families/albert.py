"""ALBERT: BERT with narrow embeddings and blocks that share their weights (Lan et al. 2019)."""

from functools import partial

from tfheads.backbones import Backbone
from tfheads.checkpoints.tables import Bias, Table, within
from tfheads.families import bert
from tfheads.families.bert import Bert, pooler
from tfheads.heads import LanguageModelHead, PreTrainingHead, standard_heads
from tfheads.layers import Attention, FeedForward, LayerNorm, PostNormBlock, Stack, TextEmbeddings, View
from tfheads.layers.projections import dense
from tfheads.registry import family


def language_model_head(config) -> LanguageModelHead:
    """BERT's language-model head, as wide as the embeddings."""
    return bert.language_model_head(config, width=config.embedding_size)


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
        **standard_heads(pooler, lambda config: config.classifier_dropout_prob),
        "base": Bert.heads["base"],
        "masked-lm": language_model_head,
        "pre-training": pre_training_head,
    }
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
        language_model = {
            "transform": "predictions.dense",
            "norm": "predictions.LayerNorm",
            "decoder": "predictions.decoder",
            "": Bias("predictions"),
        }
        pooled, classifier = {"pooler.dense": "{base}pooler"}, {"classifier": "classifier"}
        copies = {
            "predictions.decoder.weight": "{base}embeddings.word_embeddings.weight",
            "predictions.decoder.bias": "predictions.bias",
        }
        return Table(
            backbone={
                "embeddings.{token,position,token_type}": "embeddings.{word,position,token_type}_embeddings",
                "embeddings.norm": "embeddings.LayerNorm",
                "embeddings.projection": "encoder.embedding_hidden_mapping_in",
                **blocks,
            },
            heads={
                "base": pooled,
                "masked-lm": language_model,
                "pre-training": (
                    within("language_model", language_model),
                    pooled,
                    {"classifier": "sop_classifier.classifier"},
                ),
                "sequence-classification": (pooled, classifier),
                "token-classification": classifier,
                "question-answering": {"classifier": "qa_outputs"},
                "multiple-choice": (pooled, classifier),
            },
            copies=copies if config.tie_word_embeddings else {},
            echoes={} if config.tie_word_embeddings else {"predictions.bias": "predictions.decoder.bias"},
            ignored=(r"embeddings\.position_ids$",),
        )


def groups_of_layers(config) -> list[int]:
    """Which group of blocks each layer is."""
    layers, groups = config.num_hidden_layers, config.num_hidden_groups
    if groups > layers:
        raise ValueError(f"num_hidden_groups must be at most num_hidden_layers={layers}, got {groups}")
    return [int(layer / (layers / groups)) for layer in range(layers)]
