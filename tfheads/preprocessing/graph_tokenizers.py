"""Tokenizers inside the TensorFlow graph, with the ids of the rust library: for SavedModels with strings outside."""

import json
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import transformers

from tfheads.preprocessing import (
    added_tokens,
    code_points,
    decoders,
    description,
    normalizers,
    post_processors,
    pre_tokenizers,
    tokenizer_models,
)
from tfheads.preprocessing.added_tokens import NO_TOKEN, Margins, Segments
from tfheads.preprocessing.aligned_text import Text, Tokens
from tfheads.preprocessing.encoding import TRUNCATIONS, Encoding, Layout, Truncation, checked, windows
from tfheads.preprocessing.speech_decoders import without_prompts_and_times


def graph_tokenizer(tokenizer: transformers.PreTrainedTokenizerBase, check: bool = True) -> "GraphTokenizer":
    """A tokenizer that runs in the TensorFlow graph and gives the same ids.

    Args:
        tokenizer: a fast tokenizer of transformers (one that has `backend_tokenizer`), or a MarianTokenizer.
        check: whether to run `verify` on it.

    Returns:
        A `tf.Module`; keep it as an attribute of what you export, so that its resources are saved.

    Raises:
        TypeError: when the tokenizer is another one.
        ValueError: when a part of it cannot be expressed exactly in the graph, or when ids differ on the probe texts.
    """
    if getattr(tokenizer, "is_fast", False):
        result = GraphTokenizer(tokenizer)
    elif hasattr(tokenizer, "spm_source") and hasattr(tokenizer, "spm_target"):
        from tfheads.preprocessing.two_models import TwoModelTokenizer

        result = TwoModelTokenizer(tokenizer)
    else:
        raise TypeError(
            f"Argument `tokenizer` must be a fast tokenizer of transformers (one with `backend_tokenizer`) or one of "
            f"two SentencePiece models (MarianTokenizer), got {type(tokenizer).__name__}."
        )
    if check:
        from tfheads.preprocessing.verification import verify

        verify(tokenizer, result)
    return result


class GraphTokenizer(tf.Module):
    """The parts of one tokenizer, read from its own description; see `graph_tokenizer`.

    Attributes:
        id_to_token: the token of each id, as it stands in the vocabulary `[vocabulary]`; "" for an id without one.
        vocabulary_size: one more than the highest id.
        decoder: makes the texts of ids.
        pad_token_id: the id that `pad` fills with; None when the tokenizer has no padding token.
        padding_side, truncation_side: "right" or "left", as in the tokenizer.
        knows_offsets: whether `encode` gives offsets and word ids, as every fast tokenizer does.
    """

    knows_offsets = True

    def __init__(self, tokenizer: transformers.PreTrainedTokenizerBase):
        super().__init__()
        backend = tokenizer.backend_tokenizer
        part = json.loads(backend.to_str())
        if backend.encode_special_tokens:
            raise description.refuse("split_special_tokens=True")
        self._normalizer = normalizers.build(part["normalizer"])
        self._added = _added_tokens(part["added_tokens"], part["normalizer"])
        self._pre_tokenizer = pre_tokenizers.build(part["pre_tokenizer"])
        self._model = tokenizer_models.build(part["model"], part["pre_tokenizer"])
        self._post_processor = post_processors.build(part["post_processor"])
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.vocabulary_size = max(vocabulary.values(), default=-1) + 1
        tokens = [backend.id_to_token(i) for i in range(self.vocabulary_size)]
        special = {token["id"] for token in part["added_tokens"] if token["special"]}
        decoder = decoders.build(part["decoder"], tokens, special, _cleans_up(tokenizer, part))
        self.decoder = without_prompts_and_times(decoder, tokenizer)
        self._margins = Margins(tokens) if self._post_processor.trims else None
        with tf.init_scope():
            self.id_to_token = tf.constant([token or "" for token in tokens])
        self.pad_token_id = tokenizer.pad_token_id
        self.padding_side, self.truncation_side = tokenizer.padding_side, tokenizer.truncation_side

    @tf.autograph.experimental.do_not_convert
    def tokenize(
        self, strings: tf.Tensor | Sequence[str], max_length: int | None = None, add_special_tokens: bool = True
    ) -> tf.RaggedTensor:
        """The ids of texts, as the tokenizer itself gives them.

        Args:
            strings: texts in UTF-8 `[batch]`; bytes that are not UTF-8 count as U+FFFD.
            max_length: texts are truncated so that no row has more ids than this, added ones included.
            add_special_tokens: whether to add what the tokenizer adds around a text.

        Returns:
            Ids `[batch, (length)]`, int32.

        Raises:
            ValueError: when `max_length` leaves no room for the added tokens or `strings` is not a list of texts.
        """
        texts = [_texts("strings", strings)]
        return self._layout(texts, max_length, "longest_first", None, add_special_tokens, with_places=False).ids()

    @tf.autograph.experimental.do_not_convert
    def encode(
        self,
        text: tf.Tensor | Sequence[str],
        pair: tf.Tensor | Sequence[str] | None = None,
        max_length: int | None = None,
        truncation: str = "longest_first",
        stride: int | tf.Tensor | None = None,
        add_special_tokens: bool = True,
    ) -> Encoding:
        """Rows of tokens with their places in the texts, as the tokenizer itself gives them.

        Args:
            text: texts in UTF-8 `[batch]`; bytes that are not UTF-8 count as U+FFFD.
            pair: a second text for each `[batch]`, such as the contexts of questions.
            max_length: no row has more tokens than this, added ones included; None for no limit.
            truncation: what is cut to `max_length`: "longest_first" the longer one or both, "only_first" the text,
                "only_second" the pair, "do_not_truncate" nothing.
            stride: None for one row of each text. A number, or one for each text `[batch]`, gives a text that is cut as
                many rows as it needs, one after the other; neighbouring ones share so many tokens.
            add_special_tokens: whether to add what the tokenizer adds around texts.

        Returns:
            See `Encoding`. What the rust library says of windows without a post-processor it says here of all: which
            sequence each token is of.

        Raises:
            ValueError: a bad argument, or a `max_length` that leaves no room.
            tf.errors.InvalidArgumentError: texts and pairs differ in number, or a row leaves no room: for a token of
                what alone is truncated, or for more tokens than `stride`.
        """
        texts = [_texts("text", text)] + ([] if pair is None else [_texts("pair", pair)])
        layout = self._layout(texts, max_length, truncation, stride, add_special_tokens, self.knows_offsets)
        return layout.encoding(self._post_processor.trims)

    @tf.autograph.experimental.do_not_convert
    def pad(
        self, ids: tf.RaggedTensor, length: int | tf.Tensor | None = None, pad_token_id: int | None = None
    ) -> dict[str, tf.Tensor]:
        """Rows of one length, filled on the tokenizer's padding side.

        Args:
            ids: `[batch, (length)]`.
            length: the length of each row, at least that of the longest; by default that of the longest.
            pad_token_id: the id to fill with; by default the tokenizer's.

        Returns:
            `input_ids` and `attention_mask` `[batch, length]`, int32.

        Raises:
            ValueError: when the tokenizer has no padding token and none is given.
            tf.errors.InvalidArgumentError: when a row is longer than `length`.
        """
        fill = self.pad_token_id if pad_token_id is None else pad_token_id
        if fill is None:
            raise ValueError("Argument `pad_token_id` must be given, for this tokenizer has no padding token.")
        longest = tf.cast(ids.bounding_shape(1), tf.int32)
        if length is None:
            length = longest
        checks = [tf.debugging.assert_less_equal(longest, length, "A text has more ids than argument `length` allows.")]
        checks = [check for check in checks if check is not None]  # nothing to wait for when it ran eagerly
        with tf.control_dependencies(checks):
            length = tf.identity(length)
        counts = tf.cast(ids.row_lengths(), tf.int32)
        position = tf.range(length)[None]
        if self.padding_side == "left":
            position -= length - counts[:, None]
        mask = (position >= 0) & (position < counts[:, None])
        where = tf.cast(ids.row_splits[:-1, None], tf.int32) + tf.where(mask, position, 0)
        # One more value, for the places of empty rows.
        values = tf.concat([ids.values, tf.fill([1], tf.cast(fill, ids.dtype))], 0)
        input_ids = tf.where(mask, tf.gather(values, where), tf.cast(fill, ids.dtype))
        return {"input_ids": tf.cast(input_ids, tf.int32), "attention_mask": tf.cast(mask, tf.int32)}

    @tf.autograph.experimental.do_not_convert
    def detokenize(
        self,
        ids: tf.RaggedTensor | tf.Tensor | np.ndarray | Sequence[Sequence[int]],
        skip_special_tokens: bool = True,
    ) -> tf.Tensor:
        """The texts of ids, as the tokenizer's `decode` gives them.

        Args:
            ids: `[batch, (length)]` or `[batch, length]`; ids without a token are left out.
            skip_special_tokens: whether special ids are left out too.

        Returns:
            Texts in UTF-8 `[batch]`; bytes that are not UTF-8 are replaced by U+FFFD.
        """
        if isinstance(ids, (list, tuple)):
            ids = tf.ragged.constant(ids, tf.int32, ragged_rank=1)
        if not isinstance(ids, tf.RaggedTensor):
            ids = tf.RaggedTensor.from_tensor(ids)
        return self.decoder(tf.cast(ids, tf.int32), skip_special_tokens)

    def _layout(
        self, texts: list[tf.Tensor], max_length, truncation: str, stride, add_special_tokens: bool, with_places: bool
    ) -> Layout:
        """What stands where in the rows of texts, and of their pairs if there are two."""
        template = self._post_processor.template(len(texts) == 2, add_special_tokens)
        cut = _truncation(template.added, len(texts), max_length, truncation, stride, self.truncation_side)
        batch = tf.size(texts[0])
        if len(texts) == 2:
            message = "Arguments `text` and `pair` must have the same number of texts."
            with checked(tf.size(texts[1]) == batch, message):
                texts = [tf.concat(texts, 0)]
        tokens = self._tokens(texts[0], with_places)
        lengths = tf.cast(tokens.ids.row_lengths(), tf.int32)
        rows, slices = windows([lengths[:batch], lengths[batch:]][: len(template.order)], cut, template.order)
        return Layout(template, tokens, batch, rows, slices)

    def _tokens(self, strings: tf.Tensor, with_places: bool) -> Tokens:
        """The tokens of texts without what is added around them `[batch, (tokens)]`."""
        rows = tf.size(strings, tf.int64)
        segments = Segments(strings, tf.fill([rows], NO_TOKEN), tf.range(rows + 1))
        raw, normalized = self._added
        if raw is not None:
            segments = raw(segments)
        if self._normalizer is None and normalized is not None:
            segments = normalized(segments)
        located = with_places or getattr(self._pre_tokenizer, "needs_places", False)
        segments, text = segments.located() if located else (segments, Text(segments.text()))
        if self._normalizer is not None:
            text = self._normalizer(text)
            if normalized is not None:
                strings = tf.where(segments.ids == NO_TOKEN, code_points.encode(text.points), segments.strings)
                segments, text = normalized(segments._replace(strings=strings)).located_in(text)
        words = self._pre_tokenizer(text)
        if not with_places:
            words = words._replace(places=None)
        return segments.with_tokens(self._model(words), words, self._margins)


def _added_tokens(tokens: list[dict], normalizer: dict | None):
    """Finders of the tokens that are looked for before and after the normaliser."""
    raw = [token for token in tokens if not token["normalized"]]
    normalized = [token for token in tokens if token["normalized"]]
    contents = [token["content"] for token in normalized]
    if normalizer is not None:
        contents = [description.rust("normalizer", normalizer).normalize_str(content) for content in contents]
    return (
        added_tokens.AddedTokens(raw, [token["content"] for token in raw]) if raw else None,
        added_tokens.AddedTokens(normalized, contents) if normalized else None,
    )


def _cleans_up(tokenizer: transformers.PreTrainedTokenizerBase, part: dict) -> bool:
    """Whether transformers' own decode removes spaces before punctuation; for BPE it does so only when forced."""
    forced = getattr(tokenizer, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False)
    return bool(tokenizer.clean_up_tokenization_spaces) and (part["model"]["type"] != "BPE" or forced)


def _texts(name: str, texts) -> tf.Tensor:
    texts = tf.convert_to_tensor(texts, tf.string)
    if texts.shape.rank != 1:
        raise ValueError(f"Argument `{name}` must have the shape [batch], got {texts.shape}.")
    return texts


def _truncation(added: int, sequences: int, max_length, strategy: str, stride, side: str) -> Truncation:
    """The truncation that arguments ask for.

    Raises:
        ValueError: when they cannot be met.
    """
    if strategy not in TRUNCATIONS:
        raise ValueError(f"Argument `truncation` must be one of {', '.join(TRUNCATIONS)}, got {strategy!r}.")
    if strategy == "only_second" and sequences == 1:
        raise ValueError("Argument `truncation` must not be 'only_second' without argument `pair`.")
    shared = None if tf.is_tensor(stride) else stride
    for name, value, least in (("max_length", max_length, 1), ("stride", shared, 0)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise ValueError(f"Argument `{name}` must be a whole number from {least} or None, got {value!r}.")
    if max_length is None or strategy == "do_not_truncate":
        return Truncation()
    room = max_length - added
    if room < 0:
        raise ValueError(
            f"Argument `max_length` must leave room for the {added} tokens that are added to each text, "
            f"got {max_length}."
        )
    if shared is not None and shared >= room:
        raise ValueError(
            f"Argument `stride` must be less than the {room} tokens that `max_length` leaves for the texts of a row, "
            f"got {stride}."
        )
    return Truncation(room, strategy, stride, side)
