"""Questions about a context: windows of tokens, where the answer stands in them, and answers from logits.

A context that is longer than the model is cut into windows that overlap. Each window is a row of its own with the whole
question. What comes out are lists and numpy arrays; nothing here needs TensorFlow.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from transformers import BatchEncoding, PreTrainedTokenizerBase


class Answers(NamedTuple):
    """What `answers_from_logits` found, each a dictionary by the id of the example.

    Attributes:
        texts: the answer; the empty string where there is none.
        n_best: the best candidates, best first: `{"text", "offsets", "start_logit", "end_logit", "score",
            "probability"}`; `offsets` are characters of the context, the empty answer has `(0, 0)`.
        null_odds: by how much the score of "no answer" is above that of the best answer, as SQuAD 2's metric reads it;
            empty unless answers may be missing.
    """

    texts: dict[Any, str]
    n_best: dict[Any, list[dict[str, Any]]]
    null_odds: dict[Any, float]


def question_windows(
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    contexts: Sequence[str],
    *,
    max_length: int = 384,
    doc_stride: int = 128,
    max_question_length: int | None = None,
) -> BatchEncoding:
    """Questions with their contexts as rows of tokens, as many for each as its context needs.

    A tokenizer that pads on the right has the question first, one that pads on the left the context. Rows are not
    padded.

    Args:
        tokenizer: a fast one, which knows the place of each token in the text.
        questions, contexts: one context for each question.
        max_length: the most tokens of a row, special tokens included.
        doc_stride: how many tokens of the context neighbouring rows share.
        max_question_length: the question is cut after so many tokens; None leaves it whole.

    Returns:
        `input_ids`, what else the model reads, `offset_mapping` and `overflow_to_sample_mapping` (which question a row
        belongs to), lists of rows; `encodings` has the tokenizer's own object for each row.

    Raises:
        TypeError: a question or a context is not a string, or the tokenizer is a slow one.
        ValueError: a question or a context is empty, a question leaves no room for its context, or `doc_stride` is more
            than this room.
    """
    check_tokenizer(tokenizer)
    check_window(max_length, doc_stride)
    if len(questions) != len(contexts):
        raise ValueError(f"contexts must be as many as questions, got {len(contexts)} for {len(questions)}")
    for question, context in zip(questions, contexts, strict=True):
        check_pair(question, context)
    if max_question_length is not None:
        questions = [_cut(tokenizer, question, max_question_length) for question in questions]
    _check_room(tokenizer, questions, contexts, max_length, doc_stride)
    first = question_is_first(tokenizer)
    return tokenizer(
        list(questions if first else contexts),
        list(contexts if first else questions),
        truncation="only_second" if first else "only_first",
        max_length=max_length,
        stride=doc_stride,
        return_attention_mask=True,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        verbose=False,
    )


def context_rooms(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], max_length: int) -> list[int]:
    """How many tokens of a row each question leaves for its context; 0 or less where it leaves none."""
    special = tokenizer.num_special_tokens_to_add(pair=True)
    encoded = tokenizer(list(questions), add_special_tokens=False, verbose=False)["input_ids"]
    return [max_length - special - len(ids) for ids in encoded]


def question_is_first(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the question comes before the context in a row, which depends on the side that is padded."""
    return tokenizer.padding_side == "right"


def context_of_row(encoded: BatchEncoding, row: int, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Which tokens of a row belong to the context, booleans `[time]`."""
    context = 1 if question_is_first(tokenizer) else 0
    return np.array([part == context for part in encoded.sequence_ids(row)], bool)


def null_index(encoded: BatchEncoding, row: int, tokenizer: PreTrainedTokenizerBase) -> int:
    """The token of a row that stands for "no answer".

    The class token, else the token of the beginning, else the first token that is not of the context.
    """
    ids = list(encoded["input_ids"][row])
    for token in (tokenizer.cls_token_id, tokenizer.bos_token_id):
        if token is not None and token in ids:
            return ids.index(token)
    return int(np.argmin(context_of_row(encoded, row, tokenizer)))


def training_features(
    examples: Mapping[str, Sequence],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int = 384,
    doc_stride: int = 128,
    pad_to_max_length: bool = False,
    question_column: str = "question",
    context_column: str = "context",
    answers_column: str = "answers",
) -> dict[str, list]:
    """Rows to train on: the model's inputs, `start_positions` and `end_positions`; for `datasets.map(batched=True)`.

    The first answer of an example is learned. A row that does not hold it whole, and an example without an answer,
    point at the token of `null_index`.

    Args:
        examples: columns; each of `answers` is `{"text": [...], "answer_start": [...]}` with characters of the context,
            as in SQuAD.
        tokenizer, max_length, doc_stride: see `question_windows`.
        pad_to_max_length: all rows get this length. A tokenizer that pads on the left always has it so, because later
            padding would move the positions.

    Raises:
        TypeError, ValueError: as `question_windows`, and an answer that does not stand in its context.
    """
    questions, contexts = [text.lstrip() for text in examples[question_column]], examples[context_column]
    encoded = question_windows(tokenizer, questions, contexts, max_length=max_length, doc_stride=doc_stride)
    spans = [_answer_span(*pair) for pair in zip(examples[answers_column], contexts, strict=True)]
    features = _inputs(encoded)
    features["start_positions"], features["end_positions"] = [], []
    for row, sample in enumerate(encoded["overflow_to_sample_mapping"]):
        start, end = _positions(encoded, row, spans[sample], tokenizer)
        features["start_positions"].append(start)
        features["end_positions"].append(end)
    if pad_to_max_length or tokenizer.padding_side == "left":
        _pad(features, tokenizer, max_length, ("start_positions", "end_positions"))
    return features


def evaluation_features(
    examples: Mapping[str, Sequence],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int = 384,
    doc_stride: int = 128,
    pad_to_max_length: bool = False,
    question_column: str = "question",
    context_column: str = "context",
    id_column: str = "id",
) -> dict[str, list]:
    """Rows to find answers in: the model's inputs and what `answers_from_logits` needs; for `datasets.map`.

    Beside the inputs: `example_id`, `null_index`, and `offset_mapping`: the characters of the context that a token
    stands for, without a space before them; None for tokens that are not of the context.

    Args:
        examples, tokenizer, max_length, doc_stride, pad_to_max_length: see `training_features`.

    Raises:
        TypeError, ValueError: as `question_windows`.
    """
    questions, contexts = [text.lstrip() for text in examples[question_column]], examples[context_column]
    encoded = question_windows(tokenizer, questions, contexts, max_length=max_length, doc_stride=doc_stride)
    features = _inputs(encoded)
    features["example_id"] = [examples[id_column][sample] for sample in encoded["overflow_to_sample_mapping"]]
    features["null_index"] = [null_index(encoded, row, tokenizer) for row in range(len(encoded["input_ids"]))]
    features["offset_mapping"] = []
    for row, sample in enumerate(encoded["overflow_to_sample_mapping"]):
        inside, offsets = context_of_row(encoded, row, tokenizer), encoded["offset_mapping"][row]
        features["offset_mapping"].append(
            [_trimmed(contexts[sample], *pair) if is_in else None for pair, is_in in zip(offsets, inside, strict=True)]
        )
    if pad_to_max_length or tokenizer.padding_side == "left":
        _pad(features, tokenizer, max_length, ("null_index",))
    return features


def answers_from_logits(
    examples: Iterable[Mapping],
    features: Iterable[Mapping],
    start_logits: Sequence[np.ndarray],
    end_logits: Sequence[np.ndarray],
    *,
    version_2_with_negative: bool = False,
    n_best_size: int = 20,
    max_answer_length: int = 30,
    null_score_diff_threshold: float = 0.0,
    context_column: str = "context",
    id_column: str = "id",
) -> Answers:
    """The answers to all examples, from the logits of all their windows; the rules of transformers' run_qa.

    A candidate starts at one of the `n_best_size` best starts of its window and ends at one of the best ends, its score
    is the sum of both logits, and the best of all windows wins. "No answer" has the lowest score that its token has in
    any window of the example.

    Args:
        examples: rows with id and context.
        features: the rows of `evaluation_features`, in the order of the logits.
        start_logits, end_logits: `[rows, time]`, or a list of `[time]`; what is beyond the tokens of a row is padding.
        version_2_with_negative: whether an example may have no answer.
        n_best_size: how many starts, ends and candidates are kept.
        max_answer_length: the most tokens of an answer.
        null_score_diff_threshold: "no answer" wins where its score is above the best answer's by more than this.

    Raises:
        ValueError: an option below 1, logits of another number of rows than features or shorter than these, or an
            example without features.
    """
    for name, value in (("n_best_size", n_best_size), ("max_answer_length", max_answer_length)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} must be a whole number from 1, got {value!r}")
    windows: dict[Any, list[tuple]] = {}
    features = list(features)
    if not len(features) == len(start_logits) == len(end_logits):
        raise ValueError(
            f"start_logits and end_logits must have one row for each of the {len(features)} features, got "
            f"{len(start_logits)} and {len(end_logits)}"
        )
    for feature, start, end in zip(features, start_logits, end_logits, strict=True):
        windows.setdefault(feature["example_id"], []).append((feature, np.asarray(start), np.asarray(end)))
    answers = Answers({}, {}, {})
    for example in examples:
        name = example[id_column]
        if name not in windows:
            raise ValueError(f"features must hold a row for each example, there is none for the id {name!r}")
        found, null = _candidates(windows[name], n_best_size, max_answer_length)
        best = _n_best(found, null if version_2_with_negative else None, n_best_size, example[context_column])
        real = next((one for one in best if one["text"]), None)
        answers.n_best[name] = best
        answers.texts[name] = "" if real is None else real["text"]
        if version_2_with_negative:
            odds = null["score"] - (0.0 if real is None else real["score"])
            answers.null_odds[name] = odds
            if odds > null_score_diff_threshold:
                answers.texts[name] = ""
    return answers


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises a `TypeError` unless the tokenizer knows where in the text its tokens stand."""
    if not getattr(tokenizer, "is_fast", False):
        raise TypeError(f"tokenizer must be a fast one, which knows offsets, got {type(tokenizer).__name__}")


def check_window(max_length: int, doc_stride: int) -> None:
    """Raises a `ValueError` unless windows of this length can overlap by this much."""
    if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 1:
        raise ValueError(f"max_length must be a whole number from 1, got {max_length!r}")
    if isinstance(doc_stride, bool) or not isinstance(doc_stride, int) or not 0 <= doc_stride < max_length:
        raise ValueError(f"doc_stride must be a whole number from 0 to {max_length - 1}, got {doc_stride!r}")


def check_pair(question: str, context: str) -> None:
    """Raises unless both are strings with text in them: a `TypeError` or a `ValueError`."""
    for name, text in (("question", question), ("context", context)):
        if not isinstance(text, str):
            raise TypeError(f"{name} must be a string, got {type(text).__name__}")
        if not text.strip():
            raise ValueError(f"{name} must not be empty, got {text!r}")


def _cut(tokenizer: PreTrainedTokenizerBase, question: str, length: int) -> str:
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise ValueError(f"max_question_length must be a whole number from 1, got {length!r}")
    offsets = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    offsets = offsets["offset_mapping"]
    return question if len(offsets) <= length else question[: offsets[length - 1][1]]


def _check_room(
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    contexts: Sequence[str],
    max_length: int,
    doc_stride: int,
) -> None:
    """Says in a sentence what the tokenizer would abort on."""
    rooms = context_rooms(tokenizer, questions, max_length)
    for question, context, room in zip(questions, contexts, rooms, strict=True):
        # A context that fits needs no second window, so that the stride does not matter.
        if room > doc_stride or len(tokenizer(context, add_special_tokens=False, verbose=False)["input_ids"]) <= room:
            continue
        shown = repr(question if len(question) <= 40 else question[:40] + "...")
        if room < 1:
            raise ValueError(
                f"question must leave room for its context in {max_length} tokens, got {shown}, which with special "
                f"tokens has {max_length - room}"
            )
        raise ValueError(
            f"doc_stride must be below {room}, the tokens that the question {shown} leaves of {max_length} for its "
            f"context, got {doc_stride}"
        )


def _answer_span(answers: Mapping[str, Sequence], context: str) -> tuple[int, int] | None:
    """The characters of the first answer, or None without answers."""
    if not len(answers["answer_start"]):
        return None
    start, text = answers["answer_start"][0], answers["text"][0]
    if start < 0 or context[start : start + len(text)] != text:
        raise ValueError(
            f"answers must stand in the context at answer_start, got {text!r} at {start}, where the context has "
            f"{context[max(start, 0) :][: len(text)]!r}"
        )
    return start, start + len(text)


def _trimmed(text: str, start: int, end: int) -> list[int]:
    """Offsets without the space that byte-level pieces begin with."""
    piece = text[start:end]
    return [start + len(piece) - len(piece.lstrip()), end] if piece.strip() else [start, end]


def _positions(
    encoded: BatchEncoding, row: int, span: tuple[int, int] | None, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, int]:
    """The first and the last token of the answer in a row, or twice the token of "no answer"."""
    null = null_index(encoded, row, tokenizer)
    tokens = np.flatnonzero(context_of_row(encoded, row, tokenizer))
    if span is None or not len(tokens):
        return null, null
    starts, ends = np.array(encoded["offset_mapping"][row])[tokens].T
    if starts[0] > span[0] or ends[-1] < span[1]:
        return null, null
    # Pieces of one character have the same offsets: the answer holds all of them.
    inside = tokens[(ends > span[0]) & (starts < span[1])]
    return (int(inside[0]), int(inside[-1])) if len(inside) else (null, null)


def _inputs(encoded: BatchEncoding) -> dict[str, list]:
    return {
        name: list(rows)
        for name, rows in encoded.items()
        if name not in ("offset_mapping", "overflow_to_sample_mapping")
    }


def _pad(features: dict[str, list], tokenizer: PreTrainedTokenizerBase, length: int, places: Sequence[str]) -> None:
    """Fills all rows up to a length; `places` name tokens, which move."""
    pads = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
    pads["offset_mapping"] = None
    left = tokenizer.padding_side == "left"
    missing = [length - len(ids) for ids in features["input_ids"]]
    for name, rows in features.items():
        if name in places:
            features[name] = [value + count * left for value, count in zip(rows, missing, strict=True)]
        elif name != "example_id":
            fill = [[pads.get(name, 0)] * count for count in missing]
            features[name] = [pad + row if left else row + pad for row, pad in zip(rows, fill, strict=True)]


def _candidates(windows: list[tuple], n_best_size: int, max_answer_length: int) -> tuple[list[dict], dict]:
    """The candidates of all windows of an example, and the lowest "no answer"."""
    found, null = [], None
    for feature, start_logits, end_logits in windows:
        offsets = feature["offset_mapping"]
        if min(len(start_logits), len(end_logits)) < len(offsets):
            raise ValueError(
                f"start_logits and end_logits must have a value for each of the {len(offsets)} tokens of a row, got "
                f"{len(start_logits)} and {len(end_logits)}"
            )
        start_logits, end_logits = start_logits[: len(offsets)], end_logits[: len(offsets)]
        place = feature.get("null_index", 0)
        score = float(start_logits[place] + end_logits[place])
        if null is None or score < null["score"]:
            null = _candidate((0, 0), start_logits[place], end_logits[place])
        inside = np.array([pair is not None for pair in offsets], bool)
        starts = np.argsort(start_logits)[-1 : -n_best_size - 1 : -1]
        ends = np.argsort(end_logits)[-1 : -n_best_size - 1 : -1]
        lengths = ends[None, :] - starts[:, None] + 1
        fits = inside[starts][:, None] & inside[ends][None, :] & (lengths >= 1) & (lengths <= max_answer_length)
        for i, j in zip(*np.nonzero(fits), strict=True):
            span = (int(offsets[starts[i]][0]), int(offsets[ends[j]][1]))
            found.append(_candidate(span, start_logits[starts[i]], end_logits[ends[j]]))
    return found, null


def _candidate(offsets: tuple[int, int], start_logit, end_logit) -> dict[str, Any]:
    score = float(start_logit + end_logit)
    return {"offsets": offsets, "start_logit": float(start_logit), "end_logit": float(end_logit), "score": score}


def _n_best(found: list[dict], null: dict | None, n_best_size: int, context: str) -> list[dict[str, Any]]:
    """The best candidates with text and probability; "no answer" stays among them if it is one of the candidates."""
    candidates = found if null is None else [*found, null]
    best = sorted(candidates, key=lambda candidate: -candidate["score"])[:n_best_size]
    if null is not None and not any(one is null for one in best):
        best.append(null)
    if not best:
        best = [_candidate((0, 0), 0.0, 0.0)]
    scores = np.array([candidate["score"] for candidate in best])
    exponents = np.exp(scores - scores.max())
    return [
        {"text": context[slice(*candidate["offsets"])], **candidate, "probability": float(probability)}
        for candidate, probability in zip(best, exponents / exponents.sum(), strict=True)
    ]
