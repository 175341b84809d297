"""Look at the licences of everything that datapruner installs, and at known vulnerabilities where a service answers.

    .venv/bin/python .ci/audit.py

Licences are read from the metadata of what is installed, for the core and each extra apart. A licence that would
bind a user's own work (GPL, AGPL), or none that can be made out, fails, unless ``ALLOWED`` says why it does not.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
NOT_SHIPPED = ("dev", "docs", "notebooks")
"""Extras of people who work on datapruner; nothing of theirs runs with it."""

ALLOWED = {
    "gudhi": "MIT; its alpha complex and other parts built on CGAL are GPL, and a test holds that "
    "nothing imports them",
    "zss": "its LICENSE is BSD, which its metadata does not say",
    "nvidia-*": "NVIDIA's own licence for CUDA's libraries, which torch's CUDA build asks for; we pass none on",
}
IGNORED: dict[str, str] = {}
"""Vulnerabilities that do not reach us: their number, and why."""

KNOWN = re.compile(
    r"apache|\bbsd|\b0bsd\b|\bmit\b|mit-cmu|\bisc\b|isc license|\bpsf|python software foundation|\bcnri|\bmpl|"
    r"mozilla public|\blgpl|lesser general public|zlib|\bbsl-1|boost software|unlicense|cc0|hpnd|public domain",
    re.IGNORECASE,
)
STRONG = re.compile(r"(?<![a-z])a?gpl|affero|(?<!lesser )general public license", re.IGNORECASE)


def licences(found: Distribution) -> list[str]:
    """Give all that a distribution says of its licence: the SPDX expression, its classifiers, the first words."""
    meta = found.metadata
    said = [meta["License-Expression"], *(meta.get_all("Classifier") or [])]
    said = [line for line in said if line and (line is said[0] or line.startswith("License ::"))]
    free = (meta["License"] or "").strip()
    return [*said, free.splitlines()[0][:200]] if free else said


def judge(said: list[str]) -> str | None:
    """Tell what is wrong with a licence, or None; of a choice (``A OR B``) one that is right is enough."""
    choices = [re.split(r"\s+OR\s+", line.strip("()")) for line in said]
    if any(all(STRONG.search(_alone(one)) for one in ways) for ways in choices):
        return "GPL or AGPL"
    if any(KNOWN.search(one) for ways in choices for one in ways):
        return None
    return "no licence that is known"


def _alone(words: str) -> str:
    """Leave out the exceptions that free what is linked, as that of GCC's libraries."""
    return re.sub(r"\S*GPL\S*\s+WITH\s+(GCC|Classpath|LLVM)\S*", "", words, flags=re.IGNORECASE)


def allowed(name: str) -> str | None:
    """Give the reason for which a distribution may stay."""
    ways = (name, re.sub(r"-.*", "-*", name))
    return next((ALLOWED[way] for way in ways if way in ALLOWED), None)


def tree(requirements: list[str]) -> Iterator[tuple[str, Distribution | None]]:
    """Walk what is installed from requirements on: name and distribution, None where it is not installed."""
    todo = [(Requirement(line), frozenset[str]()) for line in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    told: set[str] = set()
    while todo:
        asked, extras = todo.pop()
        if asked.marker is not None and not any(
            asked.marker.evaluate({"extra": extra}) for extra in (extras or {""})
        ):
            continue
        name = canonicalize_name(asked.name)
        if (name, frozenset(asked.extras)) in seen:
            continue
        seen.add((name, frozenset(asked.extras)))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            found = None
        if name not in told:
            told.add(name)
            yield name, found
        if found is not None:
            todo += [(Requirement(line), frozenset(asked.extras)) for line in found.requires or []]


def audit_licences(parts: dict[str, list[str]]) -> list[str]:
    """Say a line for each part of the project, and give what is wrong."""
    wrong: list[str] = []
    for part, requirements in parts.items():
        found = dict(tree(requirements))
        missing = sorted(name for name, held in found.items() if held is None)
        excused = []
        for name, held in sorted(found.items()):
            if held is None or (why := judge(licences(held))) is None:
                continue
            if allowed(name) is None:
                said = "; ".join(licences(held)) or "nothing said"
                wrong.append(f"{part}: {name} {held.version}: {why} ({said})")
            else:
                excused.append(name)
        line = f"{part:>10}  {len(found) - len(missing)} packages"
        line += f"; allowed for a reason: {', '.join(excused)}" if excused else ""
        print(line + (f"; not installed, so not looked at: {', '.join(missing)}" if missing else ""))
    return wrong


def audit_vulnerabilities() -> list[str]:
    """Ask pip-audit's service for what is installed; where none answers for one package, say so and ask no more."""
    probe = _pip_audit(Path(__file__).with_name("probe.txt"))
    if probe is None or any("skip_reason" in one for one in probe):
        print("vulnerabilities: not checked, since no service that knows them answers from here")
        return []
    known = _pip_audit(None)
    if known is None:
        print("vulnerabilities: not checked, since the service stopped answering")
        return []
    print(f"vulnerabilities: {sum('vulns' in one for one in known)} packages looked up")
    return [
        f"{one['name']} {one['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'no version'}"
        for one in known
        for flaw in one.get("vulns", [])
        if not {flaw["id"], *flaw.get("aliases", [])} & IGNORED.keys()
    ]


def _pip_audit(requirements: Path | None) -> list[dict[str, object]] | None:
    what = [] if requirements is None else ["-r", str(requirements), "--no-deps", "--disable-pip"]
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "-f",
        "json",
        "--progress-spinner",
        "off",
        "--timeout",
        "10",
    ]
    try:
        done = subprocess.run(
            [*command, *what],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )
        return list(json.loads(done.stdout)["dependencies"])
    except (subprocess.TimeoutExpired, ValueError, KeyError):  # it is not installed, or has no connection
        return None


def main() -> int:
    """Print what was looked at; 1 where something is wrong."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    parts = {"core": project["dependencies"]} | {k: v for k, v in extras.items() if k not in NOT_SHIPPED}
    wrong = audit_licences(parts) + audit_vulnerabilities()
    print("\n".join(wrong) or "audit: nothing wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
