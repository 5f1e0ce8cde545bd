"""A language model's head whose logits stand for the tokens of a target, one for one."""

from collections.abc import Mapping

from tfheads.checks import within
from tfheads.heads.language import LanguageModelHead
from tfheads.layers.part import part
from tfheads.losses import IGNORED, TokenCrossEntropy, one_for_each_row


class TargetCrossEntropy(TokenCrossEntropy):
    """Cross-entropy of each token of a target, labels `[batch, target]` whatever the length of `input_ids`.

    What counts is `target_ids` of the inputs: the labels as the model completed them.
    """

    def seen(self, labels, inputs: Mapping):
        return inputs["target_ids"]

    def check(self, inputs, labels):
        given = self.given(labels)
        return one_for_each_row(self.labels, given, inputs) + within(
            self.labels, given, 0, self.num_classes - 1, IGNORED
        )


@part
class TargetLanguageModelHead(LanguageModelHead):
    """Logits `[batch, target, vocabulary]` of the places before the tokens of a target."""

    @property
    def criteria(self) -> tuple:
        """What the head is trained on."""
        return (TargetCrossEntropy(self.vocab_size),)
