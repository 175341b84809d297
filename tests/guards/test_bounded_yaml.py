"""A recipe of somebody else's ends in a value or in one sentence, soon and without much memory."""

from __future__ import annotations

import importlib.util
import os
import sys
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from datapruner.errors import DataPrunerError
from datapruner.guards import bounded_yaml
from datapruner.guards.bounded_yaml import DEEPEST, MOST_BYTES, MOST_WRITTEN, load_yaml
from datapruner.recipe import MOST_ROWS, load_recipe

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def laughs(levels: int) -> str:
    said = "&a0 [" + ",".join(["lol"] * 10) + "]"
    for level in range(1, levels):
        said = f"&a{level} [{said}," + ",".join([f"*a{level - 1}"] * 9) + "]"
    return said


HOSTILE = {
    "a billion laughs": (f"quotas: {laughs(9)}", "more than"),
    "a mapping that holds itself": ("selector: {name: topk, parameters: &p {x: *p}}", "alias of itself"),
    "a list that holds itself": ("dedup: &p [*p]", "alias of itself"),
    "brackets": ("dedup: " + "[" * 100 + "]" * 100, f"more than {DEEPEST} levels"),
    "more brackets": ("dedup: " + "[" * 3000 + "]" * 3000, f"more than {DEEPEST} levels|not valid YAML"),
    "unclosed braces": ("dedup: " + "{" * 100_000, f"more than {DEEPEST} levels|not valid YAML"),
    "dashes": ("- " * 100_000, f"more than {DEEPEST} levels|not valid YAML"),
    "an impossible date": ("seed: 1\nsplit: 2001-02-30", "line 2"),
    "a float that is none": ("near_threshold: !!float abc", "not of its kind, line 1"),
    "a truth that is none": ("packing: !!bool abc", "not of its kind, line 1"),
    "digits": ("seed: " + "9" * 5000, "line 1"),
    "base sixty": ("seed: 9" + ":9" * 2000, "seed: Input should be"),
    "more base sixty": ("seed: 9" + ":9" * 1_000_000, "not of its kind, line 1"),
    "a fraction in base sixty": ("near_threshold: 9" + ":9" * 100_000 + ".5", "not of its kind, line 1"),
    "digits in base sixteen": ("keep: 0x" + "f" * 4000, "not of its kind, line 1"),
    "bits": ("quotas: {a: 0b" + "1" * 100_000 + "}", "not of its kind, line 1"),
    "a number of a format": ("recipe_format: 0x" + "f" * 4000, "not of its kind, line 1"),
    "digits of a second": ("split: 2001-12-14t21:59:43." + "1" * 100_000 + "-99:99", "not of its kind"),
    "merges of one": ("a: &a {b: 1}\nc: {<<: [" + "*a," * MOST_WRITTEN + "*a]}", "more than"),
    "merges of merges": (
        "m0: &m0 {k: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}]}}\n" for i in range(1, 30)),
        "more than",
    ),
    "a long text": ("source: " + "a" * 60_000_000 + "\nseed: a", "seed"),
    "a long name": ("? " + "a" * 10_000_000 + "\n: 1", "there is no argument"),
    "more than a file": (b"#" * (MOST_BYTES + 1), "more than 64 MB"),
    "a tag of objects": ("%TAG ! tag:yaml.org,2002:python/\n---\nseed: !name:os.system a", "not valid YAML"),
    "grams without end": ("near_ngram: 1000000000", "near_ngram: Input should be"),
    "bytes": ("source: !!binary QUJD", "no value for source"),
    "pairs": ("quotas: !!pairs [a: 1]", "no value for quotas"),
    "an object": ("seed: !!python/object/apply:os.system [true]", "not valid YAML, line 1"),
    "many rows": ("always_keep: {rows: 0-30000000000}", f"more than {MOST_ROWS:,} rows"),
    "many ranges": ("always_keep: {rows: '" + "0-9999999," * 9 + "1'}", f"more than {MOST_ROWS:,} rows"),
    "keys that are lists": ("? [a, b]\n: 1", "line 1"),
    "a merge of itself": ("a: &a {<<: *a}", "alias of itself"),
    "not UTF-8": (b"seed: \xff", "cannot be read"),
    "a list": ("- seed", "must hold names"),
    "nothing": ("", "must hold names"),
    "two documents": ("seed: 1\n---\nseed: 2", "not valid YAML"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_hostile_is_one_sentence(kind, tmp_path):
    content, said = HOSTILE[kind]
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.process_time()
    with pytest.raises(DataPrunerError, match=said) as error:
        load_recipe(path)
    assert time.process_time() - started < 10  # not a speed: an end
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("text", ["dedup:\n" + "- 1\n" * 2001, "".join(f"k{i}: 1\n" for i in range(1001))])
def test_what_is_written_is_counted_as_it_is_read(text, tmp_path, monkeypatch):
    monkeypatch.setattr(bounded_yaml, "MOST_WRITTEN", 2000)
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(DataPrunerError, match=r"holds more than 2,000 values, line (?:1999|1000)"):
        load_recipe(tmp_path / "recipe.yaml")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "recipe.yaml")
    with pytest.raises(DataPrunerError, match="is no file"):
        load_recipe(tmp_path / "recipe.yaml")


@given(PLAIN)
def test_what_yaml_writes_is_read_as_yaml_reads_it(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "plain.yaml"
    text = yaml.safe_dump(value, allow_unicode=True)
    path.write_text(text, encoding="utf-8", newline="")
    assert load_yaml(path, "the file") == yaml.safe_load(text)


def test_an_alias_is_its_value(tmp_path):
    (tmp_path / "f.yaml").write_text("a: &x [1, 2]\nb: *x\n")
    assert load_yaml(tmp_path / "f.yaml", "the file") == {"a": [1, 2], "b": [1, 2]}


def test_without_the_parser_in_c_the_same_is_read(tmp_path, monkeypatch):
    text = "a: &x [1, 2.5, yes, ~]\nb: {<<: {c: 2001-01-01}, d: *x}\ne: |\n  text\n"
    (tmp_path / "f.yaml").write_text(text)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "yaml._yaml", None)
        other = importlib.util.module_from_spec(importlib.util.find_spec("datapruner.guards.bounded_yaml"))
        other.__spec__.loader.exec_module(other)
    assert other._Parser is not bounded_yaml._Parser
    assert other.load_yaml(tmp_path / "f.yaml", "the file") == yaml.safe_load(text)
    (tmp_path / "f.yaml").write_text("a: &p [*p]")
    with pytest.raises(DataPrunerError, match="alias of itself, line 1"):
        other.load_yaml(tmp_path / "f.yaml", "the file")
