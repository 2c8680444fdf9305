"""Contracts between services and process plumbing."""
