"""GPT-J: decoder with rotary positions whose branches run in parallel behind one norm (Wang and Komatsuzaki 2021)."""

from tfheads.backbones import Backbone
from tfheads.checkpoints.rules import Bias, RotaryPairsLinear
from tfheads.checkpoints.tables import Table, tied_output
from tfheads.heads import ANSWERS, QuestionAnsweringHead, TaskHead, decoder_heads
from tfheads.layers import (
    Attention,
    FeedForward,
    LayerNorm,
    RotaryPositions,
    SharedNormParallelBlock,
    Stack,
    TokenTypesAreTokens,
    View,
)
from tfheads.registry import family


@family("gptj")
class GPTJ(Backbone):
    """As GPT-NeoX, with one norm in a block and a biased output; reference: `transformers.GPTJModel`."""

    class_prefix = "GPTJ"
    checkpoint_prefix = "transformer"
    input_names = (*Backbone.input_names, "token_type_ids")
    inert = {"n_positions": "rotary positions have no end"}
    heads = {
        **decoder_heads(use_bias=True, language_model_names={"decoder": "lm_head", "": Bias("lm_head")}),
        "question-answering": TaskHead(
            lambda config: QuestionAnsweringHead(config.hidden_size, config.num_labels), ANSWERS
        ),
    }
    reference = "Wang and Komatsuzaki 2021, transformers.GPTJModel"

    @staticmethod
    def make_embeddings(config):
        return TokenTypesAreTokens(config.vocab_size, config.hidden_size, dropout=config.embd_pdrop)

    @staticmethod
    def make_stack(config):
        width = config.hidden_size // config.n_head
        if config.rotary_dim % 2 or not 0 < config.rotary_dim <= width:
            raise ValueError(f"rotary_dim must be even and from 2 to a head's width {width}, got {config.rotary_dim}")

        def norm():
            return LayerNorm(config.hidden_size, config.layer_norm_epsilon)

        def block():
            return SharedNormParallelBlock(
                Attention(config.hidden_size, config.n_head, use_bias=False, dropout=config.attn_pdrop),
                FeedForward(config.hidden_size, config.n_inner or 4 * config.hidden_size, config.activation_function),
                attention_norm=norm(),
                dropout=config.resid_pdrop,
            )

        return Stack(
            [block() for _ in range(config.n_layer)],
            View(causal=True, rotary=RotaryPositions(config.rotary_dim)),
            final_norm=norm(),
        )

    @staticmethod
    def table(config):
        block, theirs = "stack.blocks.{i}.", "h.{i}."
        projections = RotaryPairsLinear(theirs + "attn.{q_proj,k_proj}", config.n_head, config.rotary_dim)
        return Table(
            backbone={
                "embeddings.token": "wte",
                block + "attention.{query,key}": projections,
                block + "attention.{value,output_dense}": theirs + "attn.{v_proj,out_proj}",
                block + "attention_norm": theirs + "ln_1",
                block + "feed_forward.{up,down}": theirs + "mlp.{fc_in,fc_out}",
                "stack.final_norm": "ln_f",
            },
            aliases=tied_output(config, "{base}wte.weight"),
            ignored=(r"attn\.(bias|masked_bias)$",),
        )
