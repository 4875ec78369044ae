"""The model, top to bottom: checkpoint, weights, forward pass and text."""
