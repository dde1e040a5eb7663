"""What the server keeps on disk: its settings, its state directory, and the inventory."""
