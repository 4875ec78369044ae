"""isobath."""
