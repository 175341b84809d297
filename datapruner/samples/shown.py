"""Whether a rendered text says what a turn says, and where in it a turn begins and ends."""

from __future__ import annotations

from datapruner.samples.templates import Handed, Template


def header_start(text: str, header: str, lowest: int, first: int) -> int:
    """Return where the header before a turn begins; a marked turn may begin inside of it."""
    sizes = range(min(len(header), first - lowest), 0, -1)
    return first - next((size for size in sizes if text.endswith(header[:size], lowest, first)), 0)


def follows(end: str, start: str, whole: str) -> str:
    """Return the text up to a turn's end where others follow; empty where the template rewrites the turn.

    Some templates put something before the answer that comes last (Qwen 3's empty thought) and take it out again
    once another follows.
    """
    if not (end.startswith(start) and whole.startswith(start)):
        return ""
    said = end[len(start) :]
    cut = next((at for at in range(len(said)) if whole.startswith(said[at:], len(start))), None)
    return "" if cut is None else start + said[cut:]


def overlap(start: str, template: Template, message: Handed) -> str:
    """Return what a prompt says of the answer already: the beginning of its thought, in some templates."""
    said = template.claims(message)[:1] or [""]
    sizes = range(min(len(template.header), len(said[0])), 0, -1)
    return next((start[-size:] for size in sizes if start.endswith(said[0][:size])), "")


def holds(text: str, template: Template, message: Handed) -> bool:
    """Tell whether a text says all of a turn, white space aside."""
    claims, called, thoughts = template.claims(message), template.called(message), template.thoughts(message)
    if len(claims) == 1 and not called and not thoughts and claims[0] in text:
        return True
    squeezed = squeeze(text)
    return Said(squeezed).says(claims, called) and all(squeeze(thought) in squeezed for thought in thoughts)


class Said:
    """A text without white space, read from its beginning to its end."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def says(self, contents: list[str], names: list[str]) -> bool:
        """Tell whether contents follow one another, and names stand somewhere else."""
        places = []
        for content in map(squeeze, contents):
            at = self.text.find(content, self.at)
            if at < 0:
                return False
            places.append((at, at + len(content)))
            self.at = at + len(content)
        if not names:
            return True
        edges = [0, *(edge for place in places for edge in place), len(self.text)]
        rest = "\n".join(self.text[first:stop] for first, stop in zip(edges[::2], edges[1::2], strict=True))
        return all(squeeze(name) in rest for name in names)


def squeeze(text: str) -> str:
    """Return a text without white space, which templates may trim."""
    return "".join(text.split())
