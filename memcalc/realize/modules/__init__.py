"""torch modules that no library has: what a method puts into a model where peft has none of its kind, a file each.

A file defines `put(model, targets, like, **options)`, which puts modules where the targets (full names) stand; `like`
says of a module which device and dtype a neighbour of it has.
"""
