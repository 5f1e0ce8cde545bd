"""The losses of a training one by one, where Keras gives their mean."""

import keras


class EachLoss(keras.callbacks.Callback):
    """The loss of every execution by itself, in `losses`."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))
