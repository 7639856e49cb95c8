import logging

import pytest

from unimo import distributed
from unimo.errors import DeviceError
from unimo.settings import TrainConfig
from unimo.training import precision


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_autocast_on_a_cpu_is_refused_or_replaced(name: str, caplog: pytest.LogCaptureFixture) -> None:
    if distributed.is_on_gpu():
        pytest.skip("autocast works here")
    with pytest.raises(DeviceError, match="silent no-op"):
        precision.choose(TrainConfig(precision=name))
    with caplog.at_level(logging.WARNING):
        assert precision.choose(TrainConfig(precision=name, on_unsupported_precision="fp32")) == "fp32"
    assert "training in fp32" in caplog.text


def test_scaler_state_round_trip() -> None:
    first, second = precision.Precision("fp16"), precision.Precision("fp16")
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    assert precision.Precision("fp32").state_dict() == {}


@pytest.mark.parametrize(("stage", "ranks", "message"), [(1, 1, "there is one"), (2, 2, "refuses a CPU")])
def test_sharding_that_cannot_run(stage: int, ranks: int, message: str) -> None:
    if distributed.is_on_gpu():
        pytest.skip("a CPU matter")
    with pytest.raises(DeviceError, match=message):
        distributed.check_sharding(stage, ranks)


def test_gpu_that_is_not_there() -> None:
    if distributed.is_on_gpu():
        pytest.skip("there is one")
    with pytest.raises(DeviceError, match="sees no GPU"):
        distributed.setup(TrainConfig(device="gpu"))


def test_one_rank_needs_no_collectives() -> None:
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.any_over_ranks(True)
    assert distributed.gather("x") == ["x"]
    distributed.barrier()
