"""What a row is: reading a source, its layout, its text and its tokens."""

from datapruner.samples.hashing import content_hash
from datapruner.samples.inspection import Inspection, inspect_samples, render_text
from datapruner.samples.layouts import parse_mapping
from datapruner.samples.rendered import Rendered
from datapruner.samples.rendering import count_tokens, render, render_many
from datapruner.samples.sample import Layout, Message, Part, Sample
from datapruner.samples.samples import Samples
from datapruner.samples.source import load_samples

__all__ = [
    "Inspection",
    "Layout",
    "Message",
    "Part",
    "Rendered",
    "Sample",
    "Samples",
    "content_hash",
    "count_tokens",
    "inspect_samples",
    "load_samples",
    "parse_mapping",
    "render",
    "render_many",
    "render_text",
]
