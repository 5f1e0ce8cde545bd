"""mT5: T5 with gated feed-forwards and an output table of its own, in 101 languages (Xue et al. 2021)."""

from tfheads.families.t5 import T5, table
from tfheads.heads import LANGUAGE_MODEL, LanguageModelHead, TaskHead
from tfheads.registry import family


@family("mt5")
class MT5(T5):
    """mT5's encoder and decoder; reference: `transformers.MT5Model`."""

    class_prefix = "MT5"
    inert = T5.inert | {"decoder_start_token_id": "read where labels are moved by one place"}
    heads = {
        **T5.heads,
        "seq2seq-lm": TaskHead(
            lambda config: LanguageModelHead(config.d_model, config.vocab_size, tied=False), LANGUAGE_MODEL
        ),
    }
    reference = "Xue et al. 2021, transformers.MT5Model"

    @staticmethod
    def table(config):
        return table(config, tied=False)
