"""When: requests, sampling and the loop that runs the model."""
