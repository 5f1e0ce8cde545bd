"""A head for documents: the vectors of a document's windows become one vector, and that a class."""

import keras
import tensorflow as tf
from keras import ops

from tfheads.heads.classification import ClassificationHead
from tfheads.layers.part import Part, part
from tfheads.layers.projections import dense


@part
class MeanWindows(Part):
    """The mean over the windows."""

    def call(self, vectors, real):
        weights = ops.cast(real, "float32")[..., None]
        total = ops.sum(ops.cast(vectors, "float32") * weights, axis=1)
        return ops.cast(total / ops.sum(weights, axis=1), vectors.dtype)


@part
class MaxWindows(Part):
    """The largest value of each feature over the windows."""

    def call(self, vectors, real):
        return ops.max(ops.where(real[..., None], vectors, vectors.dtype.min), axis=1)


@part
class AttentionWindows(Part):
    """The mean over the windows, each weighed by the softmax of a learned score (Yang et al. 2016, without the tanh).

    Args:
        width: of the vectors.
    """

    def __init__(self, width: int, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.score = dense(width, 1, use_bias=False, dtype=self.dtype_policy)

    def call(self, vectors, real):
        scores = ops.cast(self.score(vectors)[..., 0], "float32")
        weights = ops.softmax(ops.where(real, scores, -1e9), axis=-1)
        return ops.cast(ops.sum(ops.cast(vectors, "float32") * weights[..., None], axis=1), vectors.dtype)


WINDOW_POOLINGS = {
    "mean": lambda width: MeanWindows(),
    "max": lambda width: MaxWindows(),
    "attention": AttentionWindows,
}


@part
class DocumentHead(ClassificationHead):
    """Logits `[batch, num_labels]` from the vectors of each document's windows.

    Args:
        windows: a part `(vectors [batch, windows, width], real [batch, windows]) -> [batch, width]`.
        pooler: makes the vector of a window.
        width: of the vector.
        num_labels: how many classes or numbers.
        problem_type: see `tfheads.losses.SequenceLoss`.
        dropout: rate on the document's vector.
        use_bias: whether each logit has a bias.
    """

    def __init__(
        self,
        windows: keras.layers.Layer,
        pooler: keras.layers.Layer,
        width: int,
        num_labels: int,
        problem_type: str | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        **kwargs,
    ):
        super().__init__(pooler, width, num_labels, problem_type, dropout, use_bias, **kwargs)
        self.windows = windows

    def of_windows(self, vectors: tf.Tensor, real: tf.Tensor, training=None) -> dict:
        """Logits of vectors `[batch, windows, width]`, of which `real` `[batch, windows]` belong to the document."""
        return {"logits": self.classifier(self.drop(self.windows(vectors, real), training=training))}


def document_head(
    config, pooler: keras.layers.Layer, width: int, dropout: float = 0.0, use_bias: bool = True
) -> DocumentHead:
    """The head of a config, by its `window_pooling` ("mean" if it has none).

    Args:
        config: of the family.
        pooler: makes one vector of a window.
        width: of the vector.
        dropout: rate in front of the classifier.
        use_bias: whether the classifier has a bias.

    Raises:
        ValueError: a `window_pooling` that there is not.
    """
    pooling = getattr(config, "window_pooling", "mean")
    if pooling not in WINDOW_POOLINGS:
        raise ValueError(f"window_pooling must be one of {', '.join(WINDOW_POOLINGS)}, got {pooling!r}")
    windows = WINDOW_POOLINGS[pooling](width)
    return DocumentHead(windows, pooler, width, config.num_labels, config.problem_type, dropout, use_bias)
