"""What a user's terminal does with a server, ours or anybody's that speaks OpenAI's protocol."""
