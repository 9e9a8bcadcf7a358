"""Faults, made on purpose: real kills, full disks and rude tasks under a load of tasks, and the ledger that must add up afterwards.

It starts a server of its own for every row, and judges it by what a client was told and by what the tasks left behind.
"""
