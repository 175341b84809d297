"""Is a run that was killed, resumed and damaged byte-identical to one that was left alone?

One ``datapruner prune`` runs undisturbed with a cache of its own. A second one, with another cache, is ended with
SIGKILL at random moments, again and again, each time resuming with what the cache holds, until it completes; where
it completes before all kills are spent, its result is compared and it begins anew with an empty cache.
The moments are drawn within each phase (start, embedding, compaction, clustering, writing), because a moment drawn
from the whole duration would nearly always fall into the embedding. Then stored shards are damaged and it runs
again. Every file of every result is compared with the undisturbed one's.

    python benchmarks/resume.py --kills 20
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import MIXTURE, RESULTS, machine, versions, write

PHASES = ["start", "embedding", "compaction", "clustering", "writing"]
SHARES = {"start": 0.1, "embedding": 0.45, "compaction": 0.15, "clustering": 0.15, "writing": 0.15}
POLL, POLL_LATE = 0.01, 0.0005
"""Seconds between two looks at the run's files: while it starts and embeds, and in the short phases after that."""


@dataclass
class Attempt:
    """One run, killed or not. ``observed`` is the phase that its files showed when it died."""

    planned: str
    observed: str
    seconds: float
    rows_stored: int
    killed: bool


class Run:
    """A prune command in its own process group, with its phase read off the files that it writes."""

    def __init__(self, source: Path, cache: Path, out: Path, options: list[str]) -> None:
        self.cache, self.out = cache, out
        self.start = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "datapruner",
            "prune",
            str(source),
            "-o",
            str(out),
            "--overwrite",
        ]
        self.process = subprocess.Popen(
            [*command, *options],
            env={**os.environ, "DATAPRUNER_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.maps = Path(f"/proc/{self.process.pid}/maps")
        self.leftover = set(out.parent.glob(f".{out.name}.*"))
        self.seen: set[str] = set()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start

    def phase(self) -> str:
        """Start until the model is in memory, then whatever the newest file tells."""
        if set(self.out.parent.glob(f".{self.out.name}.*")) - self.leftover:
            return "writing"
        names = {
            path.name.partition(".")[2].partition(".tmp")[0]: path for path in self.cache.glob("signals/*/*")
        }
        if "sum" in names and "shard2" in names:
            return "clustering" if self._loaded("faiss") else "start"
        if any(".rows.tmp-" in path.name for path in names.values()):
            return "compaction"
        if "rows" in names:
            return "compaction"
        return "embedding" if self._loaded("model.safetensors") else "start"

    def _loaded(self, what: str) -> bool:
        if what not in self.seen:
            try:
                self.seen |= {what} & {what if what in self.maps.read_text() else ""}
            except OSError:
                return False
        return what in self.seen

    def pause(self, phase: str, *, closely: bool = False) -> None:
        early = phase == "start" or (phase == "embedding" and not closely)
        time.sleep(POLL if early else POLL_LATE)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def wait(self) -> str:
        said = self.process.communicate()[1].decode(errors="replace")
        if self.process.returncode != 0:
            raise SystemExit(f"a run ended with {self.process.returncode}: {said}")
        return said


def header(shard: Path) -> int:
    with shard.open("rb") as handle:
        handle.readline()
        return int(json.loads(handle.readline())["rows"])


def shards(cache: Path) -> dict[str, int]:
    return {path.name: header(path) for path in sorted(cache.glob("signals/*/*.shard2"))}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def different(one: Path, two: Path) -> list[str]:
    """Names of files that are not the same, byte for byte, in both folders."""
    a, b = contents(one), contents(two)
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def timeline(run: Run) -> dict[str, float]:
    """Let a run go to its end and tell how long each phase took."""
    spent = dict.fromkeys(PHASES, 0.0)
    last = time.perf_counter()
    while run.process.poll() is None:
        phase = run.phase()
        run.pause(phase)
        now = time.perf_counter()
        spent[phase] += now - last
        last = now
    run.wait()
    return spent


def kill_in(run: Run, phase: str, delay: float) -> Attempt:
    """Kill ``delay`` seconds after a phase began; or let the run complete, where it never got there."""
    began: float | None = None
    while run.process.poll() is None:
        seen, now = run.phase(), time.perf_counter()
        if began is None and PHASES.index(seen) >= PHASES.index(phase):
            began = now
        if began is not None and now - began >= delay:
            observed, seconds = run.phase(), run.seconds
            run.kill()
            killed = run.process.returncode == -signal.SIGKILL
            return Attempt(phase, observed, round(seconds, 2), sum(shards(run.cache).values()), killed)
        if began is None or began + delay - now > POLL:
            run.pause(seen, closely=phase == "compaction")
    run.wait()
    return Attempt(phase, "completed", round(run.seconds, 2), sum(shards(run.cache).values()), False)


def plan(kills: int, lengths: dict[str, float], rng: random.Random) -> list[tuple[str, float]]:
    """Draw the phase and the delay of every kill, in the order in which a resumed run meets the phases."""
    counts = {phase: max(1, round(kills * share)) for phase, share in SHARES.items()}
    counts["embedding"] += kills - sum(counts.values())
    moments = []
    for phase in PHASES:
        # What an attempt embeds is kept, so that each may take its part of what the whole takes.
        length = lengths[phase] / (counts[phase] / 2 if phase == "embedding" else 1)
        length = max(length, 1.0 if phase == "embedding" else 0.005)
        moments += [(phase, rng.uniform(0, length)) for _ in range(counts[phase])]
    return moments


def flip_bit(path: Path, rng: random.Random) -> int:
    raw = bytearray(path.read_bytes())
    place = rng.randrange(len(raw))
    raw[place] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)
    return place


def forget_compact(cache: Path) -> None:
    for path in [*cache.glob("signals/*/*.rows"), *cache.glob("signals/*/*.sum")]:
        path.unlink()


def damage(
    run_again: Any, cache: Path, undisturbed: Path, out: Path, rng: random.Random
) -> dict[str, dict[str, Any]]:
    """Damage what is stored, run again, and report what was noticed and computed."""
    results: dict[str, dict[str, Any]] = {}

    def again(name: str, hurt: list[Path], rows_hurt: int) -> None:
        before = shards(cache)
        intact = {shard for shard in before if shard not in {path.name for path in hurt}}
        run = run_again()
        said = run.wait()
        after = {path.name: header(path) for path in cache.glob("signals/*/*.shard2")}
        results[name] = {
            "damaged_files": len(hurt),
            "rows_in_damaged_shards": rows_hurt,
            "noticed": [path.name for path in hurt if path.name in said] == [path.name for path in hurt],
            "lines_on_stderr": said.count("\n"),
            "rows_computed": sum(rows for shard, rows in after.items() if shard not in intact),
            "seconds": round(run.seconds, 2),
            "different_files": different(undisturbed, out),
        }

    found = sorted(cache.glob("signals/*/*.shard2"), key=lambda path: -header(path))
    if len(found) < 2:
        raise SystemExit("there is one shard only; take more --rows")
    one, two = rng.sample(found, 2)
    rows = header(one) + header(two)
    flip_bit_in_body(one, rng)
    raw = two.read_bytes()
    cut = rng.randrange(len(raw) // 2, len(raw))
    two.write_bytes(raw[:cut])
    forget_compact(cache)
    again("one shard flipped by a bit, one truncated", [one, two], rows)

    (compact,) = cache.glob("signals/*/*.rows")
    flip_bit(compact, rng)
    again("the compact copy flipped by a bit", [compact], 0)
    return results


def flip_bit_in_body(path: Path, rng: random.Random) -> None:
    """Flip one bit behind the two header lines, which :func:`header` still reads."""
    raw = bytearray(path.read_bytes())
    body = raw.index(b"\n", raw.index(b"\n") + 1) + 1
    raw[rng.randrange(body, len(raw))] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)


def measure(rows: int | None, kills: int, seed: int, scorer: str, keep: str) -> dict[str, Any]:
    rng = random.Random(seed)
    lines = MIXTURE.read_text("utf-8").splitlines(keepends=True)
    if rows is not None and rows < len(lines):
        lines = [lines[row] for row in sorted(rng.sample(range(len(lines)), rows))]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        source = work / "rows.jsonl"
        source.write_text("".join(lines), "utf-8")
        options = ["--scorer", scorer, "--keep", keep, "--seed", "0"]
        for folder in ("undisturbed", "killed"):
            (work / folder).mkdir()

        def start(arm: str) -> Run:
            return Run(source, work / arm / "cache", work / arm / "out", options)

        lengths = timeline(start("undisturbed"))
        whole = sum(lengths.values())
        print(
            f"undisturbed: {whole:.1f} s, " + ", ".join(f"{k} {v:.2f}" for k, v in lengths.items()),
            file=sys.stderr,
        )
        attempts: list[Attempt] = []
        begun = time.perf_counter()
        cache, out, undisturbed = (
            work / "killed" / "cache",
            work / "killed" / "out",
            work / "undisturbed" / "out",
        )
        completions: list[list[str]] = []
        for phase, delay in plan(kills, lengths, rng):
            for again in range(5):
                if phase == "compaction":
                    forget_compact(cache)
                attempts.append(kill_in(start("killed"), phase, delay / 2**again))
                print(f"{len(attempts):3} {attempts[-1]}", file=sys.stderr)
                if attempts[-1].killed:
                    break
                completions.append(different(undisturbed, out))
                if phase in ("start", "embedding"):
                    shutil.rmtree(cache)
        last = start("killed")
        last.wait()
        attempts.append(
            Attempt("none", "completed", round(last.seconds, 2), sum(shards(cache).values()), False)
        )
        completions.append(different(undisturbed, out))
        total = time.perf_counter() - begun
        result: dict[str, Any] = {
            "rows": len(lines),
            "scorer": scorer,
            "keep": keep,
            "seed": seed,
            "undisturbed_seconds": round(whole, 2),
            "phase_seconds": {phase: round(seconds, 3) for phase, seconds in lengths.items()},
            "kills": sum(attempt.killed for attempt in attempts),
            "kills_by_observed_phase": {
                phase: sum(a.killed and a.observed == phase for a in attempts) for phase in PHASES
            },
            "attempts": [asdict(attempt) for attempt in attempts],
            "all_attempts_seconds": round(total, 2),
            "files_compared": sorted(contents(undisturbed)),
            "completions": len(completions),
            "different_files": sorted({name for names in completions for name in names}),
            "leftover_temporary_files_in_the_cache": len(list(cache.rglob("*.tmp-*"))),
            "leftover_folders_beside_the_output": len(list((work / "killed").glob(".out.*"))),
        }
        result["damage"] = damage(lambda: start("killed"), cache, undisturbed, out, rng)
    result["machine"] = machine()
    result["versions"] = versions(
        "datapruner", "torch", "transformers", "sentence-transformers", "faiss-cpu", "pyarrow", "numpy"
    )
    return result


def show(result: dict[str, Any]) -> str:
    lines = [f"{result['rows']} rows; undisturbed {result['undisturbed_seconds']} s"]
    lines.append(f"{'':>3} {'planned':>11} {'killed in':>11} {'after s':>8} {'rows stored':>12}")
    for number, attempt in enumerate(result["attempts"], 1):
        lines.append(
            f"{number:3} {attempt['planned']:>11} {attempt['observed']:>11} {attempt['seconds']:8.2f} "
            f"{attempt['rows_stored']:12}"
        )
    lines.append(
        f"{result['kills']} kills, {result['completions']} completed runs, "
        f"{len(result['files_compared'])} files compared, "
        f"different: {', '.join(result['different_files']) or 'none'}; left behind: "
        f"{result['leftover_temporary_files_in_the_cache']} files in the cache, "
        f"{result['leftover_folders_beside_the_output']} folders beside the output"
    )
    for what, of in result["damage"].items():
        lines.append(
            f"{what}: noticed {of['noticed']} ({of['lines_on_stderr']} lines on stderr), "
            f"{of['rows_computed']} rows computed of {of['rows_in_damaged_shards']} damaged, "
            f"different: {', '.join(of['different_files']) or 'none'}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", type=int, default=None, help="a seeded sample of the mixture; default: all of it"
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scorer", default="concept_complexity")
    parser.add_argument("--keep", default="0.3")
    parser.add_argument("--output", type=Path, default=RESULTS / "resume.json")
    arguments = parser.parse_args()
    result = measure(arguments.rows, arguments.kills, arguments.seed, arguments.scorer, arguments.keep)
    print(show(result))
    write(arguments.output, result)
    right = not result["different_files"] and all(
        of["noticed"] and not of["different_files"] and of["rows_computed"] == of["rows_in_damaged_shards"]
        for of in result["damage"].values()
    )
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
