"""What each command does: load, run, print. Only these modules print."""
