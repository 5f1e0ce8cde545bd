"""The feature-extraction pipeline."""

from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from tfheads.checkpoints import hub
from tfheads.pipelines.rows import Pair, RowsPipeline
from tfheads.pipelines.sentence_embeddings import MODULES_FILE, POOLINGS, SentenceModules, read_modules


class FeatureExtractionSettings(NamedTuple):
    """The options of a call: the tokenizer's, tensors or lists, and how to make one vector (None for one per token)."""

    tokenizer_kwargs: dict
    return_tensors: bool
    sentence: SentenceModules | None


class FeatureExtractionPipeline(RowsPipeline):
    """The hidden values of each token, or one vector for a text.

    An answer is a nested list `[1, time, hidden]`, as in transformers. With `pooling` it is a vector `[width]`.

    Args:
        sentence_modules: what the model's directory asks for, if it is one of sentence-transformers; `pipeline` reads
            it from modules.json.

    Options:
        return_tensors: True gives a tensor in place of lists.
        truncation: whether a text that is too long is cut; else it is an error.
        tokenize_kwargs: passed to the tokenizer.
        pooling: "sentence-transformers" does what modules.json beside the model asks for (pooling, normalisation,
            length). Or a name: "mean" over the tokens, "cls" (the first), "max", "mean_sqrt_len", "weightedmean",
            "lasttoken". Default None: a vector for each token.
        normalize: whether vectors get length 1; default what `pooling` asks for.
    """

    task, model_task = "feature-extraction", "base"
    needs_head = False
    option_names = ("return_tensors", "truncation", "tokenize_kwargs", "pooling", "normalize")
    outputs = ("last_hidden_state",)

    def __init__(
        self, model, tokenizer, batch_size: int = 8, *, sentence_modules: SentenceModules | None = None, **options
    ):
        super().__init__(model, tokenizer, batch_size, **options)
        self.sentence_modules = sentence_modules
        self.settings(self.options)

    @classmethod
    def files(cls, name_or_path: str, **source) -> dict:
        directory = hub.resolve(name_or_path, weights=False, **source)
        if Path(directory, MODULES_FILE).is_file():
            hub.fetch_folders(name_or_path, ("*/config.json",), **source)
        return {"sentence_modules": read_modules(directory)}

    def settings(self, options: dict) -> FeatureExtractionSettings:
        tokenizer_kwargs = dict(options.get("tokenize_kwargs") or {})
        if options.get("truncation") is not None:
            if "truncation" in tokenizer_kwargs:
                raise ValueError("truncation must be given once, got it as an option and in tokenize_kwargs")
            tokenizer_kwargs["truncation"] = options["truncation"]
        sentence = self.sentence(options.get("pooling"), options.get("normalize"))
        if sentence is not None and "max_length" not in tokenizer_kwargs:
            lengths = [
                length for length in (sentence.max_length, self.model.backbone.length_limit) if length is not None
            ]
            longest = min([*lengths, self.tokenizer.model_max_length])
            tokenizer_kwargs = {"truncation": True, "max_length": longest, **tokenizer_kwargs}
        return FeatureExtractionSettings(tokenizer_kwargs, bool(options.get("return_tensors", False)), sentence)

    def sentence(self, pooling: str | None, normalize: bool | None) -> SentenceModules | None:
        """How a text becomes one vector; None where there shall be one for each token.

        Raises:
            ValueError: an unknown pooling, normalisation without pooling, or the directory says nothing of it.
        """
        if pooling is None:
            if normalize:
                raise ValueError("normalize must be given with pooling, got normalize=True and pooling=None")
            return None
        if pooling == "sentence-transformers":
            own = self.sentence_modules
            if own is None:
                raise ValueError("pooling='sentence-transformers' needs a directory with modules.json, there is none")
            changes = {} if normalize is None else {"normalize": bool(normalize)}
            return SentenceModules(**{**vars(own), **changes})
        if pooling not in POOLINGS:
            known = ", ".join(map(repr, ("sentence-transformers", *POOLINGS)))
            raise ValueError(f"pooling must be None or one of {known}, got {pooling!r}")
        return SentenceModules((pooling,), normalize=bool(normalize))

    def rows(self, example: Pair, settings: FeatureExtractionSettings) -> list[dict]:
        text = example.text
        if settings.sentence is not None:
            text = text.strip().lower() if settings.sentence.lower_case else text.strip()
        return [self.encode_row(text, **settings.tokenizer_kwargs)]

    def finish(self, example, rows, outputs, settings: FeatureExtractionSettings):
        (row,), hidden = rows, outputs[0]["last_hidden_state"]
        hidden = hidden[: len(row["input_ids"])]
        if settings.sentence is None:
            answer = hidden[None]
        else:
            real = [place for place, mask in enumerate(row["attention_mask"]) if mask]
            answer = settings.sentence.vector(hidden[real])
        return tf.constant(answer) if settings.return_tensors else answer.tolist()
