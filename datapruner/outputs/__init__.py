"""What a run leaves: a pruned dataset with its card and reasons, or a folder of scores."""
