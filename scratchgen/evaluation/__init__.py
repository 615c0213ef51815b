"""Evaluation of trained models: likelihoods, the match of codes and prior, the classes of samples."""
