"""Pass bundles on: packed the same every time, signed, and looked at before a line of them runs."""
