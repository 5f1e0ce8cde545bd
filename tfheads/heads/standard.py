"""The heads that most families have: what a family's `heads` begins with."""

from collections.abc import Callable

from tfheads.checkpoints.rules import Rules
from tfheads.heads.classification import ChoiceHead, ClassificationHead
from tfheads.heads.documents import document_head
from tfheads.heads.head import TaskHead
from tfheads.heads.language import LanguageModelHead
from tfheads.heads.pooling import DensePooler, LastOfToken, LastToken, PooledModelHead
from tfheads.heads.targets import TargetLanguageModelHead
from tfheads.heads.tokens import QuestionAnsweringHead, TokenClassificationHead
from tfheads.layers.part import Part

CLASSIFIER: Rules = {"classifier": "classifier"}
ANSWERS: Rules = {"classifier": "qa_outputs"}
LANGUAGE_MODEL: Rules = {"decoder": "lm_head"}
POOLER: Rules = {"pooler.dense": "{base}pooler.dense"}


def row_heads(
    pooler: Callable[[object], Part],
    dropout: Callable[[object], float],
    names: Rules | tuple[Rules, ...],
    use_bias: bool = True,
    width: str = "hidden_size",
) -> dict[str, TaskHead]:
    """Heads for the class of a text and for the best of several choices, by task.

    Args:
        pooler: from the config to a part that makes one vector of a row, as wide as the hidden values.
        dropout: from the config to the rate in front of the classifier.
        names: what a checkpoint calls pooler and classifier.
        use_bias: whether the classifier has a bias.
        width: the config's key for the width of the backbone's output.
    """

    def classes(config):
        sizes = getattr(config, width), config.num_labels
        kind = {"problem_type": config.problem_type, "dropout": dropout(config), "use_bias": use_bias}
        return ClassificationHead(pooler(config), *sizes, **kind)

    def choices(config):
        return ChoiceHead(pooler(config), getattr(config, width), dropout(config), use_bias)

    return {"sequence-classification": TaskHead(classes, names), "multiple-choice": TaskHead(choices, names)}


def encoder_heads(
    language_model: Callable[..., LanguageModelHead],
    language_model_names: Rules,
    pooler: Callable[[object], Part],
    dropout: Callable[[object], float],
    pooler_names: Rules = POOLER,
) -> dict[str, TaskHead]:
    """The heads of most encoders: hidden values, language models, classes of texts and tokens, answers, choices.

    Args:
        language_model: from the config, and `causal`, to the language model's head.
        language_model_names: what a checkpoint calls its layers.
        pooler: from the config to the part that makes one vector of a row.
        dropout: from the config to the rate in front of a classifier.
        pooler_names: what a checkpoint calls the pooler's layers.
    """
    return {
        "base": TaskHead(lambda config: PooledModelHead(pooler(config)), pooler_names),
        "causal-lm": TaskHead(lambda config: language_model(config, causal=True), language_model_names),
        "masked-lm": TaskHead(language_model, language_model_names),
        **row_heads(pooler, dropout, (pooler_names, CLASSIFIER)),
        "token-classification": TaskHead(
            lambda config: TokenClassificationHead(config.hidden_size, config.num_labels, dropout(config)), CLASSIFIER
        ),
        "question-answering": TaskHead(
            lambda config: QuestionAnsweringHead(config.hidden_size, config.num_labels), ANSWERS
        ),
    }


def decoder_heads(
    width: str = "hidden_size",
    use_bias: bool = False,
    language_model_names: Rules = LANGUAGE_MODEL,
    token_classifier: str = "classifier",
) -> dict[str, TaskHead]:
    """The heads of most decoders: they write, and rows are classified by their last token, without a bias.

    The answers' two logits do not depend on the number of labels, as in transformers.

    Args:
        width: the config's key for the width of the backbone's output.
        use_bias: whether the logit of each word has a bias.
        language_model_names: what a checkpoint calls the layers of the language model's head.
        token_classifier: what it calls the classifier of tokens.
    """

    def language_model(kind: type[LanguageModelHead]) -> TaskHead:
        def make(config):
            sizes = getattr(config, width), config.vocab_size
            return kind(*sizes, tied=config.tie_word_embeddings, use_bias=use_bias, causal=True)

        return TaskHead(make, language_model_names)

    def pooler(config):
        return LastToken(config.pad_token_id)

    def documents(config):
        return document_head(config, pooler(config), getattr(config, width), use_bias=False)

    def tokens(config):
        return TokenClassificationHead(getattr(config, width), config.num_labels, token_dropout(config))

    rows: Rules = {"classifier": "score"}
    return {
        "base": TaskHead(),
        "causal-lm": language_model(LanguageModelHead),
        "conditional-generation": language_model(TargetLanguageModelHead),
        **row_heads(pooler, lambda config: 0.0, rows, use_bias=False, width=width),
        "document-classification": TaskHead(documents, (rows, {"windows.score": "window_attention.score"})),
        "token-classification": TaskHead(tokens, {"classifier": token_classifier}),
        "question-answering": TaskHead(lambda config: QuestionAnsweringHead(getattr(config, width)), ANSWERS),
    }


def encoder_decoder_heads(
    language_model: Callable[[object], LanguageModelHead],
    language_model_names: Rules | tuple[Rules, ...],
    answers: Callable[[object], QuestionAnsweringHead],
) -> dict[str, TaskHead]:
    """The heads of encoder-decoders whose decoder reads the source again to classify it (BART, T5).

    Args:
        language_model: from the config to the language model's head.
        language_model_names: what a checkpoint calls its layers.
        answers: from the config to the head that finds answers.
    """
    classes = {"pooler.dense": "classification_head.dense", "classifier": "classification_head.out_proj"}
    return {
        "base": TaskHead(),
        "seq2seq-lm": TaskHead(language_model, language_model_names),
        "sequence-classification": TaskHead(end_token_classifier, classes),
        "question-answering": TaskHead(answers, ANSWERS),
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
