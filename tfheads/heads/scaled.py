"""The language-model head of the first T5."""

from tfheads.heads.language import LanguageModelHead
from tfheads.layers.part import part


@part
class ScaledLanguageModelHead(LanguageModelHead):
    """Logits of hidden values divided by the root of their width, with the token table as output table (T5).

    Args:
        hidden_size, vocab_size: as in `LanguageModelHead`.
    """

    def __init__(self, hidden_size: int, vocab_size: int, **kwargs):
        super().__init__(hidden_size, vocab_size, tied=True, **kwargs)

    def logits(self, hidden, token_table):
        return super().logits(hidden * self.hidden_size**-0.5, token_table)
