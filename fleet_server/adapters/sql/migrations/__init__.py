"""What changed the operator's database, in order."""
