"""The arms of `worth.py` that the library chooses: what `datapruner.prune` is given for each."""

from __future__ import annotations

from typing import Any

MODEL = "smollm2-135m-q4"
READ = {"model": MODEL, "dtype": "bfloat16"}
"""What an arm is given that reads the model's losses."""
TWINS = {"model": MODEL, "pruned_model": "prunings/depth"}
"""What an arm is given that compares two models: the second lies in the benchmark's folder, by `prunings.py`."""
PARTS = ("leaks", "copies", "rules", "noise", "shares")


def scorer(name: str, *, reads: bool = False, **parameters: Any) -> dict[str, Any]:
    return {"scorer": name, "parameters": parameters, **(READ if reads else {})}


ARMS: dict[str, dict[str, Any]] = {
    "auto": {},
    "auto, model": READ,
    **{f"{part} alone": {"without": [of for of in PARTS if of != part]} for part in PARTS[1:]},
    **{
        f"concept_complexity, {keep}": scorer("concept_complexity", keep=keep)
        for keep in ("hard", "easy", "random")
    },
    **{name: scorer(name) for name in ("topoprune", "entanglement", "prototypes", "d2")},
    "donod, shrink": scorer("donod", reads=True, don="shrink"),
    "donod, grow": scorer("donod", reads=True, don="grow"),
    "donod, shrink, without length": scorer("donod", reads=True, don="shrink", length_correction=True),
    "donod, grow, without length": scorer("donod", reads=True, don="grow", length_correction=True),
    "qtuning": scorer("qtuning", reads=True, fill="ppl"),
    "qtuning, log fill": scorer("qtuning", reads=True, fill="log_ppl"),
    "qtuning, log fill, token condition": scorer("qtuning", reads=True, fill="log_ppl", condition="both"),
    "response_noise": scorer("response_noise", reads=True),
    "perplexity": scorer("perplexity", reads=True),
    "ifd": scorer("ifd", reads=True),
    "ifd, low": scorer("ifd", reads=True, keep="low"),
    "d2 of el2n": scorer("d2", reads=True, scorer="el2n"),
    "paser": scorer("paser") | TWINS,
    "paser by damage a token": scorer("paser", budget="token_degradation") | TWINS,
}
"""Leaks are no part here: no arm is told of the test set."""
