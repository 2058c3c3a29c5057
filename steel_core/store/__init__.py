"""What people decide, kept for good: append-only, safe under several sessions."""
