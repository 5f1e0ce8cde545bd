"""BLEU: the word sequences that translations share with the right ones (Papineni et al. 2002), by sacreBLEU."""

from collections.abc import Sequence

TOKENIZERS = ("13a", "intl", "zh", "char", "none")


def bleu_measures(predictions: Sequence[str], references: Sequence[str], tokenizer: str = "13a") -> dict[str, float]:
    """`bleu` of all rows together, from 0 to 100, as sacreBLEU counts it (Post 2018).

    Args:
        predictions: the translations.
        references: the right one for each.
        tokenizer: how sacreBLEU divides a text into words, one of `TOKENIZERS`.

    Raises:
        ImportError: sacrebleu is not installed.
        ValueError: not one reference for each prediction, none at all, or an unknown tokenizer.
    """
    try:
        from sacrebleu.metrics import BLEU
    except ImportError:
        raise ImportError("sacrebleu must be installed to measure translations: pip install tfheads[metrics]") from None
    if len(predictions) != len(references) or not len(references):
        raise ValueError(f"there must be a prediction for each reference, got {len(predictions)} for {len(references)}")
    if tokenizer not in TOKENIZERS:
        raise ValueError(f"tokenizer must be one of {', '.join(TOKENIZERS)}, got {tokenizer!r}")
    pairs = [text.strip() for text in predictions], [[text.strip() for text in references]]
    return {"bleu": float(BLEU(tokenize=tokenizer).corpus_score(*pairs).score)}
