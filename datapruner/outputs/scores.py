"""Where saved scores were read; that is done by :mod:`datapruner.scores` now."""

from datapruner.moved import moved

__getattr__ = moved(
    __name__, {"load_scores": "datapruner.scores", "save_scores": "datapruner.outputs.score_files"}
)
