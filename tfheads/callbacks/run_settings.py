"""What a run was done with, as plain values for model cards and trackers."""

import keras


def run_settings(model) -> dict:
    """The optimizer, its schedule and how the model was compiled, by name.

    Args:
        model: a compiled model.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    config = optimizer.get_config()
    rate = config.pop("learning_rate")
    settings = {"optimizer": type(optimizer).__name__}
    schedule = optimizer._learning_rate
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        settings["lr_scheduler"] = type(schedule).__name__
        settings |= schedule.get_config()
    else:
        settings["learning_rate"] = float(rate)
    names = ("weight_decay", "beta_1", "beta_2", "epsilon", "global_clipnorm", "clipnorm", "clipvalue")
    settings |= {name: config[name] for name in names if config.get(name) is not None}
    settings |= {
        "precision": model.dtype_policy.name,
        "xla": getattr(model, "compiled_by_xla", bool(model.jit_compile)),
        "steps_per_execution": model.steps_per_execution,
        "gradient_accumulation_steps": getattr(model, "gradient_accumulation_steps", 1),
        "replicas": model.distribute_strategy.num_replicas_in_sync,
    }
    return {name: value for name, value in settings.items() if isinstance(value, (str, int, float, bool))}
