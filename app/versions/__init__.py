"""Which model serves: finds versions in a folder, verifies, loads, swaps and rolls back.

It knows the artifact's contract and the runtimes; it knows nothing of queues, requests or HTTP.
"""
