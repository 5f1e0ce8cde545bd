"""The token-classification pipeline, also called ner: what each word of a text is."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfheads.data.token_classification import check_words, check_words_tokenizer
from tfheads.pipelines.base import shortened, text_of, whole_number_option
from tfheads.pipelines.rows import RowsPipeline, softmax

logger = logging.getLogger("tfheads")


class TokenClassificationSettings(NamedTuple):
    """The options of a call, checked; see `TokenClassificationPipeline`."""

    aggregation_strategy: str
    ignore_labels: tuple[str, ...]
    stride: int | None
    is_split_into_words: bool
    delimiter: str


class Chunk(NamedTuple):
    """A row of a text: the model's inputs, and of each token its characters in the text and whether it is special."""

    inputs: dict[str, list[int]]
    offsets: list[tuple[int | None, int | None]]
    is_special: list[int]


class Piece(NamedTuple):
    """A token, or a word made of tokens, with the probabilities of the labels."""

    word: str
    scores: np.ndarray
    start: int | None
    end: int | None
    index: int | None = None
    continues: bool = False


class TokenClassificationPipeline(RowsPipeline):
    """What the tokens, words or entities of a text are.

    An answer is a list of dictionaries in the order of the text. Without aggregation one for each token,
    `{"entity", "score", "index", "word", "start", "end"}`; otherwise one for each entity, `{"entity_group", "score",
    "word", "start", "end"}`. `start` and `end` are characters: `text[start:end]` is what stands in the text, while
    `word` is made of tokens. Both are None with a tokenizer that does not know them. An empty text has no entities.

    Options:
        aggregation_strategy: "none", the default, gives tokens. The others join neighbours of one entity, "B-" begins
            a new one. "simple" joins tokens as they are; "first", "average" and "max" first give all pieces of a word
            one label: that of the first piece, of the mean of the probabilities, or of the piece that is surest.
        ignore_labels: labels or entities to leave out; default ("O",).
        stride: by how many tokens the rows of a text overlap that is longer than a row; None cuts such a text, and
            says so.
        is_split_into_words: whether a text is a list of words; a single list gives a list of one answer, as in
            transformers. Default False.
        delimiter: what stands between words then, for `start` and `end`; default a space.
    """

    task, model_task = "token-classification", "token-classification"
    option_names = ("aggregation_strategy", "ignore_labels", "stride", "is_split_into_words", "delimiter")

    def __init__(self, model, tokenizer, batch_size: int = 8, **options):
        super().__init__(model, tokenizer, batch_size, **options)
        names = model.config.id2label
        missing = next((index for index in range(len(names)) if index not in names), None)
        if missing is not None:
            raise ValueError(f"id2label must name the labels 0 to {len(names) - 1}, got {sorted(names)}")
        self._names = [names[index] for index in range(len(names))]
        self.settings(self.options)

    def __call__(self, inputs, *, batch_size: int | None = None, **options):
        split = {**self.options, **options}.get("is_split_into_words", False)
        words = isinstance(inputs, (list, tuple)) and not all(isinstance(part, (list, tuple)) for part in inputs)
        return super().__call__([inputs] if split and words else inputs, batch_size=batch_size, **options)

    @property
    def row_length(self) -> int | None:
        """The most tokens of a row, None for no limit."""
        limits = (self.model.backbone.length_limit, self.tokenizer.model_max_length)
        return min((limit for limit in limits if limit is not None and limit < 1e9), default=None)

    def settings(self, options: dict) -> TokenClassificationSettings:
        options = {name: value for name, value in options.items() if value is not None}
        strategy = options.get("aggregation_strategy", "none")
        if strategy not in AGGREGATIONS:
            raise ValueError(f"aggregation_strategy must be one of {', '.join(AGGREGATIONS)}, got {strategy!r}")
        is_fast = getattr(self.tokenizer, "is_fast", False)
        if strategy not in ("none", "simple") and not is_fast:
            raise ValueError(
                f"aggregation_strategy must be 'none' or 'simple' with a tokenizer without offsets, got {strategy!r} "
                f"and {type(self.tokenizer).__name__}"
            )
        split = options.get("is_split_into_words", False)
        if not isinstance(split, bool):
            raise ValueError(f"is_split_into_words must be True or False, got {split!r}")
        if split:
            check_words_tokenizer(self.tokenizer)
        delimiter = options.get("delimiter", " ")
        if not isinstance(delimiter, str):
            raise TypeError(f"delimiter must be a string, got {type(delimiter).__name__}")
        stride = self._checked_stride(options.get("stride"), strategy, is_fast)
        return TokenClassificationSettings(strategy, self._checked_labels(options), stride, split, delimiter)

    def example(self, value, place: str = "") -> str | list[str]:
        if isinstance(value, (list, tuple)):
            return check_words(value)
        return text_of(value, f"inputs must be a string or strings, got {type(value).__name__}{place}")

    def size_of(self, example: str | list[str]) -> int:
        return sum(map(len, example))

    def answers(self, examples: list, settings: TokenClassificationSettings, size: int) -> list:
        texts = [text_and_words(example, settings) for example in examples]
        chunks = [self.chunks(text, words, settings) for text, words in texts]
        found = iter(self.run([chunk.inputs for own in chunks for chunk in own], size))
        return [
            self.finish(text, own, [next(found) for _ in own], settings)
            for (text, _), own in zip(texts, chunks, strict=True)
        ]

    def chunks(self, text: str, words: list[str] | None, settings: TokenClassificationSettings) -> list[Chunk]:
        """The rows of a text: one, or with a stride as many as it needs; none where there are no tokens."""
        is_fast, length = getattr(self.tokenizer, "is_fast", False), self.row_length
        encoded = self.tokenizer(
            text if words is None else words,
            is_split_into_words=words is not None,
            return_attention_mask=True,
            return_special_tokens_mask=True,
            return_offsets_mapping=is_fast,
            return_overflowing_tokens=is_fast,
            verbose=False,
            **({} if length is None else {"truncation": True, "max_length": length, "stride": settings.stride or 0}),
        )
        rows = {name: values if is_fast else [values] for name, values in encoded.items()}
        if settings.stride is None and self._is_cut(text, rows):
            logger.warning(
                "token-classification: a text is cut after %d tokens, %s; with stride=... all of it is read",
                length,
                shortened(text),
            )
            rows = {name: values[:1] for name, values in rows.items()}
        known = self.model.backbone.input_names
        return [
            Chunk(
                {name: values[row] for name, values in rows.items() if name in known},
                self._offsets(encoded, row, words, settings) if is_fast else [(None, None)] * len(special),
                special,
            )
            for row, special in enumerate(rows["special_tokens_mask"])
            if not all(special)
        ]

    def finish(
        self,
        example: str,
        rows: list[Chunk],
        outputs: list[dict[str, np.ndarray]],
        settings: TokenClassificationSettings,
    ) -> list[dict]:
        entities = []
        for chunk, output in zip(rows, outputs, strict=True):
            scores = softmax(output["logits"][: len(chunk.is_special)])
            pieces = self._pieces(example, chunk, scores)
            found = AGGREGATIONS[settings.aggregation_strategy](pieces, self._names, self._text_of)
            ignored = settings.ignore_labels
            entities += [one for one in found if one.get("entity", one.get("entity_group")) not in ignored]
        return entities if len(rows) < 2 else without_overlaps(entities)

    def _pieces(self, text: str, chunk: Chunk, scores: np.ndarray) -> list[Piece]:
        """The tokens of a row that are not special."""
        tokens = self.tokenizer.convert_ids_to_tokens(chunk.inputs["input_ids"])
        backend = getattr(self.tokenizer, "_tokenizer", None)
        marks_pieces = bool(getattr(getattr(backend, "model", None), "continuing_subword_prefix", None))
        pieces = []
        for index, (token, (start, end)) in enumerate(zip(tokens, chunk.offsets, strict=True)):
            if chunk.is_special[index]:
                continue
            continues = False
            if start is not None:
                source = text[start:end]
                if chunk.inputs["input_ids"][index] == self.tokenizer.unk_token_id:
                    token = source
                elif marks_pieces:
                    continues = len(token) != len(source)
                else:
                    continues = start > 0 and " " not in text[start - 1 : start + 1]
            pieces.append(Piece(token, scores[index], start, end, index, continues))
        return pieces

    def _text_of(self, tokens: Sequence[str]) -> str:
        return self.tokenizer.convert_tokens_to_string(list(tokens))

    def _offsets(self, encoded, row: int, words: list[str] | None, settings) -> list[tuple[int, int]]:
        """Where the tokens of a row stand in the text, for words in the text that they make."""
        if words is None:
            return encoded["offset_mapping"][row]
        begins = np.cumsum([0, *(len(word) + len(settings.delimiter) for word in words)]).tolist()
        return [
            (start, end) if word is None else (begins[word] + start, begins[word] + end)
            for word, (start, end) in zip(encoded.word_ids(row), encoded["offset_mapping"][row], strict=True)
        ]

    def _is_cut(self, text: str, rows: dict) -> bool:
        if getattr(self.tokenizer, "is_fast", False):
            return len(rows["input_ids"]) > 1
        length = self.row_length
        return length is not None and len(self.tokenizer(text, verbose=False)["input_ids"]) > length

    def _checked_stride(self, stride, strategy: str, is_fast: bool) -> int | None:
        if stride is None:
            return None
        whole_number_option("stride", stride, 0)
        if not is_fast:
            raise ValueError(f"stride must be None with a tokenizer without offsets, {type(self.tokenizer).__name__}")
        if strategy == "none":
            raise ValueError(f"stride must be None without an aggregation_strategy, which joins rows, got {stride}")
        length = self.row_length
        room = None if length is None else length - self.tokenizer.num_special_tokens_to_add()
        if room is not None and stride >= room:
            raise ValueError(f"stride must be below {room}, the tokens of a text that fit into a row, got {stride}")
        return stride

    def _checked_labels(self, options: dict) -> tuple[str, ...]:
        if "ignore_labels" not in options:
            return ("O",)
        labels = options["ignore_labels"]
        if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
            raise TypeError(f"ignore_labels must be a list of strings, got {labels!r}")
        # "O" is what others call no entity, and [""] is how transformers' users ask for all labels.
        known = {"O", "", *self._names, *(label_parts(name)[1] for name in self._names)}
        unknown = next((label for label in labels if label not in known), None)
        if unknown is not None:
            raise ValueError(f"ignore_labels must be labels of the model, {', '.join(self._names)}, got {unknown!r}")
        return tuple(labels)


def text_and_words(example: str | list[str], settings: TokenClassificationSettings) -> tuple[str, list[str] | None]:
    """A text, and its words where it is given as words.

    Raises:
        TypeError: words without `is_split_into_words`, or the other way.
    """
    if isinstance(example, str):
        if settings.is_split_into_words:
            raise TypeError(f"inputs must be lists of words with is_split_into_words=True, got {shortened(example)}")
        return example, None
    if not settings.is_split_into_words:
        raise TypeError("inputs must be strings, got a list of words: give is_split_into_words=True")
    return settings.delimiter.join(example), example


def tokens_as_entities(pieces: list[Piece], names: list[str], text_of_tokens) -> list[dict]:
    """Strategy "none": each token."""
    return [
        {
            "entity": names[piece.scores.argmax()],
            "score": float(piece.scores.max()),
            "index": piece.index,
            "word": piece.word,
            "start": piece.start,
            "end": piece.end,
        }
        for piece in pieces
    ]


def tokens_in_groups(pieces: list[Piece], names: list[str], text_of_tokens) -> list[dict]:
    """Strategy "simple": neighbouring tokens of one entity."""
    return grouped(pieces, names, text_of_tokens)


def words_by_first(pieces: list[Piece], names: list[str], text_of_tokens) -> list[dict]:
    """Strategy "first": a word has the label of its first piece."""
    words = joined_words(pieces, lambda word: word[0].scores, text_of_tokens)
    return grouped(words, names, text_of_tokens)


def words_by_average(pieces: list[Piece], names: list[str], text_of_tokens) -> list[dict]:
    """Strategy "average": a word has the label of the mean of its pieces."""
    words = joined_words(pieces, lambda word: np.mean([piece.scores for piece in word], axis=0), text_of_tokens)
    return grouped(words, names, text_of_tokens)


def words_by_maximum(pieces: list[Piece], names: list[str], text_of_tokens) -> list[dict]:
    """Strategy "max": a word has the label of the piece that is surest."""
    words = joined_words(pieces, lambda word: max((piece.scores for piece in word), key=np.max), text_of_tokens)
    return grouped(words, names, text_of_tokens)


AGGREGATIONS = {
    "none": tokens_as_entities,
    "simple": tokens_in_groups,
    "first": words_by_first,
    "average": words_by_average,
    "max": words_by_maximum,
}


def joined_words(pieces: list[Piece], scores_of, text_of_tokens) -> list[Piece]:
    """Words from their pieces; `scores_of` makes the probabilities of a word from its pieces."""
    words: list[list[Piece]] = []
    for piece in pieces:
        if words and piece.continues:
            words[-1].append(piece)
        else:
            words.append([piece])
    return [
        Piece(text_of_tokens([piece.word for piece in word]), scores_of(word), word[0].start, word[-1].end)
        for word in words
    ]


def grouped(pieces: list[Piece], names: list[str], text_of_tokens) -> list[dict]:
    """Neighbours of one entity as one; a label that begins with "B-" begins another."""
    groups: list[list[Piece]] = []
    before = None
    for piece in pieces:
        begins, entity = label_parts(names[piece.scores.argmax()])
        if entity != before or begins:
            groups.append([])
        groups[-1].append(piece)
        before = entity
    return [
        {
            "entity_group": names[group[0].scores.argmax()].split("-", 1)[-1],
            "score": float(np.mean([piece.scores.max() for piece in group])),
            "word": text_of_tokens([piece.word for piece in group]),
            "start": group[0].start,
            "end": group[-1].end,
        }
        for group in groups
    ]


def label_parts(label: str) -> tuple[bool, str]:
    """Whether a label begins an entity, and the entity: (True, "PER") for "B-PER"; "I-PER" and "PER" go on."""
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label


def without_overlaps(entities: list[dict]) -> list[dict]:
    """Of entities that several rows saw, the longest, or of equal length the surest."""
    kept: list[dict] = []
    for entity in sorted(entities, key=lambda entity: entity["start"]):
        last = kept[-1] if kept else None
        if last is None or not last["start"] <= entity["start"] < last["end"]:
            kept.append(entity)
        elif (entity["end"] - entity["start"], entity["score"]) > (last["end"] - last["start"], last["score"]):
            kept[-1] = entity
    return kept
