"""Programs: what assembles the rooms below, starts them and stops them in order."""
