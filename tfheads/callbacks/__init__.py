"""Keras callbacks: states of a run, the Hub, metrics in Python, trackers."""

from tfheads.callbacks.evaluation import EvaluationCallback
from tfheads.callbacks.keras_metric import KerasMetricCallback
from tfheads.callbacks.push_to_hub import PushToHubCallback
from tfheads.callbacks.resumable_fit import fit_resumable
from tfheads.callbacks.tensorboard import TensorBoardCallback
from tfheads.callbacks.training_state import TrainingState
from tfheads.callbacks.wandb import WandbCallback

__all__ = [
    "EvaluationCallback",
    "KerasMetricCallback",
    "PushToHubCallback",
    "TensorBoardCallback",
    "TrainingState",
    "WandbCallback",
    "fit_resumable",
]
