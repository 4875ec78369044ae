"""The HTTP face of the engine, and the engines behind it."""
