"""The head of a discriminator, which says of each token whether it belongs there."""

from keras import ops

from tfheads.heads.head import Head
from tfheads.layers.activations import activation
from tfheads.layers.part import part
from tfheads.layers.projections import dense
from tfheads.losses import TokenBinaryCrossEntropy


@part
class DiscriminatorHead(Head):
    """A logit `[batch, time]` for each token: whether another one stood in its place (Clark et al. 2020).

    Args:
        hidden_size: width of the hidden values.
        activation: name of an activation, for the projection before the logit.
    """

    def __init__(self, hidden_size: int, activation: str, **kwargs):
        super().__init__(**kwargs)
        self.hidden_size, self.activation = hidden_size, activation
        self.transform = dense(hidden_size, hidden_size, dtype=self.dtype_policy)
        self.classifier = dense(hidden_size, 1, dtype=self.dtype_policy)

    @property
    def criteria(self) -> tuple:
        """What the head is trained on."""
        return (TokenBinaryCrossEntropy(),)

    def call(self, encoded, token_table=None, inputs=None, training=None):
        """Logits of the backbone's output."""
        hidden = activation(self.activation)(self.transform(encoded["last_hidden_state"]))
        return {"logits": ops.squeeze(self.classifier(hidden), -1)}
