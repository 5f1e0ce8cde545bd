"""Low-rank adaptation of any model (Hu et al. 2021): narrow matrices train beside frozen dense layers."""

import math
import os
import random
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tfheads.adapters.dense_modules import ALL, DenseModule, chosen, dense_modules, head_modules
from tfheads.layers.low_rank import LowRank, narrow_dense


@dataclass(frozen=True)
class LoraSettings:
    """How a model is adapted; see `Adapted.enable_lora`.

    Attributes:
        whole: the checkpoint modules of the head that train as they are.
    """

    rank: int
    targets: str | tuple[str, ...] | list[str]
    alpha: float
    dropout: float
    rank_stabilized: bool
    whole: tuple[str, ...]

    @property
    def scale(self) -> float:
        """What the change of a dense layer is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


class Adapted:
    """Mixin of `TaskModel`: adapters.

    Attributes:
        lora: how the model is adapted, None if it is not.
    """

    lora: LoraSettings | None = None

    def enable_lora(
        self,
        rank: int = 8,
        targets: "str | Iterable[str]" = ALL,
        *,
        alpha: float | None = None,
        dropout: float = 0.0,
        rank_stabilized: bool = False,
        train_head: bool | None = None,
        seed: int | None = None,
    ) -> None:
        """Freezes the model and puts narrow trainable matrices beside its dense layers; outputs stay as they are.

        Call it before `compile`. `save_adapter` writes the matrices alone, in PEFT's format; `save_pretrained` writes
        the whole model with the changes in it.

        Args:
            rank: width of the matrices.
            targets: "all-linear" for every dense layer of the backbone; a regular expression that fits the whole names
                of checkpoint modules; or a list of their names or last parts, such as `["q_proj", "v_proj"]`.
            alpha: changes are multiplied by alpha / rank; None for `rank`, which multiplies by 1.
            dropout: rate on the inputs of the matrices.
            rank_stabilized: whether to divide by the root of the rank instead (Kalajdzievski 2023).
            train_head: whether the head trains as a whole; None for yes unless it is a language model's.
            seed: for the new matrices; None draws one from Keras' global seed.

        Raises:
            ValueError: an argument out of range, no such module, or the model has adapters or is compiled already.
        """
        self._check_enable(rank, alpha, dropout)
        targets = targets if isinstance(targets, str) else tuple(targets)
        trains = not self.reports_perplexity if train_head is None else train_head
        whole = tuple(head_modules(self)) if trains else ()
        alpha = float(rank if alpha is None else alpha)
        settings = LoraSettings(rank, targets, alpha, float(dropout), rank_stabilized, whole)
        self.adapt(settings, random.randint(0, 2**31) if seed is None else seed)

    def adapt(self, settings: LoraSettings, seed: int = 0) -> None:
        """Adapts the model as `settings` say, whose arguments have been checked; see `enable_lora`."""
        modules = chosen([one for one in dense_modules(self) if one.name not in settings.whole], settings.targets)
        kept = {
            id(variable) for name, held in head_modules(self).items() if name in settings.whole for variable in held
        }
        frozen = [variable for variable in self.trainable_variables if id(variable) not in kept]
        for variable in frozen:
            variable.trainable = False
        with self.distribute_strategy.scope():
            for module in modules:
                _attach(module, settings, seed)
        self.lora, self._frozen, self._merged = settings, frozenset(id(variable) for variable in frozen), False
        self._forget_graphs()

    def merge_adapter(self) -> None:
        """Adds the changes to the dense layers' own weights: the same outputs. To train on, call `unmerge_adapter`.

        Raises:
            ValueError: the model has no adapters, or they are merged.
        """
        self._shift_kernels(merge=True)

    def unmerge_adapter(self) -> None:
        """Takes the changes out of the dense layers' own weights again, within rounding.

        Raises:
            ValueError: the model has no adapters, or they are not merged.
        """
        self._shift_kernels(merge=False)

    def remove_adapter(self) -> None:
        """Removes the adapters: after `merge_adapter` a plain model of the same outputs, else the model as it was.

        Raises:
            ValueError: the model has no adapters.
        """
        self._check_adapted()
        for module, adapters in self.adapters:
            for layer, adapter in zip(module.layers, adapters, strict=True):
                adapter.factor.assign(0.0)  # for graphs that were traced with it
                layer.attach(None)
        for variable in self.weights:
            variable.trainable = variable.trainable or id(variable) in self._frozen
        self.lora, self._frozen, self._merged = None, frozenset(), False
        self._forget_graphs()

    def save_adapter(self, save_directory: "str | os.PathLike") -> None:
        """Writes the adapters, and a head that trained with them, as PEFT does; PyTorch loads them.

        Raises:
            ValueError: the model has no adapters.
            OSError: the disk is full or not writable; what was there before stays as it was.
        """
        from tfheads.adapters.peft_files import write_adapter

        self._check_adapted()
        write_adapter(self, save_directory)

    def load_adapter(self, name_or_path: "str | os.PathLike", *, trainable: bool = False, **options) -> None:
        """Adapts the model by what PEFT or `save_adapter` wrote.

        Args:
            name_or_path: a directory, or the id of a repository on the Hub.
            trainable: whether training may go on; else all weights are frozen.
            options: `revision`, `token`, `cache_dir`, `local_files_only` as in huggingface_hub.

        Raises:
            ValueError: it is no LoRA adapter, it has what tfheads does not support, or it does not fit the model.
            FileNotFoundError: there is no such adapter.
        """
        from tfheads.adapters.peft_files import read_adapter

        self._check_enable(1, None, 0.0)
        read_adapter(self, name_or_path, trainable, options)

    @property
    def adapters(self) -> list[tuple[DenseModule, tuple[LowRank, ...]]]:
        """The adapted modules with their adapters, one for each layer."""
        modules = [module for module in dense_modules(self) if module.layers[0].adapter is not None]
        return [(module, tuple(layer.adapter for layer in module.layers)) for module in modules]

    _frozen: frozenset[int] = frozenset()  # which variables were trainable before
    _merged = False

    def train_step(self, data):
        if self._merged:
            raise ValueError("adapters must not be merged while they train: call unmerge_adapter first")
        return super().train_step(data)

    def _check_enable(self, rank, alpha, dropout) -> None:
        if self.lora is not None:
            raise ValueError("the model has adapters already: call remove_adapter first")
        if self.compiled:
            raise ValueError("adapters must be given before compile, the model is compiled already")
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise ValueError(f"rank must be a whole number from 1, got {rank!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        if alpha is not None and not alpha > 0:
            raise ValueError(f"alpha must be above 0, got {alpha}")

    def _check_adapted(self) -> None:
        if self.lora is None:
            raise ValueError("the model has no adapters: call enable_lora or load_adapter first")

    def _shift_kernels(self, merge: bool) -> None:
        self._check_adapted()
        if merge == self._merged:
            raise ValueError("the adapters are merged already" if merge else "the adapters are not merged")
        for module, adapters in self.adapters:
            for layer, adapter in zip(module.layers, adapters, strict=True):
                if not merge:
                    adapter.factor.assign(self.lora.scale)
                change = adapter.change() if merge else -adapter.change()
                layer.kernel.assign(np.asarray(layer.kernel.numpy(), "float32") + change)
                if merge:
                    adapter.factor.assign(0.0)
        self._merged = merge
        self._forget_graphs()

    def _forget_graphs(self) -> None:
        """What was traced before has other layers."""
        self.train_function = self.test_function = self.predict_function = None


def _attach(module: DenseModule, settings: LoraSettings, seed: int) -> None:
    down = narrow_dense(module.inputs, settings.rank, module.layers[0].dtype_policy)
    down.kernel.assign(drawn(module.name, down.kernel.shape, seed))
    for layer in module.layers:
        options = {"scale": settings.scale, "dropout": settings.dropout, "dtype": layer.dtype_policy}
        layer.attach(LowRank(down, layer.units, **options))


def drawn(name: str, shape: tuple[int, int], seed: int) -> np.ndarray:
    """New values of a down matrix `[inputs, rank]`, by the seed and the module's name; as wide as PEFT's."""
    generator = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))
    return generator.uniform(-1, 1, shape).astype("float32") / np.float32(math.sqrt(shape[0]))
