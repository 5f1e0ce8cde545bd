"""The tables of the heads that most families have: what a family's `heads` in its `Table` begins with."""

from tfheads.checkpoints.tables import Rules

LANGUAGE_MODEL: Rules = {"decoder": "lm_head"}


def decoder_head_rules(language_model: Rules = LANGUAGE_MODEL, tokens: str = "classifier") -> dict:
    """The tables of `tfheads.heads.decoder_heads`, by task.

    Args:
        language_model: of the language model's head.
        tokens: the checkpoint's name for the classifier of tokens.
    """
    rows = {"classifier": "score"}
    return {
        **dict.fromkeys(("causal-lm", "conditional-generation"), language_model),
        **dict.fromkeys(("sequence-classification", "multiple-choice"), rows),
        "document-classification": (rows, {"windows.score": "window_attention.score"}),
        "token-classification": {"classifier": tokens},
        "question-answering": {"classifier": "qa_outputs"},
    }
