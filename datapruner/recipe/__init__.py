"""The recipe: what decides a run, its file, and what it can hold."""

from datapruner.recipe.files import MOST_ROWS, load_recipe
from datapruner.recipe.places import FILES, PATHS
from datapruner.recipe.recipe import Recipe, make_recipe
from datapruner.recipe.values import LONG, MASKS, Method, method_of, plain

__all__ = [
    "FILES",
    "LONG",
    "MASKS",
    "MOST_ROWS",
    "PATHS",
    "Method",
    "Recipe",
    "load_recipe",
    "make_recipe",
    "method_of",
    "plain",
]
