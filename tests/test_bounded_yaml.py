"""A recipe of somebody else's ends in a value or in one sentence, soon and without much memory."""

from __future__ import annotations

import os
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from datapruner.bounded_yaml import DEEPEST, load_yaml
from datapruner.errors import DataPrunerError
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
    "brackets": ("dedup: " + "[" * 3000 + "]" * 3000, f"more than {DEEPEST} levels"),
    "an impossible date": ("seed: 1\nsplit: 2001-02-30", "line 2"),
    "a float that is none": ("near_threshold: !!float abc", "not of its kind, line 1"),
    "a truth that is none": ("packing: !!bool abc", "not of its kind, line 1"),
    "digits": ("seed: " + "9" * 5000, "line 1"),
    "base sixty": ("seed: " + "9:" * 5000 + "9", "line 1|seed"),
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
