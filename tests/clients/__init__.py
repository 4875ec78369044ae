"""Programs that talk to the server over HTTP."""
