"""BART's decoder alone."""

from tfheads.backbones import Backbone
from tfheads.checkpoints.tables import Table
from tfheads.families.bart import Bart, decoder_stack, embeddings, rules
from tfheads.heads import LanguageModelHead
from tfheads.registry import family


@family("bart", alone=True)
class BartDecoder(Backbone):
    """BART's decoder alone; labels are of the logits' own places; reference: `transformers.BartForCausalLM`."""

    class_prefix = "Bart"
    checkpoint_prefix = "model.decoder"
    input_names = (*Backbone.input_names, "encoder_hidden_states", "encoder_attention_mask")
    inert = Bart.inert | dict.fromkeys(
        ("encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "encoder_layerdrop"), "read by the encoder"
    )
    heads = {
        "causal-lm": lambda config: LanguageModelHead(
            config.d_model, config.vocab_size, tied=config.tie_word_embeddings
        )
    }
    reference = Bart.reference
    make_embeddings = staticmethod(embeddings)
    make_stack = staticmethod(decoder_stack)
    initial_deviation = Bart.initial_deviation

    @staticmethod
    def table(config):
        return table(config)


def table(config, computed: tuple[str, ...] = ()) -> Table:
    """The table of a decoder alone, whose `computed` tensors have no values of their own."""
    tokens = "{base}embed_tokens.weight"
    return Table(
        backbone={"embeddings.token": "embed_tokens", **rules("", "")},
        heads={"causal-lm": {"decoder": "lm_head"}},
        copies={"lm_head.weight": tokens, "model.shared.weight": tokens} if config.tie_word_embeddings else {},
        others=("model.encoder", "model.shared"),
        ignored=(r"^final_logits_bias$", r"coder\.version$"),
        computed=computed,
    )
