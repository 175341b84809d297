"""A causal language model as a judge: the probabilities that it gives the grades right after a grading prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.guards.bounded import asked
from datapruner.models.encoders import TokenEmbedder
from datapruner.models.identity import evaluation, model_identity, tokenizer_hash
from datapruner.models.sizes import LONGEST, input_device, positions, vocabulary_size
from datapruner.samples.masking import Batch
from datapruner.samples.sample import Message, Sample
from datapruner.signals.language_model.find_output_layer import body, find_output_layer
from datapruner.signals.language_model.output_layer import logits_of
from datapruner.text import safe_repr, safe_text

if TYPE_CHECKING:
    from datapruner.models.classifiers.reading import Numbered
    from datapruner.signals.grading import Grading

CODE_VERSION = 1


class Asking:
    """Grading prompts as a tokenizer cuts them.

    Parameters
    ----------
    tokenizer
        Of transformers.
    grading : Grading
    """

    def __init__(self, tokenizer: Any, grading: Grading) -> None:
        self.tokenizer, self.grading = tokenizer, grading
        self.templates: dict[str, Any] = {}
        self.grades = self._grade_tokens()

    def texts(self, samples: list[Sample | None]) -> list[tuple[str, bool]]:
        """Give each row's whole prompt, and whether the tokenizer adds its special tokens: not to a template's text."""
        filled = [self.grading.filled(sample) for sample in samples]
        if not self.grading.chat:
            return [(text, True) for text in filled]
        turns = [Sample((Message("user", text),), options={"enable_thinking": False}) for text in filled]
        batch = Batch(turns, self.tokenizer, None, self.templates, last_turn_only=False)
        rendered = [batch.rendered(place, add_generation_prompt=True) for place in range(len(turns))]
        pairs = zip(filled, rendered, strict=True)
        return [(text, True) if whole is None else (whole, False) for text, whole in pairs]

    def ids(self, texts: list[tuple[str, bool]]) -> list[list[int]]:
        """Tokenise; an end of the text that the tokenizer adds is taken off, since the grade comes next."""
        out: dict[int, list[int]] = {}
        for special in (True, False):
            places = [place for place, (_, own) in enumerate(texts) if own is special]
            if places:
                said = [texts[place][0] for place in places]
                found = asked(self.tokenizer, said, add_special_tokens=special, verbose=False)["input_ids"]
                out |= {place: list(ids) for place, ids in zip(places, found, strict=True)}
        return [self._open(out[place], special) for place, (_, special) in enumerate(texts)]

    def _open(self, ids: list[int], special: bool) -> list[int]:
        return ids[:-1] if special and ids[-1:] == [self.tokenizer.eos_token_id] else ids

    def _grade_tokens(self) -> Ints:
        """Find the token that each grade is, behind the prompt.

        Raises
        ------
        DataPrunerError
            One is more than one token there, or two are the same.
        """
        (bare,) = self.texts([None])
        (before,) = self.ids([bare])
        found = []
        for grade in self.grading.grades:
            (ids,) = self.ids([(bare[0] + grade, bare[1])])
            if ids[: len(before)] != before or len(ids) != len(before) + 1:
                raise DataPrunerError(
                    f"the grade {safe_repr(grade, 40)} is not one token of the judge's behind the prompt; take grades "
                    "that are, such as single digits or letters, or let the prompt end otherwise (in a blank, or not)"
                )
            found.append(ids[-1])
        if len(set(found)) < len(found):
            raise DataPrunerError("two of the judge's grades are the same token; take others")
        return np.array(found, dtype=np.int64)


def opened_judge(
    name: str,
    model: Any,
    tokenizer: Any,
    grading: Grading,
    *,
    max_length: int | None = None,
    probe: bool = False,
) -> TokenEmbedder:
    """Take a causal language model apart into reading grading prompts and one padded forward pass.

    Parameters
    ----------
    name : str
        For messages.
    model, tokenizer
        Of transformers.
    grading : Grading
    max_length : int, optional
        Longer prompts lose their middle, which is the row's. Default: the model's own limit, at most 2048.
    probe : bool
        What it answers to fixed tokens is part of its identity: of a model that came as an object.

    Returns
    -------
    TokenEmbedder
        Numbered rows -> tokens -> log-probabilities of the grades, float32 of shape (rows, grades), nats.

    Raises
    ------
    DataPrunerError
        A grade is not one token, the tokenizer is of another vocabulary, or the prompt leaves no room for a row.
    """
    asking, layer = Asking(tokenizer, grading), find_output_layer(model)
    own, known = positions(model, tokenizer), vocabulary_size(model)
    limit = min(length for length in (max_length, own, LONGEST if max_length is None else None) if length)
    taken = len(asking.ids(asking.texts([None]))[0])
    if 2 * taken > limit:
        raise DataPrunerError(
            f"the grading prompt alone has {taken} tokens, and the judge reads {limit}: at least twice as many are "
            "needed; shorten it, or raise --judge-max-length"
        )
    of_another = (
        f"the tokenizer of the judge '{safe_text(name, 200)}' gives the token {{}}, and the model knows {known:,}: it "
        "is of another vocabulary"
    )
    if (highest := int(asking.grades.max())) >= known:
        raise DataPrunerError(of_another.format(highest))
    pad = int(tokenizer.pad_token_id or 0)

    def whole(rows: list[Numbered]) -> list[list[int]]:
        ids = asking.ids(asking.texts([sample for _, sample in rows]))
        highest = max((max(each) for each in ids), default=0)
        if highest >= known:
            raise DataPrunerError(of_another.format(highest))
        return ids

    def forward(ids: Ints, mask: Ints) -> NDArray[np.float32]:
        device = input_device(model)
        with evaluation(model), torch.inference_mode():
            # No mask: padding stands on the right, where causal attention never looks from a row's tokens.
            states = body(model)(
                input_ids=torch.from_numpy(ids).to(device), use_cache=False
            ).last_hidden_state
            last = torch.from_numpy(mask.sum(1) - 1).to(states.device)
            ends = states[torch.arange(len(states), device=states.device), last].to(layer.weight.device)
            exact = torch.float64 if layer.weight.dtype == torch.float64 else torch.float32
            logits = torch.empty(len(ends), len(layer.weight), dtype=exact, device=layer.weight.device)
            logits_of(layer, ends.to(exact), logits)
            if layer.softcap is not None:
                logits.div_(layer.softcap).tanh_().mul_(layer.softcap)
            of_grades = logits[:, torch.from_numpy(asking.grades).to(logits.device)]
            found: NDArray[np.float32] = (of_grades - logits.logsumexp(1, keepdim=True)).float().cpu().numpy()
        return found

    context: dict[str, object] = {
        "version": CODE_VERSION,
        "model": model_identity(model, probe=probe),
        "tokenizer": tokenizer_hash(tokenizer),
        "asked": grading.signal,
        "max_length": limit,
        "cut": "both ends",
        "dtype": str(next(model.parameters()).dtype),
    }
    return TokenEmbedder(context, len(grading.grades), whole, forward, pad, limit, input_device(model).type)
