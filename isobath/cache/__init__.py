"""Where a byte of the cache lives: row geometry and the views that ops receive."""
