"""Feed-forward layers."""

from tfheads.layers.activations import activation
from tfheads.layers.part import Part, part
from tfheads.layers.projections import dense


@part
class FeedForward(Part):
    """Two projections with an activation between them.

    Args:
        hidden_size: width of input and output.
        intermediate_size: width in between.
        activation: Hugging Face's name of the activation.
        use_bias: whether the projections have biases.
    """

    def __init__(self, hidden_size: int, intermediate_size: int, activation: str, use_bias: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.hidden_size, self.intermediate_size = hidden_size, intermediate_size
        self.activation, self.use_bias = activation, use_bias
        self.up = dense(hidden_size, intermediate_size, use_bias, self.dtype_policy)
        self.down = dense(intermediate_size, hidden_size, use_bias, self.dtype_policy)

    def call(self, hidden):
        return self.down(activation(self.activation)(self.up(hidden)))


@part
class GatedFeedForward(FeedForward):
    """A feed-forward layer whose inner values are multiplied by an activated gate (Shazeer 2020)."""

    def __init__(self, hidden_size: int, intermediate_size: int, activation: str, use_bias: bool = False, **kwargs):
        super().__init__(hidden_size, intermediate_size, activation, use_bias, **kwargs)
        self.gate = dense(hidden_size, intermediate_size, use_bias, self.dtype_policy)

    def call(self, hidden):
        return self.down(activation(self.activation)(self.gate(hidden)) * self.up(hidden))
