"""Measures of answers: exact match and F1 of words, in percent, as SQuAD counts them.

Rajpurkar et al. 2016 (SQuAD) and 2018 (SQuAD 2, with questions that have no answer).
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def plain_answer(text: str) -> str:
    """Lower case, without punctuation and articles, single spaces: what is compared."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(prediction: str, answer: str) -> float:
    """1 if both are the same once they are plain, else 0."""
    return float(plain_answer(prediction) == plain_answer(answer))


def word_f1(prediction: str, answer: str) -> float:
    """F1 of the words that both have; two empty ones agree."""
    found, wanted = plain_answer(prediction).split(), plain_answer(answer).split()
    if not found or not wanted:
        return float(found == wanted)
    shared = sum((Counter(found) & Counter(wanted)).values())
    return 2 * shared / (len(found) + len(wanted))


def squad_measures(predictions: Mapping[object, str], answers: Mapping[object, Sequence[str]]) -> dict[str, float]:
    """`exact_match` and `f1` of SQuAD 1.1, in percent: of each question the best over its answers.

    Args:
        predictions: an answer for each question, by its id.
        answers: the right answers for each question.

    Raises:
        ValueError: a question without a prediction, or without an answer.
    """
    for name, right in answers.items():
        if not right:
            raise ValueError(f"question {name!r} has no answer: set version_2_with_negative for such data")
    exact, f1 = _scores(predictions, answers)
    return {"exact_match": _percent(exact.values()), "f1": _percent(f1.values())}


def squad_v2_measures(predictions: Mapping[object, str], answers: Mapping[object, Sequence[str]]) -> dict[str, float]:
    """`exact` and `f1` of SQuAD 2 in percent, of all questions and of those with and without an answer.

    Args:
        predictions: an answer for each question, by its id; the empty string for none.
        answers: the right answers for each question, an empty list if there is none.

    Raises:
        ValueError: a question without a prediction.
    """
    real = {name: list(filter(plain_answer, right)) for name, right in answers.items()}
    exact, f1 = _scores(predictions, {name: right or [""] for name, right in real.items()})
    found = {"exact": _percent(exact.values()), "f1": _percent(f1.values()), "total": len(exact)}
    for group, has_answer in (("HasAns", True), ("NoAns", False)):
        names = [name for name, right in real.items() if bool(right) == has_answer]
        if names:
            found[f"{group}_exact"] = _percent(exact[name] for name in names)
            found[f"{group}_f1"] = _percent(f1[name] for name in names)
            found[f"{group}_total"] = len(names)
    return found


def _scores(predictions: Mapping, answers: Mapping) -> tuple[dict, dict]:
    missing = [name for name in answers if name not in predictions]
    if missing:
        raise ValueError(f"predictions must have every question, there is none for {missing[0]!r}")
    exact = {name: max(exact_match(predictions[name], one) for one in right) for name, right in answers.items()}
    f1 = {name: max(word_f1(predictions[name], one) for one in right) for name, right in answers.items()}
    return exact, f1


def _percent(values) -> float:
    values = list(values)
    return 100.0 * sum(values) / max(len(values), 1)
