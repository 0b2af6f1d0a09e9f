"""Causal transformer (or not) and GRU behind one call: model(x (B, T, C), levels (B, T, P)) -> (B, T, C)."""

from dfplanner.models.build import ModelConfig, build_model

__all__ = ["ModelConfig", "build_model"]
