"""Teaching models: a recipe goes in, a model folder like any other comes out."""
