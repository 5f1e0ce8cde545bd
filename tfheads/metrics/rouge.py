"""ROUGE: the words and the word sequences that summaries share with the right ones (Lin 2004), by rouge-score."""

import functools
import re
from collections.abc import Callable, Sequence

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
# What nltk's rules take for the end of a sentence without a list of abbreviations, which would have to be downloaded.
ABBREVIATIONS = ("mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "gen", "sen", "rep", "gov", "lt", "col", "capt")
ABBREVIATIONS += ("vs", "etc", "e.g", "i.e", "u.s", "u.k", "inc", "ltd", "co", "corp", "a.m", "p.m")
WORD = re.compile("[a-z0-9]", re.IGNORECASE)  # all that rouge-score reads


def rouge_measures(
    predictions: Sequence[str],
    references: Sequence[str],
    split_sentences: Callable[[str], list[str]] | None = None,
) -> dict[str, float]:
    """F1 of `rouge1`, `rouge2`, `rougeL` and `rougeLsum` in percent, the mean over the rows, of words without endings.

    Each row is scored as by Hugging Face's run_summarization (`use_stemmer=True`, a line for each sentence). The mean
    is the plain one, which the median of resampled means of `evaluate` comes close to.

    Args:
        predictions: the summaries.
        references: the right one for each.
        split_sentences: from a text to its sentences, for rougeLsum; None for `sentences`. `nltk.sent_tokenize` is
            another one, if its data was downloaded.

    Raises:
        ImportError: rouge-score is not installed.
        ValueError: not one reference for each prediction, or none at all.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise ImportError("rouge-score must be installed to measure summaries: pip install tfheads[metrics]") from None
    if len(predictions) != len(references) or not len(references):
        raise ValueError(f"there must be a prediction for each reference, got {len(predictions)} for {len(references)}")
    split_sentences = split_sentences or sentences
    scorer, totals = RougeScorer(KINDS, use_stemmer=True), dict.fromkeys(KINDS, 0.0)
    for prediction, reference in zip(predictions, references, strict=True):
        lines = ("\n".join(split_sentences(text.strip())) for text in (reference, prediction))
        for name, score in scorer.score(*lines).items():
            totals[name] += score.fmeasure
    return {name: 100.0 * total / len(references) for name, total in totals.items()}


def sentences(text: str) -> list[str]:
    """The sentences of a text, by nltk's rules for full stops and a short list of English abbreviations."""
    return _splitter().tokenize(text)


def check_references(references: Sequence[str]) -> None:
    """Requires texts of which ROUGE can read something.

    Raises:
        ValueError: none has a Latin letter or a digit, so that all results would be 0.
    """
    if not any(map(WORD.search, references)):
        raise ValueError(
            "targets must have words of Latin letters or digits to be measured by ROUGE, which reads nothing else: set "
            "predict_with_generate to false"
        )


@functools.cache
def _splitter():
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer  # takes a second to import

    rules = PunktParameters()
    rules.abbrev_types.update(ABBREVIATIONS)
    return PunktSentenceTokenizer(rules)
