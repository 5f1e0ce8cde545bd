"""mT5's encoder alone."""

from tfheads.families.mt5 import MT5
from tfheads.families.t5_encoder import T5Encoder
from tfheads.registry import family


@family("mt5", alone=True)
class MT5Encoder(T5Encoder):
    """mT5's encoder alone; reference: `transformers.MT5EncoderModel`."""

    class_prefix = "MT5"
    inert = MT5.inert | {"num_decoder_layers": "read by the decoder"}
    reference = MT5.reference
