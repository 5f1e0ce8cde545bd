"""The only global tables: families by `model_type`, tasks by name, and the classes made of both."""

import difflib
import sys

import keras

FAMILIES: dict[str, type] = {}
TASKS: dict[str, type] = {}
CLASSES: dict[str, type] = {}
ALONE: dict[str, list[type]] = {}


def task(name: str, weights_of: str | None = None):
    """Class decorator: registers a task class (`ForCausalLM`, ...) under the task's name.

    A task with the head and the weights of another one, `weights_of`, is had by every family that has the other one.
    """

    def register(cls: type) -> type:
        cls.task, cls.weights_of = name, weights_of or name
        TASKS[name] = cls
        CLASSES[cls.auto_name] = cls
        return cls

    return register


def family(model_type: str, alone: bool = False):
    """Class decorator: registers a backbone class and makes its named classes (`GPT2LMHeadModel`, ...).

    With `alone` it is a part of the family of this `model_type`, such as the decoder of an encoder-decoder, for tasks
    that the whole does not have.

    A named class is the task's class with the family bound to it. It lives in the family's module, where pickle and
    editors look for it.
    """

    def register(cls: type) -> type:
        cls.model_type = model_type
        keras.saving.register_keras_serializable("tfheads")(cls)
        if alone:
            ALONE.setdefault(model_type, []).append(cls)
        else:
            FAMILIES[model_type] = cls
        module = sys.modules[cls.__module__]
        free = {name: cls.heads[one.weights_of] for name, one in TASKS.items() if one.weights_of in cls.heads}
        cls.heads = cls.heads if alone else {**free, **cls.heads}
        for name in cls.heads:
            named = TASKS[name].bind(cls, class_names(cls, name)[0])
            for alias in class_names(cls, name):
                CLASSES[alias] = named
                setattr(module, alias, named)
        return cls

    return register


def class_names(family_class: type, task_name: str) -> tuple[str, ...]:
    """The public names of a family's class for a task; the first is the one that config.json gets."""
    default = (family_class.class_prefix + TASKS[task_name].suffix,)
    return family_class.class_names.get(task_name, default)


def family_of(model_type: str) -> type:
    """The backbone class of a `model_type`.

    Raises:
        ValueError: there is none; names the nearest one.
    """
    if model_type not in FAMILIES:
        near = difflib.get_close_matches(model_type, FAMILIES, n=1, cutoff=0.0)[0]
        known = ", ".join(sorted(FAMILIES))
        raise ValueError(f"model_type {model_type!r} is not supported, the nearest is {near!r}; supported are {known}")
    return FAMILIES[model_type]


def backbones_of(model_type: str) -> list[type]:
    """The backbone classes of a `model_type`: the family, then its parts that have tasks of their own."""
    return [family_of(model_type), *ALONE.get(model_type, ())]


def named_class(config, task_name: str) -> type:
    """The named class of a config's family for a task.

    Raises:
        ValueError: the family is not supported, or has no such task; names the tasks it has.
    """
    backbones = backbones_of(config.model_type)
    for cls in backbones:
        if task_name in cls.heads:
            return CLASSES[class_names(cls, task_name)[0]]
    has = ", ".join(TASKS[name].auto_name for cls in backbones for name in cls.heads)
    raise ValueError(f"{backbones[0].class_prefix} has no {TASKS[task_name].auto_name}, it has {has}")


def find(name: str) -> type | None:
    """The class with this public name, also in the `TF...` spelling; None if there is none."""
    return CLASSES.get(name) or (CLASSES.get(name[2:]) if name.startswith("TF") else None)
