"""Made-up machines and a problem that the tests of the cost model share."""

import torch

from dist_s2s.cost.calibration import Calibration
from dist_s2s.cost.problem import OPTIMIZERS, Cluster, Problem

KNOWN = Calibration(
    date="2026-11-27",
    cpu="made up",
    cores=4,
    torch=torch.__version__,
    process_bytes=3e8,
    coefficients={
        "step": 1e-3,
        "id": 4e-8,
        "row_byte": 5e-11,
        **{f"{name} updated_byte": 7e-10 for name in OPTIMIZERS},
        "shared_memory exchange": 5e-5,
        "shared_memory peer": 1e-4,
        "collective exchange": 6e-4,
        "collective peer": 2e-4,
        "collective sent_byte": 2e-10,
    },
)
HOST = Cluster(ranks=4, hosts=1, cores=4)
HOSTS = Cluster(ranks=64, hosts=8, cores=8)
PROBLEM = Problem(100_000, 64, 4_096, 1.0, HOST, transport="shared_memory")
