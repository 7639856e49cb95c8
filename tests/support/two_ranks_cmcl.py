"""Run by test_cmcl_ranks.py on two ranks: CMCL and masked regions of half a batch each, written as numbers.

python two_ranks_cmcl.py OUTPUT ...
"""

import json
import sys
from pathlib import Path

import paddle.distributed as dist
from cmcl_data import SECOND_RANKS, first_rank, run
from region_data import run_regions


def main() -> None:
    """Each case of what the second rank may hold, in one order on both ranks."""
    dist.init_parallel_env()
    rank = dist.get_rank()
    result = {name: run(first_rank() if rank == 0 else second()) for name, second in SECOND_RANKS.items()}
    result["regions"] = run_regions([rank])
    (Path(sys.argv[1]) / f"rank{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
