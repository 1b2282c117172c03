"""LSTM sequence-to-sequence models whose embedding tables are sharded by rows over several processes."""

__version__ = "0.1.0"
