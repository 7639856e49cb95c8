"""Make the tiny files of torch that the tests of its reader open.

    python tests/assets/make_torch_files.py

Needs torch (2.13 was used); the tests only read what it writes.
"""

from __future__ import annotations

import argparse
import collections
import sys
import types
from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parent / "torch_files"


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(2, 3)
        self.register_buffer("ids", torch.arange(3))
        self.count = 7

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.scale = torch.nn.Parameter(torch.tensor(2.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x) * self.scale


def foreign_class(module: str, name: str, base: type) -> type:
    """Make a class of a package that is not installed."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    made = type(name, (base,), {"__module__": module})
    setattr(sys.modules[module], name, made)
    return made


def main() -> None:
    net = Net()
    with torch.no_grad():
        net.block.fc.weight.copy_(torch.arange(6.0).reshape(3, 2))
        net.block.fc.bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
    state = collections.OrderedDict((name, value.clone()) for name, value in net.state_dict().items())
    state._metadata = net.state_dict()._metadata
    torch.save(state, FOLDER / "plain.bin")
    torch.jit.save(torch.jit.script(net), FOLDER / "script.pt")
    torch.save(state, FOLDER / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(net, FOLDER / "module.pt")
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    brain = {name: value.bfloat16() if value.is_floating_point() else value for name, value in state.items()}
    torch.save(half, FOLDER / "half.pt")
    torch.save(brain, FOLDER / "brain.pt")
    flat = torch.arange(12.0)
    views = {
        "turned": flat.reshape(3, 4).t(),
        "part": flat[5:8],
        "every": flat[::3],
        "none": torch.zeros(0, 4),
        "flags": torch.tensor([True, False]),
    }
    torch.save(views, FOLDER / "views.pt")
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    callback = foreign_class("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", object)
    attributes = foreign_class("pytorch_lightning.utilities.parsing", "AttributeDict", dict)
    lightning = {
        "epoch": 1,
        "state_dict": state,
        "callbacks": {callback: {"best": torch.tensor(1.0)}},
        "optimizer_states": [optimizer.state_dict()],
        "hyper_parameters": attributes(config={"lr": 1e-5, "size": torch.Size([1, 2])}),
        "loops": {"set": {1, 2}, "where": Path("a/b")},
    }
    torch.save(lightning, FOLDER / "lightning.ckpt")
    deepspeed = {
        "module": {f"module.{name}": value for name, value in half.items()},
        "optimizer": None,
        "ds_config": argparse.Namespace(a=1),
        "param_shapes": [collections.OrderedDict(a=torch.Size([2]))],
        "dtype": torch.float16,
    }
    torch.save(deepspeed, FOLDER / "mp_rank_00_model_states.pt")


if __name__ == "__main__":
    main()
