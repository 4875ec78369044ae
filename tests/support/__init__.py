"""What several tests share: small checkpoints and an independent decoder of them."""
