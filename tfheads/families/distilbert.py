"""DistilBERT: BERT without segment types and pooler, half as deep (Sanh et al. 2019)."""

from functools import partial

from tfheads.backbones import Backbone
from tfheads.checkpoints.rules import Bias
from tfheads.checkpoints.tables import Table, tied_output
from tfheads.heads import (
    ANSWERS,
    CLASSIFIER,
    DensePooler,
    FirstToken,
    LanguageModelHead,
    QuestionAnsweringHead,
    TaskHead,
    TokenClassificationHead,
    row_heads,
)
from tfheads.layers import Attention, FeedForward, LayerNorm, PostNormBlock, Stack, TextEmbeddings, View
from tfheads.layers.sinusoids import interleaved_sinusoids
from tfheads.registry import family

EPSILON = 1e-12  # of every norm; the config has no entry for it


def pooler(config) -> DensePooler:
    """The first token through a relu projection."""
    return DensePooler(FirstToken(), config.hidden_size, "relu")


def language_model_head(config) -> LanguageModelHead:
    """BERT's language-model head."""
    return LanguageModelHead(
        config.hidden_size,
        config.vocab_size,
        tied=config.tie_word_embeddings,
        use_bias=True,
        activation=config.activation,
        norm=LayerNorm(config.hidden_size, EPSILON),
    )


@family("distilbert")
class DistilBert(Backbone):
    """DistilBERT's encoder; reference: `transformers.DistilBertModel`."""

    class_prefix = "DistilBert"
    checkpoint_prefix = "distilbert"
    inert = {
        "qa_dropout": "read by the question-answering head",
        "seq_classif_dropout": "read by the classification heads",
        "sinusoidal_pos_embds": "read when weights are drawn",
    }
    heads = {
        "base": TaskHead(),
        "masked-lm": TaskHead(
            language_model_head,
            {
                "transform": "vocab_transform",
                "norm": "vocab_layer_norm",
                "decoder": "vocab_projector",
                "": Bias("vocab_projector"),
            },
        ),
        **row_heads(
            pooler,
            lambda config: config.seq_classif_dropout,
            {"pooler.dense": "pre_classifier", "classifier": "classifier"},
        ),
        "token-classification": TaskHead(
            lambda config: TokenClassificationHead(config.hidden_size, config.num_labels, config.dropout), CLASSIFIER
        ),
        "question-answering": TaskHead(
            lambda config: QuestionAnsweringHead(config.hidden_size, config.num_labels, config.qa_dropout), ANSWERS
        ),
    }
    reference = "Sanh et al. 2019, transformers.DistilBertModel"

    @staticmethod
    def make_embeddings(config):
        return TextEmbeddings(
            config.vocab_size,
            config.hidden_size,
            num_positions=config.max_position_embeddings,
            norm=LayerNorm(config.hidden_size, EPSILON),
            dropout=config.dropout,
        )

    @staticmethod
    def make_stack(config):
        norm = partial(LayerNorm, config.hidden_size, EPSILON)

        def block():
            return PostNormBlock(
                Attention(config.hidden_size, config.n_heads, dropout=config.attention_dropout),
                FeedForward(config.hidden_size, config.hidden_dim, config.activation),
                attention_norm=norm(),
                feed_forward_norm=norm(),
                feed_forward_dropout=config.dropout,
            )

        return Stack([block() for _ in range(config.n_layers)], View())

    def initial_value(self, path, shape):
        sinusoids = self.config.sinusoidal_pos_embds and path.endswith("embeddings.position")
        return interleaved_sinusoids(*shape) if sinusoids else None

    @staticmethod
    def table(config):
        block, theirs = "stack.blocks.{i}.", "transformer.layer.{i}."
        return Table(
            backbone={
                "embeddings.{token,position}": "embeddings.{word,position}_embeddings",
                "embeddings.norm": "embeddings.LayerNorm",
                block + "attention.{query,key,value,output_dense}": theirs + "attention.{q,k,v,out}_lin",
                block + "{attention,feed_forward}_norm": theirs + "{sa,output}_layer_norm",
                block + "feed_forward.{up,down}": theirs + "ffn.{lin1,lin2}",
            },
            aliases=tied_output(config, "{base}embeddings.word_embeddings.weight", "vocab_projector.weight"),
            ignored=(r"embeddings\.position_ids$",),
        )
