"""T5: pre-norm encoder and decoder, a learned bias for distances, scores that are not scaled (Raffel et al. 2019)."""

from functools import partial

from tfheads.backbones import EmbeddedStack, EncoderDecoder
from tfheads.checkpoints.tables import Alias, Table
from tfheads.heads import (
    LANGUAGE_MODEL,
    LanguageModelHead,
    QuestionAnsweringHead,
    ScaledLanguageModelHead,
    encoder_decoder_heads,
)
from tfheads.layers import (
    Attention,
    BucketedPositionBias,
    CrossAttention,
    FeedForward,
    GatedFeedForward,
    PreNormBlock,
    RMSNorm,
    Stack,
    TextEmbeddings,
    View,
)
from tfheads.registry import family

INERT = {
    "feed_forward_proj": "read as dense_act_fn and is_gated_act",
    "initializer_factor": "read when weights are drawn",
    "classifier_dropout": "read by the heads that classify",
    "scale_decoder_outputs": "read by the language model's head",
}


def embeddings(config, shared_token=None) -> TextEmbeddings:
    """Tokens alone."""
    return TextEmbeddings(config.vocab_size, config.d_model, shared_token=shared_token)


def stack(config, layers: int, causal: bool) -> Stack:
    """The blocks of an encoder, or of a decoder that attends to one."""
    norm = partial(RMSNorm, config.d_model, config.layer_norm_epsilon)
    sizes = {"hidden_size": config.d_model, "num_heads": config.num_heads, "head_dim": config.d_kv}
    options = {"use_bias": False, "scale": 1.0, "dropout": config.dropout_rate}
    feed_forward = GatedFeedForward if config.is_gated_act else FeedForward

    def block():
        return PreNormBlock(
            Attention(**sizes, **options),
            feed_forward(config.d_model, config.d_ff, config.dense_act_fn, use_bias=False, dropout=config.dropout_rate),
            attention_norm=norm(),
            feed_forward_norm=norm(),
            cross_attention=CrossAttention(**sizes, **options) if causal else None,
            cross_attention_norm=norm() if causal else None,
            dropout=config.dropout_rate,
        )

    buckets = config.relative_attention_num_buckets, config.relative_attention_max_distance
    bias = BucketedPositionBias(*buckets, config.num_heads, both_sides=not causal)
    blocks = [block() for _ in range(layers)]
    view = View(causal=causal, position_bias=bias)
    return Stack(blocks, view, final_norm=norm(), dropout=config.dropout_rate)


def rules(config, part: str, last: int) -> dict:
    """The table of an encoder or a decoder, without its tokens; `last` is the number of its feed-forward layer."""
    block, theirs = f"{part}stack.blocks.{{i}}.", f"{part}block.{{i}}.layer."
    inner = ("{gate,up,down}", "{wi_0,wi_1,wo}") if config.is_gated_act else ("{up,down}", "{wi,wo}")
    return {
        f"{part}stack.views.full.position_bias.bias": f"{part}block.0.layer.0.SelfAttention.relative_attention_bias",
        f"{part}stack.final_norm": f"{part}final_layer_norm",
        f"{block}attention.{{query,key,value,output_dense}}": f"{theirs}0.SelfAttention.{{q,k,v,o}}",
        f"{block}cross_attention.{{query,key,value,output_dense}}": f"{theirs}1.EncDecAttention.{{q,k,v,o}}",
        f"{block}feed_forward.{inner[0]}": f"{theirs}{last}.DenseReluDense.{inner[1]}",
        f"{block}{{attention,cross_attention,feed_forward}}_norm": f"{theirs}{{0,1,{last}}}.layer_norm",
    }


def deviation(config, path: str) -> float:
    """The standard deviation of a new weight: by the widths, so that scores that are not scaled begin small."""
    width, heads = config.d_model, config.num_heads * config.d_kv
    deviations = {
        "attention.query": (width * config.d_kv) ** -0.5,
        "attention.output_dense": heads**-0.5,
        "feed_forward.down": config.d_ff**-0.5,
        "embeddings.token": 1.0,
        "head.decoder": 1.0,
    }
    return config.initializer_factor * next((v for end, v in deviations.items() if path.endswith(end)), width**-0.5)


def table(config, tied: bool) -> Table:
    """The weight table of an encoder and a decoder, whose output is tied to the token table or has its own."""
    shared = "{base}shared.weight"
    names = [f"{{base}}{part}.embed_tokens.weight" for part in ("encoder", "decoder")]
    return Table(
        backbone={"encoder.embeddings.token": "shared", **rules(config, "encoder.", 1), **rules(config, "decoder.", 2)},
        aliases=(
            *(Alias(name, shared) for name in names),
            Alias("lm_head.weight", shared, fallback=not tied),
        ),
        ignored=(r"EncDecAttention\.relative_attention_bias\.weight$",),
    )


def language_model_head(config) -> LanguageModelHead:
    """Of the first T5 over its token table, else with an output table of its own."""
    if config.scale_decoder_outputs:
        return ScaledLanguageModelHead(config.d_model, config.vocab_size)
    return LanguageModelHead(config.d_model, config.vocab_size, tied=False)


@family("t5")
class T5(EncoderDecoder):
    """T5's encoder and decoder over one token table; reference: `transformers.T5Model`."""

    class_prefix = "T5"
    checkpoint_prefix = "transformer"
    inert = INERT | {"is_decoder": "a property of the task"}
    heads = encoder_decoder_heads(
        language_model_head,
        LANGUAGE_MODEL,
        answers=lambda config: QuestionAnsweringHead(config.d_model, config.num_labels),
    )
    reference = "Raffel et al. 2019, transformers.T5Model"

    @classmethod
    def checkpoint_base(cls, task):
        return "transformer." if task == "sequence-classification" else ""

    @staticmethod
    def make_encoder(config):
        return EmbeddedStack(embeddings(config), stack(config, config.num_layers, causal=False), name="encoder")

    @staticmethod
    def make_decoder(config, encoder):
        if not config.is_encoder_decoder:
            raise ValueError("is_encoder_decoder must be True, got False: the encoder alone is T5EncoderModel")
        tokens = embeddings(config, encoder.embeddings.token)
        return EmbeddedStack(tokens, stack(config, config.num_decoder_layers, causal=True), name="decoder")

    def initial_deviation(self, path):
        return deviation(self.config, path)

    @staticmethod
    def table(config):
        return table(config, tied=config.scale_decoder_outputs)
