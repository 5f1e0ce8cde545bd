"""The heads that most families have, made from a config: what a family's `heads` begins with."""

from collections.abc import Callable

import keras

from tfheads.heads.classification import ChoiceHead, ClassificationHead
from tfheads.heads.tokens import QuestionAnsweringHead, TokenClassificationHead


def standard_heads(
    pooler: Callable[[object], keras.layers.Layer],
    dropout: Callable[[object], float],
    use_bias: bool = True,
) -> dict[str, Callable]:
    """Heads for the classes of texts and tokens, for answers and for choices, by task; each a function of the config.

    Args:
        pooler: from the config to a part that makes one vector of a row, as wide as the hidden values.
        dropout: from the config to the rate in front of a classifier.
        use_bias: whether the classifiers of rows have biases.
    """
    return {
        "sequence-classification": lambda config: ClassificationHead(
            pooler(config),
            config.hidden_size,
            config.num_labels,
            problem_type=config.problem_type,
            dropout=dropout(config),
            use_bias=use_bias,
        ),
        "multiple-choice": lambda config: ChoiceHead(pooler(config), config.hidden_size, dropout(config), use_bias),
        "token-classification": lambda config: TokenClassificationHead(
            config.hidden_size, config.num_labels, dropout(config)
        ),
        "question-answering": lambda config: QuestionAnsweringHead(config.hidden_size, config.num_labels),
    }
