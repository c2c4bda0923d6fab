"""Footprints in, tables and pictures out. Nothing here computes memory."""
