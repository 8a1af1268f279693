"""The words that all rooms share: mixtures, their space, objectives, recipes, trials, errors."""
