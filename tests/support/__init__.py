"""What several tests share: servers, clients, checkpoints, recordings, cases."""
