"""Measures of trained models: likelihoods, codes beside their prior, samples before a judge."""
