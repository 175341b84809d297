"""From a recipe to what its scorers read."""
