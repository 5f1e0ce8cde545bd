"""The heads that most families have, made from a config: what a family's `heads` begins with."""

from collections.abc import Callable

import keras

from tfheads.heads.classification import ChoiceHead, ClassificationHead
from tfheads.heads.documents import document_head
from tfheads.heads.language import LanguageModelHead
from tfheads.heads.pooling import DensePooler, LastOfToken, LastToken
from tfheads.heads.targets import TargetLanguageModelHead
from tfheads.heads.tokens import QuestionAnsweringHead, TokenClassificationHead


def standard_heads(
    pooler: Callable[[object], keras.layers.Layer],
    dropout: Callable[[object], float],
    use_bias: bool = True,
    width: str = "hidden_size",
) -> dict[str, Callable]:
    """Heads for the classes of texts and tokens, for answers and for choices, by task; each a function of the config.

    Args:
        pooler: from the config to a part that makes one vector of a row, as wide as the hidden values.
        dropout: from the config to the rate in front of a classifier.
        use_bias: whether the classifiers of rows have biases.
        width: the config's key for the width of the backbone's output.
    """
    return {
        "sequence-classification": lambda config: ClassificationHead(
            pooler(config),
            getattr(config, width),
            config.num_labels,
            problem_type=config.problem_type,
            dropout=dropout(config),
            use_bias=use_bias,
        ),
        "multiple-choice": lambda config: ChoiceHead(pooler(config), getattr(config, width), dropout(config), use_bias),
        "token-classification": lambda config: TokenClassificationHead(
            getattr(config, width), config.num_labels, dropout(config)
        ),
        "question-answering": lambda config: QuestionAnsweringHead(getattr(config, width), config.num_labels),
    }


def decoder_heads(width: str = "hidden_size", use_bias: bool = False) -> dict[str, Callable | None]:
    """The heads of most decoders: they write, and rows are classified by their last token, without a bias.

    The answers' two logits do not depend on the number of labels, as in transformers.

    Args:
        width: the config's key for the width of the backbone's output.
        use_bias: whether the logit of each word has a bias.
    """

    def language_model(config, kind: type[LanguageModelHead]) -> LanguageModelHead:
        sizes = getattr(config, width), config.vocab_size
        return kind(*sizes, tied=config.tie_word_embeddings, use_bias=use_bias, causal=True)

    def pooler(config):
        return LastToken(config.pad_token_id)

    return {
        "base": None,
        "causal-lm": lambda config: language_model(config, LanguageModelHead),
        "conditional-generation": lambda config: language_model(config, TargetLanguageModelHead),
        **standard_heads(pooler, lambda config: 0.0, False, width),
        "document-classification": lambda config: document_head(
            config, pooler(config), getattr(config, width), use_bias=False
        ),
        "token-classification": lambda config: TokenClassificationHead(
            getattr(config, width), config.num_labels, token_dropout(config)
        ),
        "question-answering": lambda config: QuestionAnsweringHead(getattr(config, width)),
    }


def token_dropout(config) -> float:
    """The rate in front of a decoder's classifier of tokens, for which configs have two optional keys."""
    for name in ("classifier_dropout", "hidden_dropout"):
        if getattr(config, name, None) is not None:
            return getattr(config, name)
    return 0.1


def end_token_classifier(config) -> ClassificationHead:
    """A class of a text from the decoder's value at the text's last end token, through a projection and tanh (BART)."""
    return ClassificationHead(
        DensePooler(LastOfToken(config.eos_token_id), config.hidden_size, dropout=config.classifier_dropout),
        config.hidden_size,
        config.num_labels,
        problem_type=config.problem_type,
        dropout=config.classifier_dropout,
    )
