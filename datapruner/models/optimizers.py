"""What an optimiser knows of a model's parameters: Adam's moments, as a trainer left them beside a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from datapruner.errors import DataPrunerError
from datapruner.models.names import first_line
from datapruner.models.untrusted import check_pickle
from datapruner.text import safe_text

if TYPE_CHECKING:
    import torch

OPTIMIZER = "optimizer.pt"
"""The file, as transformers' trainer and ``torch.save(optimizer.state_dict(), ...)`` write it."""
WITHOUT = "pass --sketch-moments=none to compare plain gradients"


@dataclass(frozen=True, eq=False)
class Adam:
    """Adam's moments of one parameter.

    Attributes
    ----------
    first, second : Tensor
        Running means of its gradient and of that squared, of its shape.
    betas : (float, float)
    eps : float
    steps : float
        Those taken so far.
    """

    first: torch.Tensor
    second: torch.Tensor
    betas: tuple[float, float]
    eps: float
    steps: float

    def on(self, like: torch.Tensor, *, turned: bool = False) -> Adam:
        """Give it on a tensor's device and in its type; turned where a layer holds its weight the other way round."""
        first, second = (one.T if turned else one for one in (self.first, self.second))
        return Adam(first.to(like), second.to(like), self.betas, self.eps, self.steps)

    def step(self, gradient: torch.Tensor) -> torch.Tensor:
        """Give what the next step would subtract, for a learning rate of 1 and no weight decay.

        Parameters
        ----------
        gradient : Tensor
            Of the parameter's shape, with any dimensions before; it is left as it is.
        """
        (one, two), steps = self.betas, self.steps + 1
        mean = (gradient * (1 - one)).add_(self.first, alpha=one).div_(1 - one**steps)
        square = gradient.square().mul_(1 - two).add_(self.second, alpha=two).div_(1 - two**steps)
        return mean.div_(square.sqrt_().add_(self.eps))


@dataclass(frozen=True)
class Moments:
    """The moments of a checkpoint, which are read where a row has to be measured.

    Attributes
    ----------
    name : str
        Of the checkpoint, for sentences.
    file : Path
    digest : str
        Of the file, for keys.
    """

    name: str
    file: Path
    digest: str

    @property
    def settings(self) -> dict[str, object]:
        """Give what keys of what is scaled by them are made from."""
        return {"moments": self.digest}

    def load(self, model: Any) -> dict[str, Adam]:
        """Read them; see :func:`load_moments`."""
        return load_moments(self.name, self.file, model)


def load_moments(name: str, file: Path, model: Any) -> dict[str, Adam]:
    """Read the moments of all trained parameters, by the names that these have in the model.

    An optimiser's file numbers the parameters that were trained: in the model's order, of two groups (as of
    transformers' trainer, whose second one is without weight decay) first those of more than one dimension. Each
    parameter's shape is compared.

    Parameters
    ----------
    name : str
        Of the checkpoint, for the sentence.
    file : Path
    model : PreTrainedModel
        With the adapter in place, where one was trained.

    Raises
    ------
    DataPrunerError
        The file is not there, holds more than tensors, is of another optimiser or of other parameters.
    """
    import torch

    try:
        check_pickle(name, file)
        held = torch.load(file, map_location="cpu", weights_only=True)
    except DataPrunerError as error:
        raise DataPrunerError(f"{error.sentence}; {WITHOUT}") from error
    except Exception as error:  # a damaged file fails in many ways
        _refuse(name, f"cannot be read ({first_line(error)})", error)
    try:
        groups = [group for group in held["param_groups"] if group["params"]]
        found = [_moments(held["state"][number], group) for group in groups for number in group["params"]]
    except (TypeError, LookupError, ValueError) as error:
        _refuse(name, "is not the state of torch's Adam or AdamW, which has exp_avg and exp_avg_sq", error)
    trained = _trained(model)
    if len(groups) > 1:
        trained = sorted(trained, key=lambda one: one[1].ndim < 2)  # stable
    if len(groups) > 2 or len(found) != len(trained):
        whose = f"{len(found)} parameters in {len(groups)} groups"
        _refuse(name, f"is of {whose}, and {len(trained)} of the model were trained, in one group or two")
    for (key, weight), one in zip(trained, found, strict=True):
        if one.first.shape != weight.shape or one.second.shape != weight.shape:
            shapes = [" x ".join(map(str, shape)) for shape in (one.first.shape, weight.shape)]
            _refuse(
                name,
                f"is of other parameters: {shapes[0]} numbers where {safe_text(key, 80)} has {shapes[1]}",
            )
    return {key: one for (key, _), one in zip(trained, found, strict=True)}


def _moments(state: Mapping[str, Any], group: Mapping[str, Any]) -> Adam:
    """Read those of one parameter; an error where they are another optimiser's, or there is a further one."""
    import torch

    one, two = group["betas"]
    first, second = state["exp_avg"], state["exp_avg_sq"]
    if "max_exp_avg_sq" in state or not (
        isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor)
    ):
        raise TypeError("no moments of Adam")
    return Adam(first, second, (float(one), float(two)), float(group["eps"]), float(state["step"]))


def _trained(model: Any) -> list[tuple[str, Any]]:
    """Give an adapter's parameters, or all where there is none; in the model's order."""
    named = list(model.named_parameters())
    own = [one for one in named if any(of_adapter(part) for part in one[0].split("."))]
    return own or named


def of_adapter(part: str) -> bool:
    """Whether a part of a module's name is peft's for what an adapter has trained."""
    return part.startswith("lora_") or part == "modules_to_save"


def _refuse(name: str, what: str, error: Exception | None = None) -> NoReturn:
    sentence = f"the {OPTIMIZER} of '{safe_text(name, 200)}' {what}; {WITHOUT}"
    raise DataPrunerError(sentence) from error
