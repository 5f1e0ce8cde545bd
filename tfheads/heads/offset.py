"""The language-model head of BART and its relatives."""

from tfheads.heads.language import LanguageModelHead, with_row
from tfheads.layers.part import part


@part
class OffsetLanguageModelHead(LanguageModelHead):
    """Logits of each token plus an offset for each word, which belongs to the checkpoint and is not trained (BART).

    Args:
        hidden_size, vocab_size, tied: as in `LanguageModelHead`.
    """

    def __init__(self, hidden_size: int, vocab_size: int, tied: bool = True, **kwargs):
        super().__init__(hidden_size, vocab_size, tied, **kwargs)
        self.offset = self.add_weight(name="offset", shape=(vocab_size,), initializer="zeros", trainable=False)

    def logits(self, hidden, token_table):
        return with_row(super().logits(hidden, token_table), self.offset)
