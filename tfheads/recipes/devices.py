"""Where a recipe runs: the strategy that the arguments ask for, and the run inside it."""

import contextlib
from collections.abc import Callable, Iterator

import datasets

from tfheads import distribute
from tfheads.recipes.arguments import TrainingArguments
from tfheads.recipes.command_line import mistakes_in_one_line, parse_or_exit
from tfheads.recipes.training import TrainingRun

OWN = ("output_dir", "overwrite_output_dir", "cache_dir", "preprocessing_num_workers")  # of each worker


Preparation = Callable[[TrainingArguments], TrainingRun]


def run_script(arguments_class: type, prepare: Preparation) -> None:
    """What a script does: a run as its command line says.

    Mistakes in the arguments or the data end the process with one line; what fails after them keeps its traceback.

    Args:
        arguments_class: of the arguments.
        prepare: from the arguments to the run, with its model.
    """
    run_on_devices(prepare, parse_or_exit(arguments_class), mistakes_in_one_line)


def run_on_devices(
    prepare: Preparation,
    arguments: TrainingArguments,
    preparing: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> dict[str, float]:
    """Prepares and does a run under the strategy of the arguments; returns what all_results.json holds.

    Args:
        prepare: from the arguments to the run, with its model.
        arguments: of the run, the same on all workers.
        preparing: makes the scope in which everything up to the run itself is done.

    Raises:
        ValueError, OSError, TimeoutError, RuntimeError: see `tfheads.distribute.strategy`.
    """
    with preparing():
        strategy = distribute.strategy(
            arguments.strategy,
            replicas=arguments.num_replicas,
            tpu=arguments.tpu_name,
            agreement={name: value for name, value in arguments.public().items() if name not in OWN},
        )
    with strategy.scope(), _caching(arguments):
        if not distribute.is_chief():
            datasets.disable_progress_bars()
        with preparing():
            run = prepare(arguments)
        return run.run()


@contextlib.contextmanager
def _caching(arguments: TrainingArguments) -> Iterator[None]:
    """Scope in which `datasets` makes anew what its cache holds, if the arguments say so."""
    if not (arguments.overwrite_cache and datasets.is_caching_enabled()):
        yield
        return
    datasets.disable_caching()
    try:
        yield
    finally:
        datasets.enable_caching()
