"""The configuration of a run: its keys, and how a YAML file and the command line set them. Free of torch."""

from dist_s2s.config.loading import load_config
from dist_s2s.config.schema import KEYS, RESUMABLE_KEYS, Config, differences

__all__ = ["KEYS", "RESUMABLE_KEYS", "Config", "differences", "load_config"]
