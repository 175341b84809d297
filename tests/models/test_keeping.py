"""Models that stay open in a worker."""

from __future__ import annotations

from datapruner.models import keeping


def test_what_is_loaded_stays_until_another_measurement_begins(monkeypatch):
    monkeypatch.setattr(keeping, "_open", None)
    loaded = []

    @keeping.kept
    def load(name, *, dtype="float32"):
        loaded.append((name, dtype))
        return object()

    assert load("a") is not load("a")
    keeping.keep_open()
    first = load("a")
    assert load("a") is first
    assert load("b") is not first
    assert load("a", dtype="float16") is not first
    keeping.keep_open()
    assert load("a") is not first
    assert len(loaded) == 6
