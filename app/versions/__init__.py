"""Decides which model serves: finds versions in a folder, verifies, loads, swaps and rolls back.

It knows the artifact's contract and the runtimes. It knows no queues, requests or HTTP.
"""
