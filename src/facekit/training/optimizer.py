"""Adam (Kingma and Ba 2015) as torch has it, without torch's compiler."""

from __future__ import annotations

import inspect

import torch
from torch.optim import Optimizer


class Adam(torch.optim.Adam):
    """torch.optim.Adam; `weight_decay` is the coupled L2 term.

    Methods of torch's optimisers import the compiler (torch._dynamo) to keep it out of them. Where nothing is compiled
    that costs memory and time at the start for nothing, so these are the same methods as they are underneath.
    """

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
