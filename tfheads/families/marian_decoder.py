"""Marian's decoder alone."""

from tfheads.backbones import Backbone
from tfheads.checkpoints.tables import Table
from tfheads.families.bart import decoder_stack, rules
from tfheads.families.marian import INERT, POSITIONS, Marian, embeddings
from tfheads.heads import LanguageModelHead
from tfheads.layers import ScaledInputEmbeddings
from tfheads.registry import family


@family("marian", alone=True)
class MarianDecoder(Backbone):
    """Marian's decoder alone; labels are of the logits' own places; reference: `transformers.MarianForCausalLM`."""

    class_prefix = "Marian"
    checkpoint_prefix = "model.decoder"
    input_names = (*Backbone.input_names, "encoder_hidden_states", "encoder_attention_mask")
    inert = INERT | dict.fromkeys(
        ("vocab_size", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "encoder_layerdrop"),
        "read by the encoder",
    )
    heads = {
        "causal-lm": lambda config: LanguageModelHead(
            config.d_model, config.decoder_vocab_size, tied=config.tie_word_embeddings
        )
    }
    reference = Marian.reference
    make_stack = staticmethod(decoder_stack)
    initial_deviation = Marian.initial_deviation
    initial_value = Marian.initial_value

    @staticmethod
    def make_embeddings(config):
        return embeddings(config, ScaledInputEmbeddings, config.decoder_vocab_size)

    @staticmethod
    def table(config):
        tokens = "{base}embed_tokens.weight"
        return Table(
            backbone={"embeddings.token": "embed_tokens", **rules("", "")},
            heads={"causal-lm": {"decoder": "lm_head"}},
            copies={"lm_head.weight": tokens, "model.shared.weight": tokens} if config.tie_word_embeddings else {},
            others=("model.encoder", "model.shared"),
            ignored=(r"^final_logits_bias$",),
            computed=(POSITIONS,),
        )
