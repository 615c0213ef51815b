"""Recipes: what each kind of model contributes to a run."""

from scratchgen.recipes.aae import AAERecipe
from scratchgen.recipes.dbm import DBMRecipe
from scratchgen.recipes.dbn import DBNRecipe
from scratchgen.recipes.gan import GANRecipe
from scratchgen.recipes.rbm import RBMRecipe
from scratchgen.recipes.recipe import Recipe, RunConfig
from scratchgen.recipes.vae import VAERecipe

RECIPES: dict[str, Recipe] = {
    recipe.model: recipe for recipe in (VAERecipe(), GANRecipe(), AAERecipe(), RBMRecipe(), DBNRecipe(), DBMRecipe())
}

__all__ = ["RECIPES", "Recipe", "RunConfig"]
