"""What the README's figures come from; each module is run with `python -m`."""
