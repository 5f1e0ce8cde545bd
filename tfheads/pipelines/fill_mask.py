"""The fill-mask pipeline."""

import logging
from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf

from tfheads.models import TaskModel
from tfheads.pipelines.base import Pipeline, once_traced

logger = logging.getLogger("tfheads")


class FillMaskSettings(NamedTuple):
    """The options of a call: how many answers, the ids they are chosen from (None for all), the tokenizer's options."""

    top_k: int
    targets: list[int] | None
    tokenizer_kwargs: dict


class FillMaskPipeline(Pipeline):
    """The most probable tokens for each mask.

    An answer is a list of `{"score", "token", "token_str", "sequence"}`, best first; with several masks in a string a
    list of such lists, one for each mask. As in transformers, a list of one string gives that string's answer.

    Options:
        top_k: how many tokens; default 5.
        targets: a word or words; only these are scored. One that is no token of the vocabulary counts as its first
            token, with a warning.
        tokenizer_kwargs: passed to the tokenizer, such as `{"truncation": True}`.
    """

    task, model_task = "fill-mask", "masked-lm"
    option_names = ("top_k", "targets", "tokenizer_kwargs")

    def __init__(self, model, tokenizer, batch_size: int = 8, **options):
        super().__init__(model, tokenizer, batch_size, **options)
        if tokenizer.mask_token_id is None:
            raise ValueError(f"tokenizer must have a mask token for {self.task!r}, {type(tokenizer).__name__} has none")
        self.settings(self.options)
        self._scores = once_traced(self._places_and_scores)

    def __call__(self, inputs, *, batch_size: int | None = None, **options):
        answers = super().__call__(inputs, batch_size=batch_size, **options)
        return answers[0] if isinstance(inputs, (list, tuple)) and len(inputs) == 1 else answers

    def settings(self, options: dict) -> FillMaskSettings:
        targets = options.get("targets")
        targets = None if targets is None else self.target_ids([targets] if isinstance(targets, str) else targets)
        top_k, most = options.get("top_k"), self.model.vocab_size
        top_k = 5 if top_k is None else top_k
        if not isinstance(top_k, int) or not 1 <= top_k <= most:
            raise ValueError(
                f"top_k must be a whole number from 1 to {most}, the size of the vocabulary, got {top_k!r}"
            )
        top_k = top_k if targets is None else min(top_k, len(targets))
        return FillMaskSettings(top_k, targets, dict(options.get("tokenizer_kwargs") or {}))

    def target_ids(self, targets: list[str]) -> list[int]:
        """The ids of words to choose from, each once.

        Raises:
            ValueError: there are none.
        """
        vocabulary, ids = self.tokenizer.get_vocab(), []
        for target in targets:
            index = vocabulary.get(target)
            if index is None:
                pieces = self.tokenizer(target, add_special_tokens=False)["input_ids"]
                index = pieces[0] if pieces else None
                instead = self.tokenizer.convert_ids_to_tokens(index) if pieces else None
                what = f"{instead!r} is scored in its place" if pieces else "it is left out"
                logger.warning("fill-mask: the target %r is not in the vocabulary, %s", target, what)
            if index is not None:
                ids.append(index)
        if not ids:
            raise ValueError(f"targets must name at least one token of the vocabulary, got {targets!r}")
        return list(dict.fromkeys(ids))

    def answer(self, texts: list[str], settings: FillMaskSettings) -> list:
        inputs = self.encode(texts, **settings.tokenizer_kwargs)
        ids = inputs["input_ids"].numpy()
        for text, row in zip(texts, ids, strict=True):
            if self.tokenizer.mask_token_id not in row:
                raise ValueError(f"inputs must contain {self.tokenizer.mask_token}, there is none in {text[:40]!r}")
        places, scores = self._scores(inputs)
        if settings.targets is not None:
            scores = tf.gather(scores, settings.targets, axis=-1)
        values, chosen = (tensor.numpy() for tensor in tf.math.top_k(scores, settings.top_k))
        if settings.targets is not None:
            chosen = tf.gather(settings.targets, chosen).numpy()
        places, real = places.numpy(), inputs["attention_mask"].numpy().astype(bool)
        answers = []
        for row in range(len(texts)):
            masks = [index for index, place in enumerate(places) if place[0] == row]
            filled = [
                self._filled(ids[row], real[row], places[mask][1], values[mask], chosen[mask], len(masks) == 1)
                for mask in masks
            ]
            answers.append(filled[0] if len(masks) == 1 else filled)
        return answers

    def _places_and_scores(self, inputs: Mapping) -> tuple:
        places, logits = mask_logits(self.model, inputs, self.tokenizer.mask_token_id)
        return places, tf.nn.softmax(logits)

    def _filled(self, ids, real, place: int, values, chosen, is_only_mask: bool) -> list[dict]:
        answers = []
        for value, token in zip(values.tolist(), chosen.tolist(), strict=True):
            tokens = ids.copy()
            tokens[place] = token
            # With several masks the others shall stay visible, and they are special tokens.
            sequence = self.tokenizer.decode(tokens[real], skip_special_tokens=is_only_mask)
            token_str = self.tokenizer.decode([token])
            answers.append({"score": value, "token": token, "token_str": token_str, "sequence": sequence})
        return answers


def mask_logits(model: TaskModel, inputs: Mapping, mask_token_id: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the masks are `[masks, 2]` (row, place), and their float32 logits `[masks, vocabulary]`.

    The head runs on the masked places alone, so its cost does not depend on the length.
    """
    masked = (inputs["input_ids"] == mask_token_id) & tf.cast(inputs["attention_mask"], "bool")
    places = tf.where(masked)
    hidden = model.backbone(inputs, training=False)["last_hidden_state"]
    encoded = {"last_hidden_state": tf.gather_nd(hidden, places)[:, None, :]}
    table = tf.convert_to_tensor(model.backbone.token_table)
    logits = model.head(encoded, token_table=table, inputs=inputs, training=False)["logits"]
    return places, tf.cast(logits[:, 0], "float32")
