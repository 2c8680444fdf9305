"""Comparison of two servers' answers: with recordings in the tests, between live servers in `playhead parity`."""
