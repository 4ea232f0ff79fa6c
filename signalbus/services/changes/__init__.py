"""Change deliveries for people: each function takes an actor, checks its permission, and writes the audit log."""
