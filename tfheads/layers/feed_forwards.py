"""Feed-forward layers."""

from tfheads.layers.activations import activation
from tfheads.layers.context import MixerOutput
from tfheads.layers.dropout import Dropout
from tfheads.layers.mixer import Mixer
from tfheads.layers.part import part
from tfheads.layers.projections import dense


@part
class FeedForward(Mixer):
    """Two projections with an activation between them.

    Args:
        hidden_size: width of input and output.
        intermediate_size: width in between.
        activation: Hugging Face's name of the activation.
        use_bias: whether the projections have biases.
        dropout: rate on the values in between.
    """

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        activation: str,
        use_bias: bool = True,
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_size, self.intermediate_size = hidden_size, intermediate_size
        self.activation, self.use_bias, self.dropout = activation, use_bias, dropout
        self.drop = Dropout(dropout, dtype=self.dtype_policy)
        self.up = dense(hidden_size, intermediate_size, use_bias, self.dtype_policy)
        self.down = dense(intermediate_size, hidden_size, use_bias, self.dtype_policy)

    def call(self, hidden, context=None, cache=(), training=None) -> MixerOutput:
        """Each token's values `[batch, time, hidden]` by themselves; nothing is remembered."""
        return MixerOutput(self.down(self.drop(self.inner(hidden), training=training)))

    def inner(self, hidden):
        """The values in between `[batch, time, intermediate]`."""
        return activation(self.activation)(self.up(hidden))


@part
class GatedFeedForward(FeedForward):
    """A feed-forward layer whose inner values are multiplied by an activated gate (Shazeer 2020)."""

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        activation: str,
        use_bias: bool = False,
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(hidden_size, intermediate_size, activation, use_bias, dropout, **kwargs)
        self.gate = dense(hidden_size, intermediate_size, use_bias, self.dtype_policy)

    def inner(self, hidden):
        return activation(self.activation)(self.gate(hidden)) * self.up(hidden)
