"""Verification of many commands: which ranges, and where each is replayed."""
