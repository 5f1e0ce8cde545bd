"""Marian's decoder alone."""

from tfheads.families.bart_decoder import BartDecoder, table
from tfheads.families.marian import POSITIONS, Marian, embeddings
from tfheads.heads import LanguageModelHead
from tfheads.layers import ScaledInputEmbeddings
from tfheads.registry import family


@family("marian", alone=True)
class MarianDecoder(BartDecoder):
    """Marian's decoder alone; labels are of the logits' own places; reference: `transformers.MarianForCausalLM`."""

    class_prefix = "Marian"
    inert = BartDecoder.inert | {"vocab_size": "read by the encoder"}
    heads = {
        "causal-lm": lambda config: LanguageModelHead(
            config.d_model, config.decoder_vocab_size, tied=config.tie_word_embeddings
        )
    }
    reference = Marian.reference
    initial_value = Marian.initial_value

    @staticmethod
    def make_embeddings(config):
        return embeddings(config, ScaledInputEmbeddings, config.decoder_vocab_size)

    @staticmethod
    def table(config):
        return table(config, computed=(POSITIONS,))
