"""tensorflow_text's SentencePiece, whose model stays when a seed is set."""

import hashlib

import tensorflow as tf
import tensorflow_text
from tensorflow_text.python.ops import sentencepiece_tokenizer as original


class SentencePieces(tensorflow_text.SentencepieceTokenizer):
    """A tokenizer in the graph, from the bytes of a SentencePiece model.

    The model of tensorflow_text's own belongs to an operation that TensorFlow forgets when `tf.random.set_seed` is
    called, after which eager calls fail; this one has a name.

    Args:
        model: a SentencePiece model in the format of its files.
        options: as in `tensorflow_text.SentencepieceTokenizer`.
    """

    def __init__(self, model: bytes, **options):
        super().__init__(model, **options)
        self._model_resource = _NamedModel(model, "SentencePieces")


class _NamedModel(original._SentencepieceModelResource):
    def _create_resource(self) -> tf.Tensor:
        name = hashlib.sha256(self._model).hexdigest()
        return original.gen_sentencepiece_tokenizer.sentencepiece_op(model=self._model, shared_name=name)
