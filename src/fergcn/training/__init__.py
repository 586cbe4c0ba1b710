"""From clips to a checkpoint."""
